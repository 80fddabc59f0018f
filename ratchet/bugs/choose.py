"""Which mutants are worth keeping, and which cases a line shows. Pure functions over what runs gave."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ratchet.bugs.allowed import words
from ratchet.bugs.draw import Args
from ratchet.bugs.ledger import Fate
from ratchet.bugs.levels import NotListed, listed
from ratchet.bugs.measure import NOT_LOADED, Ran
from ratchet.bugs.mutate import Mutant

_UNDEFINED = frozenset({"NameError", "UnboundLocalError"})
_NOT_DECLARED = words(
    "BaseException GeneratorExit ImportError KeyboardInterrupt MemoryError ModuleNotFoundError StopIteration SystemExit"
)
"""What a mutant may raise, but no line can name as the symptom of its bug."""
_CRASHING = 0.25
"""Share of the mutants kept of a function that may do nothing but raise."""
_OF_ONE_OPERATOR = 0.33
"""Share of the mutants kept of a function that one operator may have made."""
_TOO_LARGE = frozenset({"MemoryError"})


@dataclass(frozen=True, slots=True)
class Case:
    """An input and what the fixed source makes of it."""

    args: Args
    expected: object
    is_own: bool = False
    """Whether people wrote the input, in a doctest or a test."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A mutant and what the cases say of it."""

    mutant: Mutant
    fate: Fate
    reveals: frozenset[int] = frozenset()
    """Places of the cases on which it differs."""
    raises: tuple[str, ...] = ()
    """Names of exceptions it raises on some of them."""
    only_raises: bool = False
    """Whether it never gives a wrong value."""


def judge(mutant: Mutant, ran: Ran, cases: Sequence[Case], level: int, reveal_max: float) -> Judged:
    """Return what became of a mutant that was run over `cases`, whose tests are of a `level`."""
    if ran.ended:
        never_ran = ran.ended in NOT_LOADED or (ran.ended == "exited" and not ran.results)
        return Judged(mutant, Fate.UNLOADABLE if never_ran else Fate.TIMED_OUT)
    if any(r.what == "lost" for r in ran.results):
        return Judged(mutant, Fate.TIMED_OUT)
    raised = {str(r.value) for r in ran.results if r.what == "raised"}
    if raised & _UNDEFINED:
        return Judged(mutant, Fate.UNDEFINED)
    if raised & _TOO_LARGE or any((r.what, r.value) == ("other", "long") for r in ran.results if level):
        return Judged(mutant, Fate.TIMED_OUT)
    if raised & _NOT_DECLARED or any(r.what == "foreign" for r in ran.results):
        return Judged(mutant, Fate.NOT_PLAIN)
    reveals = set()
    for i, (result, case) in enumerate(zip(ran.results, cases, strict=True)):
        try:
            # As a test compares: 1, 1.0 and True are the same.
            if result.what == "raised" or listed(result, level) != case.expected:
                reveals.add(i)
        except NotListed:
            reveals.add(i)
            raised.add("TypeError")
    if not reveals:
        return Judged(mutant, Fate.EQUIVALENT)
    if len(reveals) > reveal_max * len(cases) or sum(r.what == "raised" for r in ran.results) == len(cases):
        return Judged(mutant, Fate.TRIVIAL, frozenset(reveals))
    only_raises = all(ran.results[i].what == "raised" for i in reveals)
    return Judged(mutant, Fate.KEPT, frozenset(reveals), tuple(sorted(raised)), only_raises)


def keep(judged: Sequence[Judged], results: Mapping[Mutant, Ran], most: int) -> list[Judged]:
    """Return the verdicts with those of the same behaviour as an earlier one, and those beyond `most`, set aside.

    Mutants that give wrong values come first: one that only raises is found by any call that gets there, so of these at
    most a share is kept, and of each operator too, so that a function's lines are not all of one kind.
    """
    seen: set[str] = set()
    crashing, of_operator = 0, Counter[str]()
    fates: dict[Mutant, Fate] = {}
    for one in sorted((one for one in judged if one.fate is Fate.KEPT), key=lambda one: one.only_raises):
        behaviour = json.dumps([[r.what, r.value] for r in results[one.mutant].results])
        if behaviour in seen:
            fates[one.mutant] = Fate.SAME
        elif (
            of_operator.total() == most
            or of_operator[one.mutant.operator] >= most * _OF_ONE_OPERATOR
            or (one.only_raises and crashing >= most * _CRASHING)
        ):
            fates[one.mutant] = Fate.SPARE
        else:
            of_operator[one.mutant.operator] += 1
            crashing += one.only_raises
        seen.add(behaviour)
    return [replace(one, fate=fates.get(one.mutant, one.fate)) for one in judged]


def choose_cases(cases: Sequence[Case], judged: Sequence[Judged], most: int) -> list[int]:
    """Return places of up to `most` cases that together reveal every mutant which any case reveals.

    First what people wrote, up to half; then, one by one, the case that reveals the most mutants not revealed so far,
    the shorter of equals; then cases with results that are not there yet. A patch has to pass them all.
    """
    chosen = [i for i, case in enumerate(cases) if case.is_own][: most // 2]
    left = [one.reveals for one in judged if one.reveals and one.reveals.isdisjoint(chosen)]
    lengths = [len(json.dumps([case.args, case.expected])) for case in cases]
    while left:
        best = max(range(len(cases)), key=lambda i: (sum(i in reveals for reveals in left), -lengths[i], -i))
        chosen.append(best)
        left = [reveals for reveals in left if best not in reveals]
    shown = {json.dumps(cases[i].expected) for i in chosen}
    for fresh_only in (True, False):
        for i, case in enumerate(cases):
            result = json.dumps(case.expected)
            if len(chosen) < most and i not in chosen and not (fresh_only and result in shown):
                chosen.append(i)
                shown.add(result)
    return chosen


def choose_examples(chosen: Sequence[int], reveals: frozenset[int], most: int) -> list[int]:
    """Return places of the cases that a specification without words shows; one of them reveals the bug, if any can.

    Without such a one the buggy source would be as right as the fixed one.
    """
    revealing = [i for i in chosen if i in reveals][:1]
    others = [i for i in chosen if i not in reveals][: most - len(revealing)]
    return sorted([*others, *revealing])
