"""The cases of a function: inputs that people wrote and inputs that are drawn, with what the source makes of them.

Here it is seen whether a function is pure: it must not change its arguments, and must give the same results in another
interpreter, with another hash seed and the inputs in reverse.
"""

from __future__ import annotations

import ast
import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ratchet.bugs.allowed import Reason, Refused
from ratchet.bugs.choose import Case
from ratchet.bugs.closure import OneFile
from ratchet.bugs.draw import LONGEST_ARGS, Args, Drawer, literals_of
from ratchet.bugs.kinds import TRIED, Kind, Parameter, Signature, kind_of
from ratchet.bugs.known import Call
from ratchet.bugs.levels import is_natural, level_of, listed
from ratchet.bugs.measure import NOT_LOADED, Ran, Result, Runs

LEAST = 8
"""Cases below which nothing is learned about a function."""
MOST = 120
"""Cases a mutant is run over."""
_DRAWN = 160
"""Inputs of a round."""
_MOST_KNOWN = 60
_JSON, _NOT_JSON = ("value", "list", "lists"), ("other", "foreign")
_MOST_LOST = 4
"""Inputs on which a function may hang before it is given up, if they are small."""
_WORKS_AS_GUESSED = 0.2
"""Share of inputs of the guessed kinds that must give a result for the guess to stand."""
_WORKS = 0.5
"""Share of inputs of a kind that must give a result for the kind to be taken for one the function is made for."""


@dataclass(frozen=True, slots=True)
class Cases:
    """What is known of a function."""

    cases: tuple[Case, ...]
    level: int
    """How tests make lists of the results: see `levels.py`."""
    cpu_s: float
    """CPU seconds that the source needs for all of them."""


async def cases_of(runs: Runs, file: OneFile, signature: Signature, calls: Sequence[Call], rng: random.Random) -> Cases:
    """Return the cases of a function. **Raises**: `Refused` if they do not make it testable.

    A function that is too slow on any input that is drawn is asked again with small ones alone. So what is chosen does
    not hang on single inputs that take about as long as they may.
    """
    seeds = [rng.getrandbits(64) for _ in (False, True)]
    try:
        return await _cases_of(runs, file, signature, calls, random.Random(seeds[0]), small=False)
    except Refused as refused:
        if refused.reason is not Reason.SLOW:
            raise
    return await _cases_of(runs, file, signature, calls, random.Random(seeds[1]), small=True)


