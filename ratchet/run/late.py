"""Which groups take far longer than groups do, going by those that were finished."""

from __future__ import annotations

from collections import deque

REMEMBERED = 64
"""Groups that say how long groups take; of fewer than `FEWEST` nothing is concluded."""
FEWEST = 4
SHARE, TIMES = 0.9, 2.0
"""A group is late after `TIMES` the time within which this share of groups was finished. Of lengths that are log-normal
with sigma 1, one in forty is late by that."""
SOONEST_S = 1.0
"""Nothing is late before that: whoever helps must be told, and begins anew."""


class Late:
    """How long groups took lately."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=REMEMBERED)

    def took(self, seconds: float) -> None:
        """Remember a group that was finished."""
        self._took.append(seconds)

    def is_late(self, seconds: float) -> bool:
        """Return whether a group under way for so long takes far longer than groups do."""
        if len(self._took) < FEWEST:
            return False
        usual = sorted(self._took)[int(SHARE * (len(self._took) - 1))]
        return seconds > max(SOONEST_S, TIMES * usual)
