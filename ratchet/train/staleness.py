"""How old samples are, in training steps, as shares that a chart can stack."""

from __future__ import annotations

from collections.abc import Sequence

BINS = ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31))
"""First and last staleness of each bin; what is older goes to the last, open one."""


def staleness_shares(stale: Sequence[int]) -> dict[str, float]:
    """Return ``stale/share/<bin>``: the share of samples sampled so many steps before they are trained on."""
    if not stale:
        return {}
    counts = {f"stale/share/{a}" if a == b else f"stale/share/{a}-{b}": 0 for a, b in BINS}
    beyond = f"stale/share/{BINS[-1][1] + 1}+"
    counts[beyond] = 0
    for lag in stale:
        fits = next((name for name, (a, b) in zip(counts, BINS, strict=False) if a <= lag <= b), beyond)
        counts[fits] += 1
    return {name: count / len(stale) for name, count in counts.items()}