async def _cases_of(
    runs: Runs, file: OneFile, signature: Signature, calls: Sequence[Call], rng: random.Random, *, small: bool
) -> Cases:
    most_lost = _MOST_LOST if small else 1
    known = _known(signature, calls)
    drawer = Drawer(rng, literals_of(ast.parse(file.text), known), small=small)
    # What was guessed from the code may be wrong, so a part of the first inputs does without.
    unguessed = Signature(tuple(_open(p) for p in signature.parameters), signature.takes_more)
    drawn = [drawer.inputs(signature, 2 * _DRAWN // 3, near=known), drawer.inputs(unguessed, _DRAWN // 3, near=known)]
    inputs = _distinct([*known, *drawn[0], *drawn[1]])
    results = await _run(runs, file, inputs, most_lost)
    _refuse_wrong_doctests(signature, calls, inputs, results)
    works = [args for args, result in zip(inputs, results, strict=True) if result.what in _JSON]
    own = [args for args in works if args in known]
    narrowed = _narrowed(signature, inputs, works, own)
    if works and (narrowed != signature or len(works) < MOST):
        fitting = [args for args in works if args in own or _fits(narrowed, args)]
        more = drawer.inputs(narrowed, _DRAWN, near=own or fitting)
        fresh = _distinct([*fitting, *more])[len(fitting) :]
        old = dict(zip(map(json.dumps, inputs), results, strict=True))
        inputs = [*fitting, *fresh]
        results = [*(old[json.dumps(args)] for args in fitting), *await _run(runs, file, fresh, most_lost)]
    level = level_of(results)
    cases = [
        Case(args, listed(result, level), args in known)
        for args, result in zip(inputs, results, strict=True)
        if is_natural(result, level)
    ]
    of_known = [result for args, result in zip(inputs, results, strict=True) if args in known]
    if len(cases) < LEAST or sum(result.what in _NOT_JSON for result in of_known) > len(of_known) // 2:
        raise Refused(*_why_so_few(results))
    if len({json.dumps(case.expected) for case in cases}) < 2:
        raise Refused(Reason.CONSTANT, json.dumps(cases[0].expected)[:60])
    chosen = _varied(cases)
    cpu_s = await _refuse_unstable(runs, file, chosen, level)
    return Cases(tuple(chosen), level, cpu_s)


def _known(signature: Signature, calls: Iterable[Call]) -> list[Args]:
    given = (signature.positional(call) for call in calls)
    return _distinct([args for args in given if args is not None and len(json.dumps(args)) <= LONGEST_ARGS])[
        :_MOST_KNOWN
    ]


def _distinct(inputs: Iterable[Args]) -> list[Args]:
    return list({json.dumps(args): args for args in inputs}.values())


async def _run(runs: Runs, file: OneFile, inputs: Sequence[Args], most_lost: int) -> list[Result]:
    ran = await runs.settle(file.text, file.entry, inputs, most_lost)
    if ran.ended in NOT_LOADED:
        raise Refused(Reason.BROKEN, ran.detail[:100])
    if ran.ended:
        raise Refused(Reason.SLOW, ran.ended)
    for args, result in zip(inputs, ran.results, strict=True):
        if result.changed:
            raise Refused(Reason.CHANGES, json.dumps(args)[:60])
    return list(ran.results)


def _refuse_wrong_doctests(
    signature: Signature, calls: Iterable[Call], inputs: Sequence[Args], results: Sequence[Result]
) -> None:
    """Refuse a function whose source does not do what its own docstring shows: it would be no fixed source."""
    found = {json.dumps(args): result for args, result in zip(inputs, results, strict=True)}
    for call in calls:
        args = signature.positional(call)
        result = found.get(json.dumps(args)) if call.has_wanted else None
        if result is None or result.what not in _JSON:
            continue
        try:
            wanted = json.loads(json.dumps(call.wanted))
        except TypeError:  # a set, say
            continue
        if wanted != result.value:
            raise Refused(Reason.DOCTEST, f"{json.dumps(args)[:60]}: {json.dumps(result.value)[:60]}")


def _narrowed(signature: Signature, inputs: Sequence[Args], works: Sequence[Args], own: Sequence[Args]) -> Signature:
    """Return the signature with the kinds that turned out to work, for parameters that have no annotation.

    They are the kinds that people gave, if they gave any; else what was guessed from the code, if that works; else the
    likeliest kinds, taken together, with which the function mostly works.
    """
    given = [sorted({kind_of(args[i]) for args in own if len(args) > i}) for i in range(len(signature.parameters))]
    blank = []
    for i, parameter in enumerate(signature.parameters):
        tried, worked = (sum(len(a) > i and _takes(parameter, a[i]) for a in some) for some in (inputs, works))
        if parameter.is_guess and not given[i] and (not parameter.kinds or worked < _WORKS_AS_GUESSED * tried):
            blank.append(i)
    best = _best(blank, inputs, works) if blank else {}
    parameters = []
    for i, parameter in enumerate(signature.parameters):
        found = given[i] or ([best[i]] if i in best else []) if parameter.is_guess else []
        parameters.append(replace(parameter, kinds=tuple(found)) if found else parameter)
    return Signature(tuple(parameters), signature.takes_more)


def _open(parameter: Parameter) -> Parameter:
    return replace(parameter, kinds=()) if parameter.is_guess else parameter


def _best(places: Sequence[int], inputs: Sequence[Args], works: Sequence[Args]) -> dict[int, Kind]:
    """Return the kinds at some places with which a function mostly works; the likelier, where several do."""
    tried, worked = Counter[tuple[Kind, ...]](), Counter[tuple[Kind, ...]]()
    for count, some in ((tried, inputs), (worked, works)):
        count.update(tuple(kind_of(args[i]) for i in places) for args in some if len(args) > max(places))
    shares = {kinds: worked[kinds] / tried[kinds] for kinds in worked if all(kind in TRIED for kind in kinds)}
    if not shares:
        return {}
    enough = [kinds for kinds in shares if shares[kinds] >= _WORKS] or [
        max(shares, key=lambda k: (shares[k], worked[k]))
    ]
    best = min(enough, key=lambda kinds: (sum(TRIED.index(kind) for kind in kinds), kinds))
    return dict(zip(places, best, strict=True))


def _fits(signature: Signature, args: Args) -> bool:
    return all(_takes(p, value) for p, value in zip(signature.parameters, args, strict=False))


def _takes(parameter: Parameter, value: object) -> bool:
    if parameter.has_literal_default and value == parameter.default:
        return True
    kind = kind_of(value)
    names = {k.name for k in parameter.kinds}
    return (
        not names
        or kind in parameter.kinds
        or (kind.name in names and not kind.of)
        or (kind.name == "int" and "float" in names)
        or (any(k.name == kind.name and not k.of for k in parameter.kinds))
    )


def _why_so_few(results: Sequence[Result]) -> tuple[Reason, str]:
    """Return why a function has too few cases: it fails on nearly everything, or it returns what is not JSON."""
    others = Counter(str(result.value) for result in results if result.what in _NOT_JSON)
    if others.total() > len(results) // 4:
        return Reason.RESULT, others.most_common(1)[0][0]
    raised = Counter(str(result.value) for result in results if result.what == "raised")
    return Reason.NO_INPUT, raised.most_common(1)[0][0] if raised else ""


def _varied(cases: Sequence[Case]) -> list[Case]:
    """Return up to `MOST` cases: what people wrote, then others so that no result takes up too much of the room."""
    num_results = len({json.dumps(case.expected) for case in cases})
    room = MOST // 2 if num_results <= 3 else MOST // 5
    counts: dict[str, int] = defaultdict(int)
    chosen: list[Case] = []
    for case in sorted(cases, key=lambda case: not case.is_own):
        result = json.dumps(case.expected)
        if len(chosen) < MOST and (case.is_own or counts[result] < room):
            chosen.append(case)
            counts[result] += 1
    return chosen


async def _refuse_unstable(runs: Runs, file: OneFile, cases: Sequence[Case], level: int) -> float:
    """Return the CPU seconds that a function needs for its cases. **Raises**: `Refused` if it gives other results
    now."""
    inputs = [case.args for case in cases]
    here, apart = await asyncio.gather(
        runs.run(file.text, file.entry, inputs), runs.run_apart(file.text, file.entry, inputs)
    )
    for ran in (here, apart):
        if ran.ended or len(ran.results) != len(cases):
            raise Refused(
                Reason.SLOW if ran.ended in ("timeout", "wall", "memory") else Reason.UNSTABLE, ran.detail[:100]
            )
        _refuse_others(ran, cases, level)
    return here.cpu_s


def _refuse_others(ran: Ran, cases: Sequence[Case], level: int) -> None:
    for result, case in zip(ran.results, cases, strict=True):
        if not is_natural(result, level) or listed(result, level) != case.expected:
            raise Refused(Reason.UNSTABLE, f"{json.dumps(case.args)[:60]}: {result.value!r:.60}")
