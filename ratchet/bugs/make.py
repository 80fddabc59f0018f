"""From a library to rows: every function is made one file, given cases, mutated, and its best mutants are kept.

Functions are worked on a few at a time, and come out in the order of the seed, so the rows depend on the seed and the
sources alone.
"""

from __future__ import annotations

import ast
import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ratchet.bugs.allowed import Reason, Refused
from ratchet.bugs.cases import Cases, cases_of
from ratchet.bugs.choose import Judged, choose_cases, choose_examples, judge, keep
from ratchet.bugs.closure import OneFile, alias_of, one_file
from ratchet.bugs.kinds import signature_of
from ratchet.bugs.known import Call, calls_in_doctests, calls_in_tests
from ratchet.bugs.ledger import Fate, Ledger
from ratchet.bugs.measure import Runs
from ratchet.bugs.mutate import draw_mutants
from ratchet.bugs.rows import Origin, Pair, pair_of, specification
from ratchet.bugs.sources import Library, Module, functions_of
from ratchet.core.seeds import stream

AT_ONCE = 3
"""Functions that are worked on at the same time; the mutants of each are run at the same time too."""
_TRIED_PER_KEPT = 6
_LEAST_TRIED = 24
_LEAST_CPU_S, _SLOWER = 0.1, 20
"""CPU time of a mutant over all inputs: this many times what the fixed source takes, and not less than this."""
_EXAMPLES = 6
"""Examples in a specification that has no words."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asked for."""

    per_function: int = 8
    limit: int = 0
    """Most lines in all; 0 for no limit."""
    reveal_max: float = 0.75
    seed: int = 0
    most_cases: int = 30
    most_lines: int = 200


@dataclass(frozen=True, slots=True)
class Function:
    """One that was found."""

    module: Module
    node: ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def name(self) -> str:
        return f"{self.module.name}.{self.node.name}"


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a function."""

    function: Function
    pairs: tuple[Pair, ...] = ()
    judged: tuple[Judged, ...] = ()
    refused: Refused | None = None


def find_functions(library: Library, seed: int) -> list[Function]:
    """Return the functions asked for, in an order that belongs to the seed."""
    chosen = [m for m in library.modules if m.path in library.chosen]
    found = [Function(module, node) for module in chosen for node in functions_of(module)]
    stream("bugs", seed).shuffle(found)
    return found


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every function is worked on with."""

    library: Library
    runs: Runs
    wishes: Wishes
    tested: Mapping[str, Sequence[Call]]
    """Calls in tests, by the name of the function."""


async def make_pairs(
    library: Library, runs: Runs, wishes: Wishes, ledger: Ledger, watch: Callable[[int, int, int], None]
) -> list[Pair]:
    """Return the pairs, and write down in `ledger` where everything went.

    `watch` hears how many functions are done, how many there are, and how many pairs.
    """
    functions = find_functions(library, wishes.seed)
    watch(0, len(functions), 0)
    tested = calls_in_tests(library.tests, {f.node.name for f in functions if not f.node.name.startswith("_")})
    pairs: list[Pair] = []
    async with aclosing(_in_order(Workshop(library, runs, wishes, tested), functions)) as all_made:
        async for made in all_made:
            room = wishes.limit - len(pairs) if wishes.limit else len(made.pairs)
            pairs += made.pairs[:room]
            _enter(ledger, made, room)
            watch(ledger.functions, len(functions), len(pairs))
            if wishes.limit and len(pairs) >= wishes.limit:
                break
    ledger.not_reached = len(functions) - ledger.functions
    return pairs


async def _in_order(workshop: Workshop, functions: Sequence[Function]) -> AsyncGenerator[Made]:
    """Yield what becomes of each function, in order, while the next ones are under way."""
    under_way: list[asyncio.Task[Made]] = []
    left = iter(functions)
    try:
        while True:
            while len(under_way) < AT_ONCE and (function := next(left, None)) is not None:
                under_way.append(asyncio.create_task(make_function(workshop, function)))
            if not under_way:
                return
            yield await under_way[0]
            under_way.pop(0)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def _enter(ledger: Ledger, made: Made, room: int) -> None:
    ledger.functions += 1
    kept = 0
    for one in made.judged:
        ledger.mutants += 1
        fate = one.fate
        if fate is Fate.KEPT:
            kept += 1
            fate = Fate.KEPT if kept <= room else Fate.SPARE
        ledger.fates[fate] += 1
        if fate is Fate.KEPT:
            ledger.operators[one.mutant.operator] += 1
    if made.pairs:
        ledger.usable += 1
    elif made.refused is not None:
        ledger.refuse(made.function.name, made.refused.reason, made.refused.detail)
    else:
        fates = Counter(one.fate.value for one in made.judged)
        told = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
        ledger.refuse(made.function.name, Reason.NO_MUTANT, told or "nothing to mutate")


async def make_function(workshop: Workshop, function: Function) -> Made:
    """Return what becomes of one function."""
    wishes, runs = workshop.wishes, workshop.runs
    try:
        file, cases = await _prepared(workshop, function)
    except Refused as refused:
        return Made(function, refused=refused)
    rng = stream("bugs", wishes.seed, function.name)
    tried = draw_mutants(file.text, file.entry, rng, max(_LEAST_TRIED, _TRIED_PER_KEPT * wishes.per_function))
    inputs = [case.args for case in cases.cases]
    cpu_s = max(_LEAST_CPU_S, _SLOWER * cases.cpu_s)
    ran = await asyncio.gather(*(runs.run(mutant.source, file.entry, inputs, cpu_s) for mutant in tried))
    results = dict(zip(tried, ran, strict=True))
    judged = [judge(m, results[m], cases.cases, cases.level, wishes.reveal_max) for m in tried]
    judged = keep(judged, results, wishes.per_function)
    return Made(function, _pairs(workshop, function, file, cases, judged), tuple(judged))


async def _prepared(workshop: Workshop, function: Function) -> tuple[OneFile, Cases]:
    """Return the file of a function and its cases. **Raises**: `Refused`."""
    library, wishes, node = workshop.library, workshop.wishes, function.node
    if node.name.startswith("_"):
        raise Refused(Reason.PRIVATE)
    if isinstance(node, ast.AsyncFunctionDef):
        raise Refused(Reason.ASYNC)
    signature = signature_of(node, lambda name: alias_of(library, function.module, name))
    file = one_file(library, function.module, node.name, wishes.most_lines)
    calls = [*calls_in_doctests(ast.get_docstring(node) or "", node.name), *workshop.tested.get(node.name, ())]
    rng = stream("bugs", wishes.seed, function.name, "inputs")
    return file, await cases_of(workshop.runs, file, signature, calls, rng)


def _pairs(
    workshop: Workshop, function: Function, file: OneFile, cases: Cases, judged: Sequence[Judged]
) -> tuple[Pair, ...]:
    assert isinstance(function.node, ast.FunctionDef)
    chosen = choose_cases(cases.cases, judged, workshop.wishes.most_cases)
    origin = Origin(function.name, file, workshop.library.version, len(cases.cases), cases.level)
    pairs = []
    for number, one in enumerate((one for one in judged if one.fate is Fate.KEPT), 1):
        shown = choose_examples(chosen, one.reveals, _EXAMPLES)
        spec = specification(function.node, [cases.cases[i] for i in shown], cases.level)
        pairs.append(pair_of(origin, number, spec, [cases.cases[i] for i in chosen], one))
    return tuple(pairs)
