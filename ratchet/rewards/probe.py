"""The reward probe: before the first step, ask the reward about texts whose worth is known.

The gold answer must pay; a text that is no answer must not. `probe` asks, `verdict` judges, the caller decides whether
the run starts.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from ratchet.core.load import describe
from ratchet.core.protocols import Environment, Probes
from ratchet.core.seeds import stream
from ratchet.core.task import Task
from ratchet.rewards.errors import RewardError

GOLD, WRONG = "gold", "wrong"
JUNK = ("empty", "prompt echo", "refusal", "long junk")
"""Texts that are no answer."""

REFUSAL = "I cannot help with that."
_JUNK_WORDS = 400
_GOLD_MAY_FAIL = 0.05
"""Share of tasks whose gold answer may go unpaid before it is an error: real data sets hold a few bad lines."""
_JUNK_MAY_EARN = 0.25
"""How far from the lowest probe towards gold a junk text may come before it is reported."""
_JUNK_MAY_PASS = 0.1
"""Share of tasks on which a junk or wrong text may earn full marks by luck, as a prompt that holds the answer does."""


@runtime_checkable
class ShowsWrong(Protocol):
    """An environment that can show a well-formed wrong answer."""

    def wrong(self, task: Task) -> str | None:
        """Return an answer that looks right and is not; None if there is none for this task."""
        ...


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """What the reward gave one kind of text."""

    probe: str
    """``gold``, ``empty``, ``prompt echo``, ``refusal``, ``long junk`` or ``wrong``."""
    mean: float
    """Mean value over the tasks that were scored; NaN if none was."""
    full_share: float
    """Share of tasks on which it earned at least what gold earns there; for gold: more than the empty text does."""
    num_tasks: int
    """How many tasks it was tried on."""
    num_failed: int
    """On how many of them the reward gave no score."""
    failure: str
    """The first failure; empty if there was none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a row means."""

    level: Literal["error", "warning", "note"]
    text: str


async def probe(environment: Environment, tasks: Sequence[Task]) -> list[ProbeRow]:
    """Return one row per kind of text, gold first.

    Tasks whose gold text is empty have no known answer and are left out. No rows come back if none is left, or if the
    environment has no `score` and `gold`.
    """
    if not isinstance(environment, Probes):
        return []
    tasks = [task for task in tasks if environment.gold(task)]
    if not tasks:
        return []
    texts = {
        GOLD: [environment.gold(task) for task in tasks],
        "empty": [""] * len(tasks),
        "prompt echo": [task.prompt[-1].content if task.prompt else "" for task in tasks],
        "refusal": [REFUSAL] * len(tasks),
        "long junk": [_junk(task) for task in tasks],
    }
    answers: dict[str, list[_Answer]] = {}
    for kind, kind_texts in texts.items():
        answers[kind] = await _score_all(environment, tasks, kind_texts)
    rows = [_row(GOLD, answers[GOLD], answers["empty"], strictly=True)]
    rows += [_row(kind, answers[kind], answers[GOLD], strictly=False) for kind in JUNK]
    if isinstance(environment, ShowsWrong):
        shown = [(i, wrong) for i, task in enumerate(tasks) if (wrong := environment.wrong(task)) is not None]
        if shown:
            wrong_tasks = [tasks[i] for i, _ in shown]
            wrong_answers = await _score_all(environment, wrong_tasks, [text for _, text in shown])
            rows.append(_row(WRONG, wrong_answers, [answers[GOLD][i] for i, _ in shown], strictly=False))
    return rows


def verdict(rows: Sequence[ProbeRow]) -> list[Finding]:
    """Return what the rows mean: errors (gold that does not pay), warnings (junk that does), a note if not probed."""
    if not rows:
        return [
            Finding(
                "note", "The reward was not probed: the environment has no score and gold methods, or no gold answers."
            )
        ]
    gold, others = rows[0], rows[1:]
    assert gold.probe == GOLD, "the first row is gold"
    findings = [_judge_gold(gold)] if gold.full_share < 1 else []
    if gold.num_failed == gold.num_tasks:
        # What broke gold broke the rest; saying it once is enough.
        return findings
    failed = [row for row in others if row.num_failed]
    if failed:
        listed = ", ".join(f'"{row.probe}" ({row.num_failed} of {row.num_tasks})' for row in failed)
        findings.append(
            Finding(
                "warning",
                f"The reward gave no score for {listed}: {failed[0].failure} "
                "Such rollouts are counted, not trained on.",
            )
        )
    paid = [row for row in others if _is_paid(row, rows)]
    if paid:
        listed = ", ".join(f'"{row.probe}" earns {row.mean:.3g} (full marks on {row.full_share:.0%})' for row in paid)
        findings.append(
            Finding(
                "warning",
                f"The reward pays for texts that should earn little: {listed}; gold earns {gold.mean:.3g}. A policy "
                "that finds this need not learn anything else: tighten the reward.",
            )
        )
    return findings


def _is_paid(row: ProbeRow, rows: Sequence[ProbeRow]) -> bool:
    if row.num_failed == row.num_tasks:
        return False
    lowest = min(other.mean for other in rows if other.num_failed < other.num_tasks)
    gold = rows[0].mean
    # A well-formed wrong answer may earn its form; it must only not earn everything.
    may_earn = 1.0 if row.probe == WRONG else _JUNK_MAY_EARN
    earned = (row.mean - lowest) / (gold - lowest) if gold > lowest else 0.0
    return row.full_share > _JUNK_MAY_PASS or earned > may_earn


def _judge_gold(gold: ProbeRow) -> Finding:
    level: Literal["error", "warning"] = "error" if gold.full_share < 1 - _GOLD_MAY_FAIL else "warning"
    because = f" The reward gave no score on {gold.num_failed} of them: {gold.failure}" if gold.num_failed else ""
    return Finding(
        level,
        f"The gold answer does not pay on {1 - gold.full_share:.0%} of {gold.num_tasks} tasks: it earns no more there "
        f"than an empty text.{because} Check that the reward reads answers in the form gold has.",
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    value: float | None
    """None if the reward gave no score."""
    failure: str = ""


async def _score_all(environment: Probes, tasks: Sequence[Task], texts: Sequence[str]) -> list[_Answer]:
    return list(await asyncio.gather(*(_score(environment, t, text) for t, text in zip(tasks, texts, strict=True))))


async def _score(environment: Probes, task: Task, text: str) -> _Answer:
    try:
        score = await environment.score(task, text)
    except RewardError as error:
        return _Answer(None, str(error))
    # An environment is the user's code: whatever it raises is what the probe is there to find.
    except Exception as error:
        return _Answer(None, describe(error))
    return _Answer(score.value)


def _row(kind: str, answers: Sequence[_Answer], against: Sequence[_Answer], *, strictly: bool) -> ProbeRow:
    values = [answer.value for answer in answers if answer.value is not None]
    failures = [answer.failure for answer in answers if answer.value is None]
    full = sum(_reaches(a.value, b.value, strictly) for a, b in zip(answers, against, strict=True))
    mean = statistics.fmean(values) if values else float("nan")
    return ProbeRow(kind, mean, full / len(answers), len(answers), len(failures), failures[0] if failures else "")


def _reaches(value: float | None, other: float | None, strictly: bool) -> bool:
    if value is None or other is None:
        # Gold that pays while the empty text makes the reward fail still pays.
        return strictly and value is not None
    return value > other if strictly else value >= other


def _junk(task: Task) -> str:
    rng = stream("probe", task.id)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(_JUNK_WORDS))
