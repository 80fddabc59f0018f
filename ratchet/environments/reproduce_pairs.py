"""Bugs from a file: JSONL lines with a buggy and a fixed source, what was intended, and cases that tell them apart.

    {"name": "clamp", "entry_point": "clamp", "spec": "Limit x to low..high.",
     "buggy": "def clamp(x, low, high): ...", "fixed": "def clamp(x, low, high): ...",
     "testcases": [{"args": [5, 0, 3], "expected": 3}]}

A case may also be written ``[args, expected]``. The optional key ``raises`` lists exceptions that count as the bug's
failure, as an assertion does. The optional key ``listed`` is for functions that return tuples or iterators, which JSON
cannot say: with 1 a case compares ``list(f(x))``, with 2 ``[list(row) for row in f(x)]``. `ratchet bugs` writes such
lines.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.core.errors import ConfigError, nearest
from ratchet.environments.reproduce_checks import Checker, import_line
from ratchet.environments.reproduce_edits import Edit, write_edit
from ratchet.environments.rows import Row, read_rows
from ratchet.rewards.execution import FAILED, UNSURE, RunOutcome

TEXTS = ("name", "entry_point", "spec", "buggy", "fixed")
"""Keys that every line has, besides ``testcases``."""
CALLS = ("{}", "list({})", "[list(row) for row in {}]")
"""What a case compares, by the value of ``listed``."""
AT_ONCE = 8
"""Programs of the check at load that run at the same time."""


@dataclass(frozen=True, slots=True)
class BugPair:
    """One line of a file."""

    name: str
    entry_point: str
    spec: str
    buggy: str
    fixed: str
    test: str
    """An assertion for each case."""
    raises: tuple[str, ...] = ()

    @property
    def best_test(self) -> str:
        """Return a test that reveals the bug."""
        return self.test

    @property
    def best_fix(self) -> str:
        """Return an edit that puts the fixed source in the buggy one's place."""
        return write_edit(Edit(self.buggy, self.fixed))


def read_bug_rows(path: str) -> list[Row]:
    """Return the lines of a file, their cases and exceptions as JSON texts.

    **Raises**: `ConfigError` naming file, line and what is wrong with it.
    """
    rows = []
    found = read_rows(path, fields=TEXTS)
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    for row in found:
        content = json.loads(lines[row.number - 1])
        place = f'{path}:{row.number} ("{row.values["name"]}")'
        if not row.values["entry_point"].isidentifier():
            raise ConfigError(f'{place}: "entry_point" is {row.values["entry_point"]!r}; it should name a function.')
        if "testcases" not in content:
            raise ConfigError(f'{place}: "testcases" is missing.{nearest("testcases", content)}')
        more = {
            "testcases": _cases(content["testcases"], place),
            "raises": _raises(content.get("raises", []), place),
        }
        if listed := _listed(content.get("listed", 0), place):
            more["listed"] = listed
        rows.append(Row(row.number, {**row.values, **{key: json.dumps(value) for key, value in more.items()}}))
    return rows


def bug_pair(row: Row) -> BugPair:
    """Return the bug of a line."""
    values = row.values
    entry = values["entry_point"]
    cases, call = json.loads(values["testcases"]), CALLS[json.loads(values.get("listed", "0"))]
    calls = ((call.format(f"{entry}({', '.join(map(repr, args))})"), expected) for args, expected in cases)
    test = "\n".join(f"assert {called} == {expected!r}" for called, expected in calls)
    buggy, fixed = (values[key].rstrip("\n") + "\n" for key in ("buggy", "fixed"))
    return BugPair(values["name"], entry, values["spec"], buggy, fixed, test, tuple(json.loads(values["raises"])))


async def refuse_bad_pairs(path: str, rows: Sequence[Row], checker: Checker) -> None:
    """Run the cases of every line on both of its sources.

    **Raises**: `ConfigError` naming the first bug whose fixed source fails its own cases, or whose buggy source passes
    them all or cannot be run.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def outcomes(pair: BugPair) -> tuple[RunOutcome, RunOutcome]:
        test = import_line(pair.entry_point) + pair.test
        async with places:
            fixed, buggy = [await checker.check(source, test, pair.raises) for source in (pair.fixed, pair.buggy)]
            return fixed.outcome, buggy.outcome

    pairs = [bug_pair(row) for row in rows]
    found = await asyncio.gather(*(outcomes(pair) for pair in pairs))
    for row, pair, (fixed, buggy) in zip(rows, pairs, found, strict=True):
        place = f'{path}:{row.number} ("{pair.name}")'
        for source, outcome in (("fixed", fixed), ("buggy", buggy)):
            if outcome in UNSURE:
                raise ConfigError(
                    f"{place}: the {source} source does not come to the end of its cases ({outcome.value}). Give it "
                    "more with sandbox.wall_s, sandbox.cpu_s or sandbox.memory_mb, or remove the line."
                )
        if fixed is not RunOutcome.PASSED:
            raise ConfigError(
                f"{place}: the fixed source does not pass its own cases ({fixed.value}). Correct or remove it."
            )
        if buggy is RunOutcome.PASSED:
            raise ConfigError(
                f"{place}: the buggy source passes all cases. Add one that reveals the bug, or remove it."
            )
        if buggy not in FAILED:
            raise ConfigError(
                f"{place}: the buggy source does not fail a case but ends with {buggy.value}. Declare the exception "
                'under "raises", or remove the line.'
            )


def _cases(given: Any, place: str) -> list[tuple[list[Any], Any]]:
    if not isinstance(given, list) or not given:
        raise ConfigError(f'{place}: "testcases" should be a list that is not empty.')
    cases = []
    for case in given:
        if isinstance(case, dict) and isinstance(case.get("args"), list) and "expected" in case:
            cases.append((case["args"], case["expected"]))
        elif isinstance(case, list) and len(case) == 2 and isinstance(case[0], list):
            cases.append((case[0], case[1]))
        else:
            shown = json.dumps(case)[:60]
            raise ConfigError(f'{place}: the case {shown} should be {{"args": [...], "expected": ...}}.')
        if not _is_finite(cases[-1]):
            raise ConfigError(f"{place}: a case holds NaN or an infinity, which nothing can be compared with.")
    return cases


def _is_finite(value: Any) -> bool:
    if isinstance(value, list | tuple | dict):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _raises(given: Any, place: str) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(name, str) and name.isidentifier() for name in given):
        raise ConfigError(f'{place}: "raises" should be a list of names of exceptions.')
    return given


def _listed(given: Any, place: str) -> int:
    if given not in range(len(CALLS)) or isinstance(given, bool):
        raise ConfigError(f'{place}: "listed" is {given!r}; it should be 0, 1 or 2.')
    return int(given)
