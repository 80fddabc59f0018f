"""What a step cost in floating-point operations, from the tokens that really ran."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.core.rollout import Group, Rollout, Turn
from ratchet.core.shape import ModelShape


def step_costs(
    shape: ModelShape, sampled: Sequence[Group], trained: Sequence[Group], *, passes: int
) -> dict[str, float]:
    """Return ``flops/generate``, ``flops/train`` and ``rollouts`` of a step.

    A prompt shared by a group runs once, in generation and in training alike. Training is forward and backward
    (three forward passes) and one more making of the logits in backward; `passes` is how many forward passes of frozen
    or earlier weights come on top (reference, teacher, correction; a critic counts four). Samples without a gradient
    are counted as trained: the figure is what the method asks for.
    """
    train = 0
    for group in trained:
        forward, heads = _forward(shape, group.rollouts)
        train += forward * (3 + passes) + heads
    asked = [(*g.rollouts, *([] if g.greedy is None else [g.greedy])) for g in sampled]
    return {
        "flops/generate": float(sum(_forward(shape, rollouts)[0] for rollouts in asked)),
        "flops/train": float(train),
        "rollouts": float(sum(len(rollouts) for rollouts in asked)),
    }


def _forward(shape: ModelShape, rollouts: Sequence[Rollout]) -> tuple[int, int]:
    """Return the FLOPs of one forward pass over attempts at one task, and of the logits of their answers alone."""
    forward = heads = 0
    turns = [t for r in rollouts for tr in r.trajectories for t in tr.turns]
    for prompt in {t.prompt.tobytes(): len(t.prompt) for t in turns}.values():
        forward += shape.forward_flops(prompt, prompt * (prompt + 1) // 2, 0)
    for turn in turns:
        tokens, pairs = _own(turn)
        forward += shape.forward_flops(tokens, pairs, len(turn.output))
        heads += shape.forward_flops(0, 0, len(turn.output))
    return forward, heads


def _own(turn: Turn) -> tuple[int, int]:
    """Return the tokens of an answer that run through the model, and the sum of what each attends to."""
    tokens = max(0, len(turn.output) - 1)  # the last token is never fed back
    return tokens, tokens * len(turn.prompt) + tokens * (tokens + 1) // 2
