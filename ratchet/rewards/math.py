"""Whether a text's final answer equals the gold answer as mathematics. Runs in a reward process, never in the run:
parsing can take for ever on hostile text.

**Source**: Math-Verify, https://github.com/huggingface/Math-Verify; a plain number is compared as one, without it.
"""

from __future__ import annotations

import importlib
import logging
import re
from fractions import Fraction
from typing import Any

from ratchet.core.task import Task
from ratchet.rewards.text import final_answer

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:/\d+)?")
_LONGEST_ANSWER = 10_000
"""Characters of an answer that are looked at; no gold answer comes near."""


def score_math(task: Task, text: str) -> float:
    r"""Return 1 if the final answer in `text` equals `task.answer`, else 0.

    The final answer is what the text marks (``\boxed{}``, ``####``, an answer tag); in a text without marks
    Math-Verify looks for the last formula or number.
    """
    marked = final_answer(text)
    return float(equal(task.answer, text if marked is None else marked, marked=marked is not None))


def equal(gold: str, candidate: str, *, marked: bool = True) -> bool:
    """Return whether `candidate` equals `gold`; unless `marked`, it is prose in which the answer must be found."""
    candidate = candidate.strip()
    if not candidate:
        return False
    if marked or plain_number(candidate) is not None:
        if candidate == gold.strip():
            return True
        numbers = plain_number(gold), plain_number(candidate)
        # With a percent sign on one side only, 50% may stand against 50 or 0.5: the library knows both.
        if None not in numbers and (numbers[0] == numbers[1] or ("%" in gold) == ("%" in candidate)):
            return numbers[0] == numbers[1]
    return _verify(gold, candidate[-_LONGEST_ANSWER:], marked=marked)


def plain_number(text: str) -> Fraction | None:
    """Return the exact value of a number written out, or None: ``1,080``, ``-3``, ``$5.00``, ``12%`` (12), ``1/2``.

    Dollar and percent signs are dropped, not applied: an answer of ``12%`` to a question for per cent is 12.
    """
    bare = text.strip().replace("\\$", "").replace("\\%", "").strip("$% .")
    if not any(c.isdigit() for c in bare) or not _NUMBER.fullmatch(bare):
        return None
    try:
        return Fraction(bare.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        # Too many digits for Python's parser, or a denominator of zero: not a number we can compare.
        return None


def _verify(gold: str, candidate: str, *, marked: bool) -> bool:
    library: Any = importlib.import_module("math_verify")
    # It warns once per process that its limits are off, which is on purpose: see below.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    # Math-Verify only looks for LaTeX inside math delimiters; a box is one.
    found = library.parse(f"\\boxed{{{candidate}}}" if marked else candidate, parsing_timeout=None)
    wanted = library.parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    # Its own limits use signals, which belong to the pool here: None switches them off, and the pool kills.
    return bool(library.verify(wanted, found, timeout_seconds=None))
