"""Record a recipe's reference runs: train it on several seeds and keep the curves beside the recipe.

    python bench/reference.py judge --seeds 0,1,2
    python bench/reference.py judge/collapse --seeds 0,1,2
    python bench/reference.py reproduce --runs runs/reproduce-001 runs/reproduce-002 runs/reproduce-003
    python bench/reference.py stale --from runs/stale-sweep

Writes ``recipes/<study>/reference/<label>/``: per seed one ``seed<n>.jsonl`` of the metrics below and, where there were
any, its held-out evaluations as ``evals<n>.jsonl``; ``summary.json`` (the first seed's config, start, end, held-out
numbers, seconds, machine); and the study's figure over the seeds. ``ratchet compare`` holds new runs against them by
the config. The label is the recipe's name. ``--runs`` trains nothing and takes finished runs of the recipe; ``--from``
takes a sweep's cells, and the label is the algorithm and how stale its data was: ``rec_one_side-20``, ``grpo-offline``.
A warm start found in the cache is not timed, so give ``--fresh`` to measure from nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ratchet.charts.compare import Asked, compare
from ratchet.charts.figure import Look, draw
from ratchet.charts.grouping import differing, find_runs, flat_settings, read_runs
from ratchet.charts.reference import reference_label
from ratchet.charts.source import source_of_run
from ratchet.cli.view import Lines
from ratchet.config.read import RECIPES, read_config
from ratchet.core.errors import ConfigError
from ratchet.run.launch import train
from ratchet.store.run_store import Row, RunStore

KEPT = (
    "step",
    "reward/mean",
    "reward/parts/*",
    "len/response/mean",
    "len/truncated_frac",
    "entropy",
    "kl/ref",
    "kl/old",
    "clip/frac",
    "stale/max",
    "signal/zero_groups_frac",
    "sampler/logp_diff_max",
    "opt/grad_norm",
    "env/*",
    "tokens/generated",
    "flops/*/step",
    "flops/*/total",
    "rollouts/total",
    "seconds/total",
    "time/step",
)
"""Patterns of what is kept."""
COMPARED = (
    "step",
    "reward/mean",
    "len/response/mean",
    "entropy",
    "kl/ref",
    "kl/old",
    "clip/frac",
    "stale/max",
    "tokens/generated",
    "flops/generate/step",
    "flops/train/step",
    "time/step",
)
"""What is kept of a sweep's many runs: what ``ratchet compare`` draws and tells."""
LOGP = "sampler/logp_diff_max"
EDGE = 5
"""Steps whose mean is called the start and the end."""
PLACES = ("folder", "name", "seed")
"""Settings of the run section that say nothing about the method."""


class Quiet(Lines):
    """Notes and one line in ten steps."""

    def step(self, row: Any, total: int) -> None:
        if row["step"] % 10 == 0 or row["step"] == total - 1:
            super().step(row, total)


