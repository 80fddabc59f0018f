"""What a step cost in floating-point operations, from the tokens that really ran."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ratchet.core.rollout import Group, Turn
from ratchet.core.shape import ModelShape


def step_costs(
    shape: ModelShape,
    groups: Sequence[Group],
    frozen: Callable[[], ModelShape | None] = lambda: None,
    *,
    train_flops: int = 0,
) -> dict[str, float]:
    """Return ``flops/generate``, ``flops/agents`` and ``rollouts`` of groups, and ``flops/train`` as it is given.

    A prompt that attempts at one task share runs once. Agents are counted with the shape of their own model, which
    `frozen` is asked for where there are any; those of a server, whose weights are not known, cost nothing here.
    """
    asked = [[*g.rollouts, *([] if g.greedy is None else [g.greedy])] for g in groups]
    ours = [[u for r in rs for t in r.trajectories if t.trainable for u in t.turns] for rs in asked]
    agents = [[u for r in rs for t in r.trajectories if not t.trainable for u in t.turns] for rs in asked]
    costs = {
        "flops/generate": float(sum(_forward(shape, turns) for turns in ours)),
        "flops/train": float(train_flops),
        "rollouts": float(sum(map(len, asked))),
    }
    theirs = frozen() if any(agents) else None
    return costs if theirs is None else costs | {"flops/agents": float(sum(_forward(theirs, t) for t in agents))}


def _forward(shape: ModelShape, turns: Iterable[Turn]) -> int:
    """Return the FLOPs of generating some turns of one task."""
    prompts: dict[bytes, int] = {}
    total = 0
    for turn in turns:
        prompts[turn.prompt.tobytes()] = len(turn.prompt)
        tokens = max(0, len(turn.output) - 1)  # the last token is never fed back
        pairs = tokens * len(turn.prompt) + tokens * (tokens + 1) // 2
        total += shape.forward_flops(tokens, pairs, len(turn.output))
    return total + sum(shape.forward_flops(n, n * (n + 1) // 2, 0) for n in prompts.values())
