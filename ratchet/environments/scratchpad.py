"""The labelled digit sum: questions, worked steps, and demonstrations of mixed quality.

A tiny transformer learns it in seconds, and effort pays: with every step written out the answer is right almost
always, with two steps left out it is a guess. `arithmetic` asks for the sum, `judge` for a verdict on two sums.
Pure functions.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

from ratchet.rewards.text import CLOSE_ANSWER, CLOSE_THINK, OPEN_ANSWER, OPEN_THINK

LABELS = string.ascii_lowercase
"""One label per term, so a question has at most as many terms."""


def draw_digits(rng: random.Random, terms_min: int, terms_max: int) -> list[int]:
    """Return the terms of one question: `terms_min` to `terms_max` digits, each 0..9."""
    return [rng.randint(0, 9) for _ in range(rng.randint(terms_min, terms_max))]


def question(digits: Sequence[int]) -> str:
    """Return the question as text: ``a7b3c5=?``."""
    return "".join(f"{label}{digit}" for label, digit in zip(LABELS, digits, strict=False)) + "=?"


def total(digits: Sequence[int]) -> int:
    """Return the answer: the sum modulo 10."""
    return sum(digits) % 10


def worked_steps(digits: Sequence[int]) -> list[str]:
    """Return one step per term: its label, its digit, and the running sum modulo 10; ``a77``, ``b30``, ``c55``."""
    steps, running = [], 0
    for label, digit in zip(LABELS, digits, strict=False):
        running = (running + digit) % 10
        steps.append(f"{label}{digit}{running}")
    return steps


def draw_kept_steps(rng: random.Random, num_steps: int, full_share: float) -> int:
    """Return how many steps a demonstration writes out: all with probability `full_share`, else fewer."""
    n = num_steps
    if rng.random() < full_share:
        return n
    # Mostly near misses: leaving one step out still pays sometimes, which gives reinforcement learning a slope.
    return max(0, rng.choice((n - 1, n - 2, n - 3, n - 4, n // 2, n // 3, 0)))


def write_answer(thinking: str, answer: str) -> str:
    """Return the full form of an answer: a think block, then an answer block."""
    return f"{OPEN_THINK}{thinking}{CLOSE_THINK}{OPEN_ANSWER}{answer}{CLOSE_ANSWER}"


def drop_one_tag(rng: random.Random, text: str, share: float) -> str:
    """Return the text, with probability `share` without one of its tags: the closing think tag or an answer tag."""
    if rng.random() >= share:
        return text
    tag = rng.choice((CLOSE_THINK, OPEN_ANSWER, CLOSE_ANSWER))
    before, _, after = text.rpartition(tag)
    return before + after
