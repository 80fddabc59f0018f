"""Whether the verdicts of the environment `reproduce` on lines of bugs are right, held against Python itself.

    python bench/bugs.py bugs.jsonl ... [--cases N]        prints a table; exit code 1 if a verdict is wrong

Of each line, up to N of its cases that reveal the bug and up to N that do not are given as a test writer's answer, and
junk; and as a bug fixer's the fixed source, an edit without effect, and junk. Which case reveals the bug is found by a
plain Python process that knows nothing of the sandbox. It runs what the lines hold, so give it lines that you trust.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.config.schema import SandboxSection
from ratchet.core.task import Split, Task
from ratchet.environments.reproduce import ROLES, Reproduce
from ratchet.environments.reproduce_pairs import CALLS

JUNK = ("", "I see no bug.", "assert True", "assert False", "assert (")
"""Tests that reveal nothing: none may earn, whatever they do."""
JUNK_EDITS = ("", "I see no bug.", "<<<<<<< SEARCH\nno such line\n=======\npass\n>>>>>>> REPLACE")
TOLD_APART = """
import json, sys
line = json.load(sys.stdin)
found = []
for source in (line["fixed"], line["buggy"]):
    names = {"__name__": "solution"}
    exec(source, names)
    ends = []
    for case in line["testcases"]:
        names["args_"] = case["args"]
        try:
            ends.append("equal" if eval(line["call"], names) == case["expected"] else "unequal")
        except Exception as error:
            ends.append(type(error).__name__)
    found.append(ends)
sys.__stdout__.write(chr(10) + json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a task, and what it should earn."""

    task: Task
    kind: str
    text: str
    earns: bool


def ends_of(line: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return how each case ends on the fixed and on the buggy source: equal, unequal, or the name of an exception."""
    call = CALLS[line.get("listed", 0)].format(f"{line['entry_point']}(*args_)")
    ran = subprocess.run(
        [sys.executable, "-I", "-c", TOLD_APART],
        input=json.dumps({**line, "call": call}),
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    fixed, buggy = json.loads(ran.stdout.rpartition("\n")[2])
    return fixed, buggy


def answers(environment: Reproduce, tasks: Sequence[Task], line: dict[str, Any], most: int) -> Iterator[Answer]:
    """Yield answers to the two tasks of a line: to write a test, and to fix the bug."""
    test, fix = tasks
    fixed, buggy = ends_of(line)
    assert set(fixed) == {"equal"}, f"{line['name']}: the fixed source does not do what a case expects"
    cases = environment.gold(test).split("\n")
    assert len(cases) == len(buggy)
    reveals = [end == "unequal" or end in line["raises"] for end in buggy]
    for shows, kind in ((True, "test: a case that reveals the bug"), (False, "test: a case that does not")):
        chosen = [case for case, reveal in zip(cases, reveals, strict=True) if reveal is shows]
        yield from (Answer(test, kind, case, shows) for case in chosen[:most])
    yield from (Answer(test, "test: junk", text, False) for text in JUNK)
    yield Answer(fix, "edit: the fixed source", environment.gold(fix), True)
    yield Answer(fix, "edit: without effect", environment.wrong(fix), False)
    yield from (Answer(fix, "edit: junk", text, False) for text in JUNK_EDITS)


async def judged(path: Path, most: int) -> tuple[Counter[str], Counter[str], list[str]]:
    """Return answers by kind, how many of them earned, and a sentence on each that was judged wrongly."""
    environment = Reproduce(source=str(path), held_out=0)
    environment.use_sandbox(SandboxSection(wall_s=120))  # verdicts are asked for here, not the speed of this machine
    lines = {line["name"]: line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    asked, earned, wrong = Counter[str](), Counter[str](), list[str]()
    places = asyncio.Semaphore(4)

    async def judge(answer: Answer) -> None:
        async with places:
            score = await environment.score(answer.task, answer.text)
        asked[answer.kind] += 1
        earned[answer.kind] += score.value == 1
        if score.value != float(answer.earns):
            wrong.append(f"{answer.task.extras['name']}: {answer.kind} earned {score.value:g}: {answer.text[:200]!r}")

    split = Split("train", seed=0)
    try:
        for index in range(environment.num_tasks(split) or 0):
            tasks = [environment.task_for(split, index, role) for role in ROLES]
            line = lines[tasks[0].extras["name"]]
            await asyncio.gather(*map(judge, answers(environment, tasks, line, most)))
    finally:
        environment.close()
    return asked, earned, wrong


def main() -> int:
    """Print the table of every file, and return 1 if a verdict is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cases", type=int, default=1)
    given = parser.parse_args()
    is_wrong = False
    for path in given.files:
        asked, earned, wrong = asyncio.run(judged(path, given.cases))
        is_wrong |= bool(wrong)
        print(f"{path}: {asked.total()} answers, {len(wrong)} judged wrongly", *wrong, sep="\n")
        for kind, count in asked.items():
            print(f"  {kind:<36} {count:>6} asked {earned[kind]:>6} earned")
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
