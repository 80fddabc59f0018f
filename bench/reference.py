"""Record a recipe's reference runs: train it on several seeds and keep the curves beside the recipe.

    python bench/reference.py judge --seeds 0,1,2
    python bench/reference.py judge/collapse --seeds 0,1,2
    python bench/reference.py stale --from runs/stale-sweep

Writes ``recipes/<study>/reference/<label>/``: one ``seed<n>.jsonl`` of the metrics below per seed, ``summary.json``
(the first seed's config, start, end, held-out numbers, seconds, machine) and a figure. ``ratchet compare``
holds new runs against them by the config. The label is the recipe's name; with ``--from``, which trains nothing and
takes finished runs such as a sweep's cells, it is the algorithm and how stale its data was: ``rec_one_side-20``,
``grpo-offline``. A warm start found in the cache is not timed, so give ``--fresh`` to measure from nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratchet.charts.compare import Asked, compare
from ratchet.charts.figure import draw_metrics
from ratchet.charts.grouping import differing, find_runs, read_runs
from ratchet.charts.reference import reference_label
from ratchet.cli.view import Lines
from ratchet.config.read import RECIPES, read_config
from ratchet.core.errors import ConfigError
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore

KEPT = (
    "step",
    "reward/mean",
    "reward/parts/accuracy",
    "reward/parts/format",
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
    "tokens/generated",
    "flops/generate/step",
    "flops/train/step",
    "time/step",
)
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
EDGE = 5
"""Steps whose mean is called the start and the end."""
PLACES = ("folder", "name", "seed")
"""Settings of the run section that say nothing about the method."""


class Quiet(Lines):
    """Notes and one line in ten steps."""

    def step(self, row: Any, total: int) -> None:
        if row["step"] % 10 == 0 or row["step"] == total - 1:
            super().step(row, total)


def summarise(store: RunStore, seconds: float | None) -> dict[str, Any]:
    """Return what a recorded run comes to; `seconds` is None for a run that was not timed here."""
    rows = store.metrics()
    series = {name: [row[name] for row in rows if name in row] for name in KEPT}

    def edges(name: str) -> dict[str, float]:
        values = series[name]
        return {
            "first": values[0],
            "start": statistics.mean(values[:EDGE]),
            "end": statistics.mean(values[-EDGE:]),
            "best": max(values),
        }

    evaluated = [e for e in store.events() if e["kind"] == "eval"]
    held_out = {k: v for k, v in evaluated[-1].items() if isinstance(v, float) and k != "time"} if evaluated else {}
    return {
        **({} if seconds is None else {"seconds": round(seconds, 1)}),
        "rl_seconds": round(sum(series["time/step"]), 1),
        "logp_diff_max": max(series["sampler/logp_diff_max"], default=None),
        **{name: edges(name) for name in KEPT[1:6] if series[name]},
        "held_out": held_out,
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
        with (out / f"{seed}.jsonl").open("w") as lines:
            for row in store.metrics():
                kept = {k: float(f"{row[k]:.6g}") if isinstance(row[k], float) else row[k] for k in names if k in row}
                lines.write(json.dumps(kept) + "\n")
    summary["config"] = recorded_config(stores[0].config_tree())
    summary["machine"] = stores[0].environment()
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


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
    parser.add_argument("--from", dest="finished", type=Path, help="folder of finished runs to record")
    parser.add_argument("--fresh", action="store_true", help="do not use cached warm starts")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="further settings")
    args = parser.parse_args()
    study, _, variant = args.recipe.partition("/")
    if args.finished is not None:
        record_finished(study, args.finished)
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
        out = RECIPES / study / "reference" / (variant or "config")
        summary = record(out, stores, seconds)
        draw_metrics(stores, ["len/response/mean", "reward/mean"], "step", out / "curves.png")
    print(json.dumps({k: v for k, v in summary.items() if k not in ("machine", "config")}, indent=2))


if __name__ == "__main__":
    main()