def kept_of(row: Row, patterns: Sequence[str]) -> Row:
    """Return what is kept of a row, to six digits."""
    names = [name for name in row if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return {k: float(f"{row[k]:.6g}") if isinstance(row[k], float) else row[k] for k in names}


def evaluations(store: RunStore) -> list[Row]:
    """Return the held-out evaluations of a run, numbers alone."""
    found = [event for event in store.events() if event["kind"] == "eval"]
    return [
        {k: v for k, v in event.items() if k == "step" or (isinstance(v, float) and k != "time")} for event in found
    ]


def summarise(store: RunStore, seconds: float | None) -> Row:
    """Return what a recorded run comes to; `seconds` is None for a run that was not timed here."""
    rows = store.metrics()

    def edges(name: str) -> dict[str, float]:
        values = [row[name] for row in rows if name in row]
        return {
            "first": values[0],
            "start": statistics.mean(values[:EDGE]),
            "end": statistics.mean(values[-EDGE:]),
            "best": max(values),
        }

    told = ("reward/mean", "reward/parts/*", "len/response/mean", "len/truncated_frac", "env/parallelism")
    names = [name for name in kept_of(rows[0], KEPT) if any(fnmatchcase(name, pattern) for pattern in told)]
    evals = evaluations(store)
    return {
        **({} if seconds is None else {"seconds": round(seconds, 1)}),
        "rl_seconds": round(sum(row["time/step"] for row in rows), 1),
        "logp_diff_max": max(
            (row["sampler/logp_diff_max"] for row in rows if "sampler/logp_diff_max" in row), default=None
        ),
        **{name: edges(name) for name in names},
        **({"held_out_at_start": evals[0]} if evals and evals[0]["step"] == 0 else {}),
        "held_out": evals[-1] if evals else {},
    }


def recorded_config(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a run's config without its place and its seed."""
    return {**tree, "run": {k: v for k, v in tree["run"].items() if k not in PLACES}}


def record(
    out: Path, stores: Sequence[RunStore], seconds: Sequence[float | None], names: Sequence[str] = KEPT
) -> dict[str, Any]:
    """Write the curves and the summary of all seeds of one method; return the summary."""
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {}
    for store, took in zip(stores, seconds, strict=True):
        seed = f"seed{store.config_tree()['run']['seed']}"
        summary[seed] = summarise(store, took)
        write_lines(out / f"{seed}.jsonl", [kept_of(row, names) for row in store.metrics()])
        if evals := evaluations(store):
            write_lines(out / f"{seed.replace('seed', 'evals')}.jsonl", evals)
    summary["config"] = recorded_config(stores[0].config_tree())
    summary["machine"] = stores[0].environment()
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def write_lines(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def record_finished(study: str, folder: Path) -> None:
    """Record finished runs, each method and staleness under its own label, and their comparison."""
    runs, left_out = read_runs(find_runs([folder]))
    unfinished = [run.name for run in runs if not run.done]
    if left_out or unfinished:
        raise ConfigError(" ".join([*left_out, *(f"{name} is not finished." for name in unfinished)]))
    by_label: dict[str, list[Any]] = {}
    for run in runs:
        first = by_label.setdefault(reference_label(run), [run])[0]
        if keys := differing(first.settings, run.settings):
            raise ConfigError(f"{first.name} and {run.name} would share a label, but differ in {', '.join(keys)}.")
        if run is not first:
            by_label[reference_label(run)].append(run)
    for label, found in by_label.items():
        stores = [RunStore.open(run.folder) for run in sorted(found, key=lambda run: run.seed)]
        record(RECIPES / study / "reference" / label, stores, [None] * len(stores), COMPARED)
        print(f"{label}: {len(stores)} seeds")
    print(compare(Asked([folder], reference=False, out=RECIPES / study / "reference" / "compare")).text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--from", dest="finished", type=Path, help="folder of a sweep's finished cells to record")
    parser.add_argument("--runs", nargs="+", type=Path, help="finished runs of the recipe to record, one per seed")
    parser.add_argument("--fresh", action="store_true", help="do not use cached warm starts")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="further settings")
    args = parser.parse_args()
    study, _, variant = args.recipe.partition("/")
    if args.finished is not None:
        record_finished(study, args.finished)
        return
    out = RECIPES / study / "reference" / (variant or "config")
    if args.runs:
        finish(out, [RunStore.open(run) for run in args.runs], [None] * len(args.runs))
        return
    with tempfile.TemporaryDirectory() as scratch:
        stores, seconds = [], []
        for seed in args.seeds.split(","):
            words = [args.recipe, f"run.seed={seed}", f"run.folder={scratch}", f"run.name=seed{seed}", *args.settings]
            if args.fresh:
                words.append(f"warm_start.cache={scratch}/cache")
            started = time.perf_counter()
            stores.append(RunStore.open(train(read_config([*words, "record.rollouts=false"]), Quiet()).folder))
            seconds.append(time.perf_counter() - started)
        finish(out, stores, seconds)


def finish(out: Path, stores: Sequence[RunStore], seconds: Sequence[float | None]) -> None:
    """Record the seeds of a recipe, draw the study's figure over them, and print what they come to."""
    unlike = differing(*(flat_settings(store.config_tree()) for store in (stores[0], stores[-1])))
    if unlike:
        raise ConfigError(f"These are no seeds of one recipe: they differ in {', '.join(unlike)}.")
    summary = record(out, stores, seconds)
    label = f"mean of {len(stores)} seeds"
    draw([source_of_run(store, label) for store in stores], Look(), out / "curves.png")
    print(json.dumps({k: v for k, v in summary.items() if k not in ("machine", "config")}, indent=2))


if __name__ == "__main__":
    main()
