"""Bugs to be reproduced and fixed: one policy in two roles, a test writer and a bug fixer, paid by execution alone.

A test writer sees a file with a bug and the intended behaviour, and adds a test; it earns 1 if the test fails on the
file and passes on the fixed one. A bug fixer sees the same and edits the file; it earns 1 if all hidden tests pass.
There is no reward for form, working, or length. Bugs are made here, in tiny functions, or read from a file.

**Source**: Kimi-Dev (arXiv 2509.23045), its TestWriter and BugFixer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from ratchet.config.schema import SandboxSection
from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.seeds import stream
from ratchet.core.task import Split, Task
from ratchet.environments import reproduce_demonstrations as demonstrations
from ratchet.environments.reproduce_checks import Checker, PoolChecker, Ran, Remembered, import_line
from ratchet.environments.reproduce_demonstrations import Bug, Effort
from ratchet.environments.reproduce_edits import Edit, added_test, apply_edits, read_edits, write_edit
from ratchet.environments.reproduce_functions import KINDS, Function, Kind, draw_mutants, draw_pair, results
from ratchet.environments.reproduce_pairs import bug_pair, read_bug_rows, refuse_bad_pairs
from ratchet.environments.rows import Row, Rows, hold_out
from ratchet.environments.single_turn import fill, messages, missing_fields
from ratchet.rewards import execution
from ratchet.rewards.execution import NO_PATCH, NO_TEST, RunOutcome, Verdict, confirmed, fixes, kills, reproduces
from ratchet.rewards.text import TAGS

Role = Literal["testwriter", "bugfixer"]
ROLES: tuple[Role, ...] = ("testwriter", "bugfixer")

TEST_PROMPT = "Write a test that reveals the bug.\n{file}"
FIX_PROMPT = "Fix the bug.\n{file}"
"""The defaults for tiny functions, whose file tells what is intended."""
ASK_TEST = """\
The module `solution` below has a bug: it does not do what is intended. Write a test that fails on it because of the \
bug and passes once the bug is fixed. Think first, inside <think> and </think>; then give only the test, as a Python \
code block with assertions. `from solution import ...` is done for you.

What is intended:
{spec}

solution.py:
{file}"""
ASK_FIX = """\
The module `solution` below has a bug: it does not do what is intended. Fix it. Think first, inside <think> and \
</think>; then give only the edit, in this form, with lines of the file exactly as they stand there:
<<<<<<< SEARCH
lines to replace
=======
lines to put there
>>>>>>> REPLACE

What is intended:
{spec}

