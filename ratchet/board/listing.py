"""The list of runs: one row each, with the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ratchet.board.curve import numbers, thin
from ratchet.board.diagnosis import Diagnosed
from ratchet.board.foreign import ForeignLog
from ratchet.board.library import Record
from ratchet.board.run import OwnRun
from ratchet.charts.grouping import algorithm_options
from ratchet.charts.labels import PUBLISHED, Published, method_label, told_value
from ratchet.charts.source import study_of
from ratchet.core.errors import ConfigError

SPARK_POINTS = 80
"""Points of the small curve in a row."""
REWARD = "reward/mean"
STAND_INS = (REWARD, "reward/total/mean", "reward/filtered/mean", "reward/shaped/mean")


def row(id_: str, name: str, record: Record, tags: Sequence[str], diagnosed: Diagnosed) -> dict[str, Any]:
    """Return the row of one run as JSON values."""
    done, asked = record.steps()
    reward = next((c for n in STAND_INS if len((c := record.curve(n)).values)), record.curve(REWARD))
    x, y = thin(reward.steps.astype(float), reward.values, SPARK_POINTS)
    worst = diagnosed.findings[0] if diagnosed.findings else None
    return {
        "id": id_,
        "name": name,
        "kind": "run" if isinstance(record, OwnRun) else "log",
        "version": record.version,
        "step": done,
        "steps": asked,
        "spark": {"x": numbers(x), "y": numbers(y)},
        "reward": numbers(reward.values[-1:])[0] if len(reward.values) else None,
        "best": numbers(reward.values.max(keepdims=True))[0] if len(reward.values) else None,
        "reward_name": reward.name,
        "last_word": record.last_word,
        "tags": list(tags),
        "finding": None if worst is None else {"severity": worst.severity, "sentence": worst.sentence},
        "num_findings": len(diagnosed.findings),
        **(_own(record) if isinstance(record, OwnRun) else _foreign(record)),
    }


def _own(run: OwnRun) -> dict[str, Any]:
    now, settings = run.now(), run.settings
    name = str(settings.get("algorithm.name", ""))
    return {
        "study": study_name(run),
        "algorithm": PUBLISHED.get(name, Published(name)).title,
        "method": method_label(name, algorithm_options(settings)) if name else "",
        "seed": settings.get("run.seed"),
        "framework": "Ratchet",
        "state": now.state.value,
        "detail": now.detail,
        "waits": [{"owner": w.owner, "cause": w.cause, "since": w.since} for w in now.waits],
        "begun": run.begun(),
        "step_s": run.step_s(),
    }


def _foreign(log: ForeignLog) -> dict[str, Any]:
    return {
        "study": "",
        "algorithm": "",
        "method": "",
        "seed": None,
        "framework": log.title,
        "state": "recorded",
        "detail": "",
        "waits": [],
        "begun": 0.0,
        "step_s": 0.0,
    }


def study_name(run: OwnRun) -> str:
    """Return the study of a run; empty if its config cannot be read."""
    try:
        return study_of(run.store)
    except (ConfigError, OSError, KeyError, TypeError):
        return ""


def varying(records: Mapping[str, Record]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return the settings in which the runs differ, and id -> their values as text."""
    runs = {i: r for i, r in records.items() if isinstance(r, OwnRun) and r.settings}
    keys = sorted(set[str]().union(*(r.settings.keys() for r in runs.values())) - {"run.name", "run.folder"})
    told = {i: {k: shown(r.settings.get(k)) for k in keys} for i, r in runs.items()}
    differ = [k for k in keys if len({values[k] for values in told.values()}) > 1]
    return differ, {i: {k: values[k] for k in differ} for i, values in told.items()}


def shown(value: object) -> str:
    """Return a setting as text; empty where it is not set."""
    return "" if value is None else str(told_value(value))
