"""From a folder to a file of bugs, end to end: every line loads in the environment, and pays for what it should."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from borrowed import POND, need_sandbox

from ratchet.bugs.allowed import Reason
from ratchet.bugs.ledger import Fate
from ratchet.bugs.make import Wishes
from ratchet.bugs.produce import Asked, Done, make_bugs
from ratchet.bugs.rows import Pair
from ratchet.bugs.write import refuse_existing, write_lines
from ratchet.config.schema import SandboxSection
from ratchet.core.errors import ConfigError
from ratchet.core.task import Split
from ratchet.environments.reproduce import ROLES, Reproduce
from ratchet.environments.reproduce_checks import Ran
from ratchet.environments.reproduce_pairs import CALLS
from ratchet.rewards.execution import RunOutcome


class Silent:
    """Hears how far the work is, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, int, int]] = []

    def now(self, what: str, done: int, total: int, lines: int) -> None:
        self.heard.append((what, done, total, lines))


def made(out: Path, what: Path = POND, **wishes: Any) -> Done:
    need_sandbox()
    return make_bugs(Asked(str(what), out, Wishes(**wishes), timeout_s=0.4), Silent())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    out = tmp_path_factory.mktemp("bugs") / "pond.jsonl"
    return out, made(out)


def shows(line: dict[str, Any]) -> list[bool]:
    """Return of each case whether the buggy source fails it, found without the sandbox."""
    names: dict[str, Any] = {}
    exec(line["buggy"], names)
    call = CALLS[line.get("listed", 0)].format(f"{line['entry_point']}(*args)")
    found = []
    for case in line["testcases"]:
        try:
            found.append(eval(call, names, {"args": case["args"]}) != case["expected"])
        except Exception as error:
            found.append(type(error).__name__ in line["raises"])
    return found


def test_every_line_loads_and_the_verdicts_on_it_are_right(pond: tuple[Path, Done]) -> None:
    out, done = pond
    environment, split = Reproduce(source=str(out), held_out=0), Split("train", seed=0)
    environment.use_sandbox(SandboxSection(wall_s=60))  # on a busy machine too
    size = environment.num_tasks(split)
    assert size == done.num_lines == len(lines(out)) >= 30
    by_name = {line["name"]: line for line in lines(out)}

    async def earned() -> Counter[tuple[str, float]]:
        found = Counter[tuple[str, float]]()
        for index in range(size):
            test, fix = (environment.task_for(split, index, role) for role in ROLES)
            cases, revealing = environment.gold(test).split("\n"), shows(by_name[test.extras["name"]])
            asked = [(test, "all cases", "\n".join(cases)), (fix, "fixed", environment.gold(fix))]
            asked.append((test, "reveals", cases[revealing.index(True)]))
            asked += [(test, "does not", cases[revealing.index(False)])] if False in revealing else []
            asked += [(test, "junk", junk) for junk in ("assert True", "assert False", "I see no bug.", "assert (")]
            asked += [(fix, "junk", junk) for junk in (environment.wrong(fix), "I see no bug.")]
            for task, kind, text in asked:
                found[kind, (await environment.score(task, text)).value] += 1
        return found

    found = asyncio.run(earned())
    environment.close()
    assert set(found) == {("all cases", 1), ("fixed", 1), ("reveals", 1), ("does not", 0), ("junk", 0)}
    assert found["reveals", 1] == size
    assert found["does not", 0] >= size - 3


def test_the_ledger_says_where_every_function_and_mutant_went(pond: tuple[Path, Done]) -> None:
    _, done = pond
    ledger = done.ledger
    assert ledger.closes()
    assert (ledger.functions, ledger.usable, ledger.not_reached) == (26, 11, 0)
    others = {Reason.NO_INPUT, Reason.RESULT, Reason.UNKNOWN, Reason.DYNAMIC, Reason.LONG, Reason.DECORATED}
    assert set(ledger.refused) == set(Reason) - others - {Reason.BROKEN, Reason.NO_MUTANT}
    assert ledger.refused.total() == 15
    assert ledger.fates[Fate.KEPT] == done.num_lines == ledger.operators.total()
    assert {fate for fate in Fate if ledger.fates[fate]} >= {Fate.EQUIVALENT, Fate.TRIVIAL, Fate.TIMED_OUT, Fate.SAME}
    assert any(line.startswith("pond.amounts.shaken: random (random.random)") for line in ledger.details)


def test_a_line_says_what_was_changed_where_and_how_much_shows_it(pond: tuple[Path, Done]) -> None:
    out, done = pond
    for line in lines(out):
        fixed, buggy = line["fixed"].split("\n"), line["buggy"].split("\n")
        same = line["line"] - 1
        assert fixed[:same] == buggy[:same]
        assert fixed[same] != buggy[same]
        assert 0 < line["reveals"] <= 0.75
        assert re.fullmatch(rf"{line['function']} \d: {line['operator']}, line {line['line']}", line["name"])
        assert line["entry_point"] in line["spec"]
        docstring = '"""Return'
        assert docstring not in line["fixed"].partition(f"def {line['entry_point']}(")[2].partition("\ndef ")[0]
    assert len({line["name"] for line in lines(out)}) == done.num_lines
    by_level = {line["function"].rpartition(".")[2]: line.get("listed", 0) for line in lines(out)}
    assert (by_level["clamp"], by_level["running"], by_level["neighbours"]) == (0, 1, 2)


