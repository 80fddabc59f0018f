"""How the tiny `reproduce` tasks are answered, well and badly: what the warm start learns from. Pure functions.

A test writer's full answer tries inputs, evaluating what the docstring says and what the code does, until they differ:

    <think>f(2): spec a>6: 2>6 F a-2: 2-2=0, code a>6: 2>6 F a-2: 2-2=0, SAME
    f(8): spec a>6: 8>6 T a+6: 8+6=4, code a>6: 8>6 T a-6: 8-6=2, DIFF
    </think>assert f(8)==4

A bug fixer's compares the formula with the code piece by piece, then edits the line that differs:

    <think>a>6, code a>6, SAME
    a+6, code a-6, DIFF
    </think><<<<<<< SEARCH
      return (a-6)%10
    =======
      return (a+6)%10
    >>>>>>> REPLACE

Where the docstring holds examples, both evaluate the code on them instead. The bad answers skip the working and guess.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ratchet.environments.reproduce_edits import DIVIDER, REPLACE, SEARCH, Edit, write_edit
from ratchet.environments.reproduce_functions import (
    COMPARE,
    Function,
    Input,
    all_pieces,
    inputs,
    mutate,
    revealing,
    write_call,
)
from ratchet.rewards.text import CLOSE_THINK, OPEN_THINK

Effort = Literal["guess", "spec", "check"]

SAME, DIFF = ", SAME\n", ", DIFF\n"
SPEC, CODE = ": spec ", ", code "
WORDS = (
    *(OPEN_THINK, CLOSE_THINK, SEARCH, DIVIDER, REPLACE),
    *(SAME, DIFF, CODE, f"){SPEC}", f"]){SPEC}"),
    *("assert f(", "assert f([", "f(", "f([", ")==", "])==", ", ", ": ", " T ", " F ", " ? ", " : ", "; "),
    *("def f(a):\n", "def f(a, b):\n", "def f(xs):\n", ' """', '"""\n'),
    *(" if ", "  if ", ":\n", "  return (", " return (", ")%10\n"),
    *(" t = ", " for a in xs:\n", "   t = (", " return t\n"),
    *(sign for sign in COMPARE if len(sign) > 1),
    *all_pieces(),
)
"""Strings of several characters that should be single tokens. With a piece of a formula in one token a policy of two
layers learns to find and copy it; spelt out in three it did not in 5500 updates."""
CHARACTERS = "".join(sorted({*"0123456789abt+-=|", *(sign for sign in COMPARE if len(sign) == 1), "\n"}))


@dataclass(frozen=True, slots=True)
class Bug:
    """A function, its mutant, and the examples its docstring shows (none: it shows the formula)."""

    fixed: Function
    buggy: Function
    examples: tuple[Input, ...] = ()

    @property
    def docstring(self) -> str:
        """Return the intended behaviour as the file tells it."""
        shown = [f"{write_call(self.fixed.kind, values)}=={self.fixed.call(values)}" for values in self.examples]
        return ", ".join(shown) if shown else self.fixed.formula()

    @property
    def shown_inputs(self) -> Sequence[Input]:
        """Return the inputs whose right result the docstring tells."""
        return self.examples or inputs(self.fixed.kind)


def draw_examples(rng: random.Random, fixed: Function, buggy: Function, count: int) -> tuple[Input, ...]:
    """Return inputs to show as examples, in random order: one reveals the bug, more only where others are too few."""
    reveal = revealing(fixed, buggy)
    told = set(reveal)
    silent = [values for values in inputs(fixed.kind) if values not in told]
    shown = [rng.choice(reveal), *rng.sample(silent, min(count - 1, len(silent)))]
    rng.shuffle(shown)
    return tuple(shown)


def write_test(bug: Bug, rng: random.Random, effort: Effort, persistence: float, attempts: int) -> str:
    """Return a test writer's answer: a guess, one evaluation of what is intended, or checked attempts.

    After an attempt that shows no difference the next one follows with probability `persistence`, up to `attempts`.
    """
    tried = rng.sample(bug.shown_inputs, min(attempts, len(bug.shown_inputs)))
    if effort == "guess":
        return _answer_test(bug, "", tried[0])
    if effort == "spec":
        return _answer_test(bug, _intended(bug, tried[0]), tried[0])
    working = ""
    for values in tried:
        working += attempt(bug, values)
        if working.endswith(DIFF) or rng.random() >= persistence:
            break
    return _answer_test(bug, working, values)


def best_test(bug: Bug) -> str:
    """Return the answer that tries one input, which reveals the bug."""
    chosen = next(values for values in bug.shown_inputs if bug.fixed.call(values) != bug.buggy.call(values))
    return _answer_test(bug, attempt(bug, chosen), chosen)


def write_fix(bug: Bug, rng: random.Random, effort: Effort, persistence: float) -> str:
    """Return a bug fixer's answer: a guess, a line of the formula written unasked, or a line found by comparing."""
    wrong, pieces = _wrong_line(bug), len(bug.fixed.lines())
    if effort == "guess" or (effort == "spec" and bug.examples):
        guess = mutate(bug.buggy, rng)
        place = next(i for i in range(pieces) if guess.lines()[i] != bug.buggy.lines()[i])
        return _answer_fix(bug, "", place, guess)
    if effort == "spec":
        return _answer_fix(bug, "", rng.randrange(pieces), bug.fixed)
    working, place = "", wrong
    if bug.examples:
        for values in bug.examples:
            working += attempt(bug, values)
            if working.endswith(DIFF) or rng.random() >= persistence:
                break
        return _answer_fix(bug, working, wrong, bug.fixed)
    for place in range(pieces):
        working += _comparison(bug, place)
        if place == wrong:
            break
        if rng.random() >= persistence:  # gives up: takes the line after
            return _answer_fix(bug, working, min(place + 1, pieces - 1), bug.fixed)
    return _answer_fix(bug, working, place, bug.fixed)


def best_fix(bug: Bug) -> str:
    """Return the answer that compares until it finds the difference, and then edits."""
    return write_fix(bug, random.Random(0), "check", 1.0)


def attempt(bug: Bug, values: Input) -> str:
    """Return the working of one checked input: what is intended, what the code does, whether they differ."""
    same = bug.fixed.call(values) == bug.buggy.call(values)
    return _intended(bug, values) + CODE + bug.buggy.working(values) + (SAME if same else DIFF)


def _intended(bug: Bug, values: Input) -> str:
    told = str(bug.fixed.call(values)) if bug.examples else bug.fixed.working(values)
    return write_call(bug.fixed.kind, values) + SPEC + told


def _comparison(bug: Bug, place: int) -> str:
    intended, written = bug.fixed.pieces()[place], bug.buggy.pieces()[place]
    return f"{intended}{CODE}{written}{SAME if intended == written else DIFF}"


def _wrong_line(bug: Bug) -> int:
    pairs = zip(bug.fixed.lines(), bug.buggy.lines(), strict=True)
    return next(i for i, (right, wrong) in enumerate(pairs) if right != wrong)


def _answer_test(bug: Bug, working: str, values: Input) -> str:
    call = write_call(bug.fixed.kind, values)
    return f"{OPEN_THINK}{working}{CLOSE_THINK}assert {call}=={bug.fixed.call(values)}"


def _answer_fix(bug: Bug, working: str, place: int, right: Function) -> str:
    edit = Edit(bug.buggy.lines()[place], right.lines()[place])
    return f"{OPEN_THINK}{working}{CLOSE_THINK}{write_edit(edit)}"
