"""What a reward function may return, checked and put into one form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

from ratchet.core.rollout import Score
from ratchet.rewards.errors import RewardInvalid

_ALLOWED = "Return a finite number, a dict of named numbers (their sum is the value), or a ratchet.core.rollout.Score."


def as_score(returned: object) -> Score:
    """Return the `Score` that a reward function's return value stands for: a number, a dict of parts, or a score.

    **Raises**: `RewardInvalid`, with the offending value, for anything else and for NaN and infinities.
    """
    if isinstance(returned, Score):
        parts = {str(name): _finite(part, f'its part "{name}" is') for name, part in returned.parts.items()}
        return Score(_finite(returned.value, "it returned a Score of"), parts)
    if isinstance(returned, Mapping):
        if not returned:
            raise RewardInvalid(f"it returned a dict without parts. {_ALLOWED}")
        parts = {str(name): _finite(part, f'its part "{name}" is') for name, part in returned.items()}
        return Score(_finite(math.fsum(parts.values()), "its parts sum to"), parts)
    return Score(_finite(returned, "it returned"))


def _finite(value: object, what: str) -> float:
    # Real covers bool, int, float and NumPy's scalars; not arrays, not texts, not None.
    if not isinstance(value, Real):
        raise RewardInvalid(f"{what} {_shown(value)} of type {type(value).__name__}. {_ALLOWED}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RewardInvalid(f"{what} {_shown(value)}, which is not finite. {_ALLOWED}")
    return number


def _shown(value: object) -> str:
    try:
        text = repr(value)
    # A repr is the user's code too, and Python refuses to print very long integers.
    except Exception as error:
        return f"something whose repr raises {type(error).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
