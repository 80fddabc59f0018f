"""Scores of answers that are sets of items."""

from __future__ import annotations

from collections.abc import Set


def f1_of(found: Set[object], gold: Set[object]) -> tuple[float, float, float]:
    """Return (precision, recall, F1) of a set of items against the gold one.

    ``F1 = 2 |found and gold| / (|found| + |gold|)``; an empty answer has precision 0, and two empty sets agree: 1.
    """
    if not found and not gold:
        return 1.0, 1.0, 1.0
    both = len(found & gold)
    precision = both / len(found) if found else 0.0
    recall = both / len(gold) if gold else 0.0
    return precision, recall, 2 * both / (len(found) + len(gold))
