"""Several runs held side by side: curves, means and bands over seeds, differing settings, and all as coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ratchet.board.curve import Floats, caption, numbers, smooth, thin
from ratchet.board.library import Record
from ratchet.board.listing import shown
from ratchet.board.page import window_of
from ratchet.board.run import OwnRun, axis_label
from ratchet.charts.axes import AXES
from ratchet.charts.grouping import Run, grouped
from ratchet.core.errors import ConfigError, nearest
from ratchet.logs.names import describe

MOST_RUNS = 60
ENDS = 5
"""Steps whose mean is the final value of a run, as in the printed comparison."""


def overlay(
    records: Mapping[str, Record], metrics: Sequence[str], *, axis: str, points: int, window: str, by_seed: bool
) -> dict[str, Any]:
    """Return for each metric the curves of all runs, or of all methods with mean and band over their seeds.

    Raises `ConfigError` for an axis that none of the runs has.
    """
    known = set[str]().union(*(r.axes() for r in records.values()))
    axes = [name for name in AXES if name in known]
    if axis not in axes:
        raise ConfigError(f'None of these runs has an x axis "{axis}".{nearest(axis, axes)}')
    methods = by_method(records) if by_seed else {i: [i] for i in records}
    charts = []
    for metric in metrics:
        lines = []
        for label, ids in methods.items():
            curves = [(i, records[i], records[i].curve(metric)) for i in ids if axis in records[i].axes()]
            curves = [c for c in curves if len(c[2].values)]
            if curves:
                lines.append({"label": label, "ids": ids, **_line(curves, metric, axis, points, window)})
        entry = describe(metric)
        charts.append({"metric": metric, "unit": entry.unit if entry is not None else "", "lines": lines})
    return {"charts": charts, "methods": methods, "axes": axes, "x_label": axis_label(axis)}


def _line(curves: Sequence[Any], metric: str, axis: str, points: int, window: str) -> dict[str, Any]:
    """Return one curve, or the mean of several with the lowest and highest seed as its band."""
    evaluation = metric.startswith("eval/")
    if len(curves) == 1:
        _, record, curve = curves[0]
        x, raw = record.places(axis, curve.steps, evaluation=evaluation), curve.values
        tx, ty = thin(x, smooth(raw, window_of(window, curve)), points)
        return {"x": numbers(tx), "y": numbers(ty), "seeds": 1, "caption": caption(curve, metric, "")}
    steps = np.unique(np.concatenate([c.steps for _, _, c in curves]))
    table, where = np.full((len(curves), len(steps)), np.nan), np.full((len(curves), len(steps)), np.nan)
    for i, (_, record, curve) in enumerate(curves):
        at = np.searchsorted(steps, curve.steps)
        table[i, at] = smooth(curve.values, window_of(window, curve))
        where[i, at] = record.places(axis, curve.steps, evaluation=evaluation)
    x, mean = np.nanmean(where, axis=0), np.nanmean(table, axis=0)
    low, high = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
    keep = _kept(x, mean, points)
    return {
        "x": numbers(x[keep]),
        "y": numbers(mean[keep]),
        "low": numbers(low[keep]),
        "high": numbers(high[keep]),
        "seeds": len(curves),
        "caption": f"{metric}: mean of {len(curves)} seeds; the band runs from the lowest to the highest.",
    }


def _kept(x: Floats, y: Floats, points: int) -> Any:
    """Return which points of a curve are drawn, so that band and mean keep the same ones."""
    tx, _ = thin(np.arange(len(x), dtype=np.float64), y, points)
    return tx.astype(np.int64)


def by_method(records: Mapping[str, Record]) -> dict[str, list[str]]:
    """Return method -> the runs that are its seeds, sorted as the printed comparison does; logs stand alone."""
    runs = {str(r.path): i for i, r in records.items() if isinstance(r, OwnRun) and r.settings}
    methods: dict[str, list[str]] = {}
    made = [Run(r.path, [{"step": 0}], r.settings) for r in records.values() if isinstance(r, OwnRun) and r.settings]
    if made:
        for setting in grouped(made)[0]:
            for method in setting.methods:
                methods[f"{method.label} ({setting.label})"] = [runs[str(run.folder)] for run in method.runs]
    alone = [i for i in records if i not in runs.values()]
    return methods | {i: [i] for i in alone}


def differences(records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """Return the settings in which the runs differ, but for their names, each with its value in every run."""
    own = {i: r.settings for i, r in records.items() if isinstance(r, OwnRun)}
    keys = sorted(set[str]().union(*(s.keys() for s in own.values())) - {"run.name", "run.folder"})
    told = {key: {i: shown(s.get(key)) for i, s in own.items()} for key in keys}
    return [{"key": key, "values": values} for key, values in told.items() if len(set(values.values())) > 1]


def coordinates(records: Mapping[str, Record], metrics: Sequence[str]) -> dict[str, Any]:
    """Return the runs as points: the settings in which they differ, and the final value of some metrics."""
    finals = {i: {m: _final(r, m) for m in metrics} for i, r in records.items()}
    return {
        "settings": [{"key": row["key"], "values": row["values"]} for row in differences(records)],
        "metrics": [
            {"key": m, "values": {i: finals[i][m] for i in records}}
            for m in metrics
            if any(finals[i][m] is not None for i in records)
        ],
    }


def _final(record: Record, metric: str) -> float | None:
    values = record.curve(metric).values
    return float(values[-ENDS:].mean()) if len(values) else None
