"""What a training log holds, as text and as JSON: the command that says what was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ratchet.charts.tables import aligned
from ratchet.charts.text import number
from ratchet.logs.frameworks.table import FRAMEWORKS
from ratchet.logs.log import Log, Series
from ratchet.logs.names import better, describe

HEAD = ("series", "key in the log", "points", "first", "last", "min", "max")
ORDER = ("reward", "len", "signal", "kl", "entropy", "clip", "sampler", "ratio", "correction", "stale", "version",
         "loss", "critic", "opt", "advantage", "drop", "drop_frac", "turns")  # fmt: skip
"""Families of names in the order of the table; the others follow by name."""
SHOWN = 40
"""Unrecognised keys that are listed."""
MANY = 60
"""Series after which the rest of a table is only counted."""


def log_text(log: Log) -> str:
    """Return what was read, how sure that is, and what was handled on the way."""
    blocks = ["\n".join(_facts(log))]
    for title, series in (("Training", log.series), ("Evaluation", log.evals)):
        if series:
            blocks.append(f"{title}\n{_table(list(series.values()))}")
    if log.also:
        told = "\n".join(f"  {key}: {s.name}, held by {_holder(log, s.name)}" for key, s in sorted(log.also.items()))
        blocks.append(f"Recognised, but another key of this log has the name\n{told}")
    if log.unrecognised:
        names = [f"{key} ({len(s.steps)})" for key, s in sorted(log.unrecognised.items())]
        more = f"\n  and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        blocks.append(f"Not recognised ({len(names)}), with points\n  " + "\n  ".join(names[:SHOWN]) + more)
    if log.notes:
        blocks.append("Notes\n" + "\n".join(f"  {note.topic.value}: {note.text}" for note in log.notes))
    return "\n\n".join(blocks)


def log_tree(log: Log) -> dict[str, Any]:
    """Return the same as a tree for JSON; values that are not finite are null."""
    objection = log.objection()
    return {
        "sources": [str(path) for path in log.sources],
        "format": {"name": log.format.name, "evidence": log.format.evidence, "sure": log.format.sure},
        "framework": {"name": log.framework.name, "evidence": log.framework.evidence, "sure": log.framework.sure},
        "training": log.training.value,
        "step_axis": log.axis.value,
        "rows": log.num_rows,
        "series": _trees(log.series),
        "evals": _trees(log.evals),
        "also": _trees(log.also),
        "unrecognised": _trees(log.unrecognised),
        "joins": [
            {"row": j.row + 1, "left": j.left, "entered": j.entered, "replaced": j.replaced, "restart": j.restart}
            for j in log.joins
        ],
        "notes": [{"topic": note.topic.value, "text": note.text} for note in log.notes],
        "unread": [str(path) for path in log.unread],
        "objection": None if objection is None else str(objection),
    }


def _facts(log: Log) -> list[str]:
    shown = ", ".join(str(path) for path in log.sources[:3])
    title = FRAMEWORKS[log.framework.name].title
    facts = [
        f"{shown}{f' and {len(log.sources) - 3} more' if len(log.sources) > 3 else ''}",
        f"  format     {log.format.name}: {log.format.evidence}",
        f"  framework  {title}{'' if log.framework.sure else ', not sure'}: {log.framework.evidence}",
        f"  training   {log.training.value}",
        f"  rows       {log.num_rows:,}; a step is: {log.axis.value}{_span(log)}",
    ]
    axes = {series.axis for series in (*log.series.values(), *log.evals.values())} - {log.axis}
    if axes:
        facts.append(f"  axes       others count: {', '.join(sorted(axis.value for axis in axes))}")
    if log.unread:
        facts.append(
            f"  not read   {', '.join(str(path) for path in log.unread[:4])}{', ...' if len(log.unread) > 4 else ''}"
        )
    return facts


def _span(log: Log) -> str:
    ends = [(int(s.steps[0]), int(s.steps[-1])) for s in log.series.values() if len(s.steps) and s.axis is log.axis]
    return f", {min(first for first, _ in ends)} to {max(last for _, last in ends)}" if ends else ""


def _table(series: Sequence[Series]) -> str:
    shown = sorted(series, key=_place)[:MANY]
    # Flush left like the first column, which `aligned` leaves alone: keys are read, not compared.
    width = max(len(HEAD[1]), *(len(s.key) for s in shown))
    head = (HEAD[0], HEAD[1].ljust(width), *HEAD[2:])
    body = [[s.name, s.key.ljust(width), *_numbers(s)] for s in shown]
    more = f"\nand {len(series) - MANY} more; --json lists them all" if len(series) > MANY else ""
    return aligned(head, body) + more


def _place(series: Series) -> tuple[int, str]:
    """Return where a series stands in the table: what is looked at first, first."""
    family = series.name.partition("/")[0]
    return (ORDER.index(family) if family in ORDER else len(ORDER), series.name)


def _numbers(series: Series) -> tuple[str, ...]:
    _, values = series.finite()
    if len(values) == 0:
        return (str(len(series.steps)), *["not finite"] * 4)
    ends = (values[0], values[-1], values.min(), values.max())
    return (f"{len(series.steps):,}", *(number(float(value)) for value in ends))


def _holder(log: Log, name: str) -> str:
    held = log.series.get(name) or log.evals.get(name)
    return held.key if held is not None else "another"


def _trees(series: Mapping[str, Series]) -> dict[str, Any]:
    return {key: _tree(s) for key, s in series.items()}


def _tree(series: Series) -> dict[str, Any]:
    _, values = series.finite()
    entry = describe(series.name)
    return {
        "name": series.name,
        "key": series.key,
        "axis": series.axis.value,
        "points": len(series.steps),
        "not_finite": series.num_non_finite,
        "first_step": int(series.steps[0]) if len(series.steps) else None,
        "last_step": int(series.steps[-1]) if len(series.steps) else None,
        "first": _finite(series.values[0]) if len(series.values) else None,
        "last": _finite(series.values[-1]) if len(series.values) else None,
        "min": _finite(values.min()) if len(values) else None,
        "max": _finite(values.max()) if len(values) else None,
        "unit": entry.unit if entry else "",
        "better": better(series.name).value,
        "meaning": series.meaning or (entry.meaning if entry else ""),
        "zero": entry.zero if entry else "",
        "change": series.change,
    }


def _finite(value: np.float64) -> float | None:
    return float(value) if math.isfinite(value) else None