solution.py:
{file}"""
"""The defaults for bugs from a file, for real models."""
TINY = "tiny"
WORKED_MIX = (0.1, 0.1, 0.8)
"""Guesses, looks at the specification alone, and persistence of the demonstrations that come first."""
ENTRY_POINT = "f"
"""What the functions of the family are called."""
LONGEST_ANSWER = 100_000
"""Characters of a test or a patched file that are still run."""


class Reproduce(BaseModel):
    """Asks for a test that reveals the bug of a small file, or for an edit that removes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "reproduce"

    source: str = Field(
        TINY,
        min_length=1,
        description='Where bugs come from: "tiny" makes small functions, or a path to JSONL lines with name, '
        "entry_point, spec, buggy, fixed and testcases.",
    )
    held_out: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of a file's bugs that only the test split reads; bugs of one fixed source stay together.",
    )
    testwriter_share: float = Field(0.5, ge=0, le=1, description="Share of tasks that ask for a test, not for a fix.")
    kinds: tuple[Kind, ...] = Field(
        KINDS, min_length=1, description="Kinds of functions: one or two arguments with a branch, a list with a loop."
    )
    examples_share: float = Field(
        0.25, ge=0, le=1, description="Share of files whose docstring shows examples instead of a formula."
    )
    num_examples: int = Field(4, ge=1, le=8, description="Examples a docstring shows; one of them reveals the bug.")
    reveal_max: float = Field(
        1.0, gt=0, le=1, description="Largest share of inputs that may reveal a bug; small makes guesses fail."
    )
    test_prompt: str = Field(
        "", description="Template of the test writer's message, with {file} and {spec}; empty suits the source."
    )
    fix_prompt: str = Field(
        "", description="Template of the bug fixer's message, with {file} and {spec}; empty suits the source."
    )
    system: str = Field("", description="System message; empty for none.")
    guess_share: float = Field(0.1, ge=0, le=1, description="Share of demonstrations that guess without working.")
    spec_share: float = Field(
        0.1, ge=0, le=1, description="Share of demonstrations that look at the intended behaviour alone."
    )
    persistence: float = Field(
        0.9, ge=0, le=1, description="Chance that a demonstration goes on after an attempt that shows no difference."
    )
    attempts_max: int = Field(4, ge=1, le=10, description="Most inputs a test writer's demonstration tries.")
    worked_first: int = Field(
        0,
        ge=0,
        description="Tasks of a split, from its beginning, whose demonstrations are nearly all worked out: so a warm "
        "start learns to work before it sees guesses.",
    )
    confirm: int = Field(
        1, ge=0, le=10, description="How often a test that earns is run again, so that luck is not paid."
    )
    audit_mutants: int = Field(
        0,
        ge=0,
        le=100,
        description="Mutants of a tiny function's fixed code on which every test that earned is run too; the share it "
        "fails on is charted, not paid. A low one says that tests reveal the one bug and little else.",
    )

    _sandbox: SandboxSection = PrivateAttr(default_factory=SandboxSection)
    _checker: Remembered | None = PrivateAttr(None)
    _rows: Rows | None = PrivateAttr(None)
    _all_rows: tuple[Row, ...] = PrivateAttr(())
    _sound: bool = PrivateAttr(False)

    @field_validator("test_prompt", "fix_prompt")
    @classmethod
    def _complete(cls, prompt: str) -> str:
        if prompt and missing_fields(prompt, ("file",)):
            raise ValueError("the template lacks {file}; add it")
        return prompt

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.guess_share + self.spec_share > 1:
            raise ValueError(
                f"guess_share = {self.guess_share:g} and spec_share = {self.spec_share:g} are more than all; lower one"
            )
        return self

    def model_post_init(self, context: Any, /) -> None:
        """Read the file, so that a bad line fails when the configuration is read."""
        if self.source != TINY:
            rows = read_bug_rows(self.source)
            self._all_rows = tuple(rows)
            # Several bugs of one source: whoever trained on one of them would know the others' fix.
            self._rows = Rows(*hold_out(rows, self.held_out, path=self.source, alike="fixed"), path=self.source)

    @property
    def words(self) -> tuple[str, ...]:
        """Return the strings of several characters that should be single tokens."""
        if self._rows is not None:
            return TAGS
        around = (fill(self._prompt(role), {"file": "", "spec": ""}) for role in ROLES)
        return (*demonstrations.WORDS, *(text for text in around if len(text) > 1))

    @property
    def characters(self) -> str:
        """Return every single character prompts and demonstrations can hold."""
        if self._rows is None:
            return "".join(sorted({*demonstrations.CHARACTERS, *self.system}))
        pairs = [bug_pair(row) for row in self._all_rows]
        texts = [text for pair in pairs for text in (pair.spec, pair.buggy, pair.best_test, pair.best_fix)]
        return "".join(sorted(set("".join([*texts, self.system, *map(self._prompt, ROLES)]))))

    def num_tasks(self, split: Split) -> int | None:
        """Return how many bugs the split has, or None for tiny functions, which are made without end."""
        return None if self._rows is None else self._rows.size(split)

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split; `extras` holds the role, both files, the hidden tests, and the bug.

        **Raises**: `ConfigError` if a bug of the file is none: see `reproduce_pairs`.
        """
        return self.task_for(split, index, role_of(index, self.testwriter_share))

    def task_for(self, split: Split, index: int, role: Role) -> Task:
        """Return task `index` as it is asked in a role: both roles see the same bug."""
        if self._rows is not None:
            self._refuse_bad_pairs()
            pair = bug_pair(self._rows.row(split, index))
            facts = {"name": pair.name, "entry_point": pair.entry_point, "raises": list(pair.raises)}
            best = {"testwriter": pair.best_test, "bugfixer": pair.best_fix}
            return self._task(role, pair.buggy, pair.spec, pair.fixed, pair.test, {**facts, "gold": best[role]})
        rng = split.rng(index)
        fixed, buggy = draw_pair(rng, self.kinds, self.reveal_max)
        shows_examples = rng.random() < self.examples_share
        examples = demonstrations.draw_examples(rng, fixed, buggy, self.num_examples) if shows_examples else ()
        spec = Bug(fixed, buggy, examples).docstring
        shown = [list(values) for values in examples]
        made: dict[str, Any] = {
            "name": f"{split.name} {index}",
            "entry_point": ENTRY_POINT,
            "raises": [],
            "index": index,
            "bug": [fixed.kind, list(fixed.parts), list(buggy.parts), shown],
        }
        return self._task(role, buggy.file(spec), spec, fixed.file(spec), hidden_test(fixed), made)

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return the outcome of one answer, with its verdict and its length counted for the role it was given in."""
        reply = await policy.chat(task.prompt)
        role = task.extras["role"]
        notes: dict[str, str] = {}
        verdict, valid = await self._judge(task, reply.text, notes)
        names = execution.TEST_VERDICTS if role == "testwriter" else execution.PATCH_VERDICTS
        facts = {f"{role}/{name}": float(name == verdict.name) for name in names}
        facts |= {f"{role}/tokens": float(reply.num_tokens), f"{role}/attempts": float(num_attempts(reply.text))}
        if role == "testwriter":
            facts["valid"] = float(valid)
            if verdict.value and self.audit_mutants and "bug" in task.extras:
                facts["mutants_killed"] = await self.audit(task, reply.text)
        return Outcome(_score(role, verdict), facts, notes)

    async def score(self, task: Task, text: str) -> Score:
        """Return 1 if the answer does what its role asks, else 0; the part is named `reproduced` or `fixed`."""
        verdict, _ = await self._judge(task, text, {})
        return _score(task.extras["role"], verdict)

    async def run_test(self, task: Task, source: str, test: str) -> RunOutcome:
        """Return how a test ends when it is run against a version of the task's file."""
        return await self._check(task.extras, source, test)

    async def audit(self, task: Task, text: str) -> float:
        """Return the share of a tiny function's mutants that the test of an answer kills."""
        bug, test = _bug(task), added_test(text)
        mutants = draw_mutants(stream("mutants", task.id), bug.fixed, self.audit_mutants)
        files = [mutant.file(bug.docstring) for mutant in mutants]
        outcomes = await asyncio.gather(*(self._check(task.extras, file, test) for file in files))
        return kills(outcomes) / max(1, len(outcomes))

    def gold(self, task: Task) -> str:
        """Return the answer that looks where the bug shows; for a file's bug all its cases, or its fixed source."""
        if "gold" in task.extras:
            return str(task.extras["gold"])
        bug = _bug(task)
        best = demonstrations.best_test if task.extras["role"] == "testwriter" else demonstrations.best_fix
        return best(bug)

    def wrong(self, task: Task) -> str:
        """Return a well-formed answer that earns nothing: a test that everything passes, an edit without effect."""
        if task.extras["role"] == "testwriter":
            return "assert True"
        file = task.extras["buggy"]
        return write_edit(Edit(file, file))

    def demonstration(self, task: Task, rng: random.Random) -> str:
        """Return one answer, by chance a guess, one that looks at the specification alone, or a checked one.

        For a bug of a file it is the gold answer.
        """
        if "gold" in task.extras:
            return self.gold(task)
        guesses, specs, persistence = self.guess_share, self.spec_share, self.persistence
        if task.extras["index"] < self.worked_first:
            guesses, specs, persistence = WORKED_MIX
        draw = rng.random()
        effort: Effort = "guess" if draw < guesses else "spec" if draw < guesses + specs else "check"
        bug = _bug(task)
        if task.extras["role"] == "testwriter":
            return demonstrations.write_test(bug, rng, effort, persistence, self.attempts_max)
        return demonstrations.write_fix(bug, rng, effort, persistence)

    def use_sandbox(self, section: SandboxSection) -> None:
        """Run tests and patched files as this section says; without it, as its defaults do."""
        self._sandbox = section

    def use_checker(self, checker: Checker) -> None:
        """Run tests with this checker instead of the sandbox: for tests without one."""
        self._checker = Remembered(checker)

    def close(self) -> None:
        """End the sandbox's processes."""
        if self._checker is not None:
            self._checker.close()

    def _prompt(self, role: Role) -> str:
        if role == "testwriter":
            return self.test_prompt or (TEST_PROMPT if self._rows is None else ASK_TEST)
        return self.fix_prompt or (FIX_PROMPT if self._rows is None else ASK_FIX)

    def _task(self, role: Role, buggy: str, spec: str, fixed: str, test: str, facts: Mapping[str, Any]) -> Task:
        text = fill(self._prompt(role), {"file": buggy, "spec": spec})
        extras = {"role": role, "buggy": buggy, "fixed": fixed, "tests": [test], **facts}
        return Task(self.name, messages(text, system=self.system), extras=extras)

    def _refuse_bad_pairs(self) -> None:
        if not self._sound:
            # Tasks are also asked for while an event loop runs here, which cannot run another coroutine to its end.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, refuse_bad_pairs(self.source, self._all_rows, self._runs())).result()
            self._sound = True

    async def _judge(self, task: Task, text: str, notes: dict[str, str]) -> tuple[Verdict, bool]:
        """Return the verdict and, for a test, whether it passes on the fixed code; note what the sandbox said."""
        extras = task.extras
        if extras["role"] == "testwriter":
            test = added_test(text)
            if not test or len(test) > LONGEST_ANSWER:
                return NO_TEST, False
            verdict, valid = await self._judge_test(task, test, 0, notes)
            if not verdict.value:
                return verdict, valid
            again = [await self._judge_test(task, test, turn, {}) for turn in range(1, self.confirm + 1)]
            return confirmed(verdict, [other for other, _ in again]), valid
        patched = apply_edits(extras["buggy"], read_edits(text))
        if patched is None or len(patched) > LONGEST_ANSWER:
            return NO_PATCH, False
        # That these two pass and fail is known: by how a tiny function is made, by the check at load for a file's bug.
        if patched in (extras["fixed"], extras["buggy"]):
            notes["hidden test on the patched file"] = "not run: how it ends on this file is known"
        if patched == extras["fixed"]:
            return fixes([RunOutcome.PASSED]), False
        if patched == extras["buggy"]:
            return fixes([RunOutcome.ASSERTION]), False
        outcomes = []
        for hidden in extras["tests"]:
            ran = await self._ran(extras, patched, hidden)
            outcomes.append(ran.outcome)
            notes["hidden test on the patched file"] = _told(ran)
            if outcomes[-1] is not RunOutcome.PASSED:
                break
        return fixes(outcomes), False

    async def _judge_test(self, task: Task, test: str, turn: int, notes: dict[str, str]) -> tuple[Verdict, bool]:
        extras, buggy = task.extras, None
        # A test that knew the order of its runs could tell the versions apart: from the second turn on it is drawn.
        if turn and stream("order", task.id, test, turn).random() < 0.5:
            buggy = await self._ran(extras, extras["buggy"], test, turn)
        fixed = await self._ran(extras, extras["fixed"], test, turn)
        notes["test on the fixed file"] = _told(fixed)
        valid = fixed.outcome is RunOutcome.PASSED
        # What does not pass on the fixed code earns nothing, whatever it does to the other: not run.
        if valid and buggy is None:
            buggy = await self._ran(extras, extras["buggy"], test, turn)
        if buggy is not None:
            notes["test on the buggy file"] = _told(buggy)
        return reproduces(None if buggy is None else buggy.outcome, fixed.outcome), valid

    async def _check(self, extras: Mapping[str, Any], source: str, test: str) -> RunOutcome:
        return (await self._ran(extras, source, test)).outcome

    async def _ran(self, extras: Mapping[str, Any], source: str, test: str, turn: int = 0) -> Ran:
        whole = import_line(extras["entry_point"]) + test
        return await self._runs().check(source, whole, extras["raises"], turn=turn)

    def _runs(self) -> Remembered:
        if self._checker is None:
            self._checker = Remembered(PoolChecker(self._sandbox))
        return self._checker


