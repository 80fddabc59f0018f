"""Results that are tuples or iterators: how a test makes lists of them, so that JSON can say what is expected.

Level 0 compares ``f(x)``, level 1 ``list(f(x))``, level 2 ``[list(row) for row in f(x)]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ratchet.bugs.measure import Result

LEVELS = (0, 1, 2)


class NotListed(Exception):
    """A result of which a test cannot make the lists of its level."""


def listed(result: Result, level: int) -> object:
    """Return what a test of a level compares, as it compares it; a value that no JSON equals where JSON cannot say it.

    **Raises**: `NotListed` where the test would raise a TypeError.
    """
    if level == 0:
        return result.value if result.what == "value" else _UNLIKE
    if result.what not in ("value", "list", "lists"):
        raise NotListed  # a set or bytes could be listed; a test that fails there for another reason fails all the same
    if result.what == "lists" and level == 1:
        return _UNLIKE
    items = _items(result.value)
    return items if level == 1 else [_items(item) for item in items]


_UNLIKE = object()


def _items(value: object) -> list[object]:
    if not isinstance(value, Iterable):
        raise NotListed
    return list(value)


def is_natural(result: Result, level: int) -> bool:
    """Return whether a level says all of a result: a text, say, is not meant as the list of its characters."""
    match level, result.what:
        case (0, "value") | (1, "list") | (2, "lists"):
            return True
        case (1, "value"):
            return isinstance(result.value, list)
        case (2, "value" | "list"):
            return isinstance(result.value, list) and all(isinstance(item, list) for item in result.value)
    return False


def level_of(results: Sequence[Result]) -> int:
    """Return the level that suits the most results; of equals the lowest."""
    return max(LEVELS, key=lambda level: (sum(is_natural(result, level) for result in results), -level))