def test_a_function_without_a_docstring_is_specified_by_examples_one_of_which_shows_the_bug(
    pond: tuple[Path, Done],
) -> None:
    out, _ = pond
    found = [line for line in lines(out) if line["entry_point"] == "count_vowels"]
    assert found
    for line in found:
        assert line["spec"].startswith("count_vowels(text)\n\nExamples:\n>>> count_vowels(")
        fixed: dict[str, Any] = {}
        buggy: dict[str, Any] = {}
        exec(line["fixed"], fixed)
        exec(line["buggy"], buggy)
        calls = [text.removeprefix(">>> ") for text in line["spec"].split("\n") if text.startswith(">>> ")]
        assert sum(eval(call, fixed) != eval(call, buggy) for call in calls) == 1


def test_the_same_seed_writes_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    few = {"per_function": 2, "limit": 6}
    made(tmp_path / "a.jsonl", POND / "words.py", **few)
    done = made(tmp_path / "b.jsonl", POND / "words.py", **few)
    made(tmp_path / "c.jsonl", POND / "words.py", **few, seed=1)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() != (tmp_path / "c.jsonl").read_bytes()
    assert done.num_lines == 6
    assert done.ledger.functions + done.ledger.not_reached == 5
    assert done.ledger.closes()


def test_options_bound_lines_and_what_may_reveal_them(tmp_path: Path) -> None:
    made(tmp_path / "a.jsonl", POND / "words.py", per_function=1, reveal_max=0.3, most_cases=4)
    found = lines(tmp_path / "a.jsonl")
    assert len({line["function"] for line in found}) == len(found)
    assert all(line["reveals"] <= 0.3 for line in found)


def test_progress_is_told(tmp_path: Path) -> None:
    need_sandbox()
    watcher = Silent()
    asked = Asked(str(POND / "tables.py"), tmp_path / "a.jsonl", Wishes(per_function=2), timeout_s=0.4)
    done = make_bugs(asked, watcher)
    assert watcher.heard[0] == ("functions", 0, 2, 0)
    assert watcher.heard[-1] == ("lines checked", done.num_lines, done.num_lines, done.num_lines)


# --- files


class Says:
    """A checker that says of each source how it ends."""

    def __init__(self, **outcomes: RunOutcome) -> None:
        self._outcomes = outcomes

    async def check(self, source: str, test: str, raises: object = ()) -> Ran:
        return Ran(self._outcomes["marked" if "=======" in source else source.strip()])

    def close(self) -> None:
        pass


def pair(name: str, fixed: str = "fixed", buggy: str = "buggy", args: object = 1) -> Pair:
    content = {
        "name": name, "entry_point": "f", "spec": "f(x)", "fixed": fixed, "buggy": buggy,
        "testcases": [{"args": [args], "expected": 2}],
    }  # fmt: skip
    return Pair(content, "constant", 1, "m.f")


CHECKER = Says(
    fixed=RunOutcome.PASSED,
    buggy=RunOutcome.ASSERTION,
    passes=RunOutcome.PASSED,
    hangs=RunOutcome.TIMEOUT,
    marked=RunOutcome.ASSERTION,
)


def write(out: Path, *pairs: Pair) -> list[str]:
    refused = asyncio.run(write_lines(pairs, out, CHECKER, lambda done, total: None))
    return [str(one.content["name"]) for one, _ in refused]


def test_lines_that_the_environment_refuses_are_left_out_and_named(tmp_path: Path) -> None:
    out = tmp_path / "bugs.jsonl"
    marked = "x\n=======\ny"  # ends the search block of an edit too early
    assert write(
        out, pair("good"), pair("equal", buggy="passes"), pair("slow", buggy="hangs"), pair("marked", buggy=marked),
        pair("thought", args="<think>"),
    ) == ["equal", "slow", "marked", "thought"]  # fmt: skip
    assert [line["name"] for line in lines(out)] == ["good"]
    assert [path.name for path in tmp_path.iterdir()] == ["bugs.jsonl"]


def test_nothing_is_written_where_nothing_is_left(tmp_path: Path) -> None:
    assert write(tmp_path / "bugs.jsonl", pair("equal", buggy="passes")) == ["equal"]
    assert write(tmp_path / "bugs.jsonl") == []
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_between_leaves_an_old_file_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "bugs.jsonl"
    out.write_text("old\n")
    with pytest.raises(KeyError):
        write(out, pair("good"), pair("unheard of", buggy="something else"))
    assert out.read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bugs.jsonl"]


def test_an_old_file_is_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    out = tmp_path / "bugs.jsonl"
    refuse_existing(out, force=False)
    out.touch()
    refuse_existing(out, force=True)
    with pytest.raises(ConfigError, match="is there already"):
        refuse_existing(out, force=False)
    with pytest.raises(ConfigError, match="is a folder"):
        refuse_existing(tmp_path, force=True)
    with pytest.raises(ConfigError, match="no such folder"):
        refuse_existing(tmp_path / "none" / "bugs.jsonl", force=False)
