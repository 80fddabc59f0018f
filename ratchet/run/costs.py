"""What a step cost in floating-point operations, from the tokens that really ran."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.core.rollout import Group, Turn
from ratchet.core.shape import ModelShape


def step_costs(shape: ModelShape, groups: Sequence[Group], *, reference: bool) -> dict[str, float]:
    """Return ``flops/generate``, ``flops/train`` and ``rollouts`` of a step.

    A prompt shared by a group runs once, in generation and in training alike. Training is forward and backward
    (three forward passes), one more making of the logits in backward, and a forward pass of the reference if there
    is one. Samples without a gradient are counted as trained: the figure is what the method asks for.
    """
    generate = train = rollouts = 0
    for group in groups:
        rollouts += len(group.rollouts)
        turns = [t for r in group.rollouts for tr in r.trajectories for t in tr.turns]
        for prompt in {t.prompt.tobytes(): len(t.prompt) for t in turns}.values():
            forward = shape.forward_flops(prompt, prompt * (prompt + 1) // 2, 0)
            generate += forward
            train += forward * (4 if reference else 3)
        for turn in turns:
            tokens, pairs = _own(turn)
            forward = shape.forward_flops(tokens, pairs, len(turn.output))
            generate += forward
            train += forward * (4 if reference else 3) + shape.forward_flops(0, 0, len(turn.output))
    return {"flops/generate": float(generate), "flops/train": float(train), "rollouts": float(rollouts)}


def _own(turn: Turn) -> tuple[int, int]:
    """Return the tokens of an answer that run through the model, and the sum of what each attends to."""
    tokens = max(0, len(turn.output) - 1)  # the last token is never fed back
    return tokens, tokens * len(turn.prompt) + tokens * (tokens + 1) // 2
