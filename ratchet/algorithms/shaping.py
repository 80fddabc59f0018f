"""Rewards as they are trained on: weighted parts, penalties on length, and Toggle. Pure functions of one group.

The score of an attempt is a fact and is recorded; what it is worth in training may change over the run, and is derived
from it here, before any algorithm sees it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def weighted(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return ``sum_k weights[k] * parts[k]``; a part that an attempt does not have counts 0.

    PARL's reward is of this form, ``lambda_1 r_parallel + lambda_2 r_finish + r_perf`` with both lambdas annealed to 0.

    **Source**: Kimi K2.5, technical report.
    """
    return sum(weight * parts.get(name, 0.0) for name, weight in weights.items())


def k1_5_length(right: Sequence[bool], lengths: Sequence[int]) -> list[float]:
    """Return the length term of each attempt: from +0.5 for the shortest of the group to -0.5 for the longest.

    ``lambda_i = 0.5 - (length_i - min) / (max - min)``; a right answer gets lambda_i, a wrong one min(0, lambda_i).
    All are 0 where all lengths are equal.

    **Source**: Kimi k1.5 (arXiv 2501.12599), its length reward.
    """
    low, high = min(lengths), max(lengths)
    if low == high:
        return [0.0] * len(lengths)
    terms = [0.5 - (length - low) / (high - low) for length in lengths]
    return [term if good else min(0.0, term) for term, good in zip(terms, right, strict=True)]


def overlong(length: int, *, limit: int, buffer: int) -> float:
    """Return the soft penalty on an answer that comes near its limit, from 0 down to -1.

    0 up to ``limit - buffer`` tokens, then falling in equal parts to -1 at `limit`, and -1 beyond.

    **Source**: DAPO (arXiv 2503.14476), soft overlong punishment.
    """
    return -min(1.0, max(0.0, (length - (limit - buffer)) / buffer))


def budget_of(right: Sequence[bool], lengths: Sequence[int], *, percentile: float) -> float | None:
    """Return the percentile of the lengths of right answers, by linear interpolation; None if there are none.

    **Source**: Toggle's budget, Kimi K2.5 technical report; it is computed once for a problem, and then fixed.
    """
    good = sorted(length for length, fine in zip(lengths, right, strict=True) if fine)
    if not good:
        return None
    place = percentile / 100 * (len(good) - 1)
    below = math.floor(place)
    above = min(below + 1, len(good) - 1)
    return good[below] + (place - below) * (good[above] - good[below])


def is_limited(step: int, *, period: int) -> bool:
    """Return whether Toggle limits length in this step: in the first `period` steps, not in the next, and so on."""
    return step // period % 2 == 0


def toggled(rewards: Sequence[float], lengths: Sequence[int], budget: float, *, solved: float) -> list[float]:
    """Return the rewards of a phase that limits length: answers longer than the budget earn 0.

    ``r * 1[mean r < solved or length <= budget]``: problems that are not solved often enough yet keep all rewards.

    **Source**: Toggle, Kimi K2.5 technical report (its indices there are mixed up; read as here).
    """
    if sum(rewards) / len(rewards) < solved:
        return list(rewards)
    return [reward if length <= budget else 0.0 for reward, length in zip(rewards, lengths, strict=True)]