def _told(ran: Ran) -> str:
    """Return how a run ended and what it said, for people."""
    return "\n".join(text for text in (ran.outcome.value.replace("_", " "), ran.said) if text)


def role_of(index: int, testwriter_share: float) -> Role:
    """Return the role of task `index`: in every stretch of tasks the test writer has its share, to within one."""
    return "testwriter" if int((index + 1) * testwriter_share) > int(index * testwriter_share) else "bugfixer"


def hidden_test(fixed: Function) -> str:
    """Return the test that a patched file must pass: every input of the family."""
    loops = "for a in range(10)" if fixed.kind == "one" else "for a in range(10) for b in range(10)"
    call = {"one": "f(a)", "two": "f(a, b)", "list": "f([a, b])"}[fixed.kind]
    return f"assert [{call} {loops}] == {results(fixed)}"


def num_attempts(text: str) -> int:
    """Return how many comparisons an answer's working holds."""
    return text.count(demonstrations.SAME) + text.count(demonstrations.DIFF)


def _score(role: Role, verdict: Verdict) -> Score:
    return Score(verdict.value, {"reproduced" if role == "testwriter" else "fixed": verdict.value})


def _bug(task: Task) -> Bug:
    kind, fixed, buggy, examples = task.extras["bug"]
    shown = tuple(tuple(values) for values in examples)
    return Bug(Function(kind, tuple(fixed)), Function(kind, tuple(buggy)), shown)
