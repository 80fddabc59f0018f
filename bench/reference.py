"""Record a recipe's reference runs: train it on several seeds and keep the curves beside the recipe.

    python bench/reference.py judge --seeds 0,1,2
    python bench/reference.py judge/collapse --seeds 0,1,2

Writes ``recipes/<study>/reference/<recipe>/``: one ``seed<n>.jsonl`` of the metrics below per seed, ``summary.json``
(start, end, held-out numbers, seconds, machine) and a figure of all seeds. A warm start found in the cache is not
timed, so give ``--fresh`` to measure from nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from typing import Any

from ratchet.charts.figure import draw_metrics
from ratchet.cli.view import Lines
from ratchet.config.read import RECIPES, read_config
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
    "stale/max",
    "signal/zero_groups_frac",
    "sampler/logp_diff_max",
    "opt/grad_norm",
    "tokens/generated",
    "time/step",
)
EDGE = 5
"""Steps whose mean is called the start and the end."""


class Quiet(Lines):
    """Notes and one line in ten steps."""

    def step(self, row: Any, total: int) -> None:
        if row["step"] % 10 == 0 or row["step"] == total - 1:
            super().step(row, total)


def summarise(store: RunStore, seconds: float) -> dict[str, Any]:
    """Return what a recorded run comes to."""
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
        "seconds": round(seconds, 1),
        "rl_seconds": round(sum(series["time/step"]), 1),
        "logp_diff_max": max(series["sampler/logp_diff_max"], default=None),
        **{name: edges(name) for name in KEPT[1:6]},
        "held_out": held_out,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--fresh", action="store_true", help="do not use cached warm starts")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="further settings")
    args = parser.parse_args()
    study, _, variant = args.recipe.partition("/")
    out = RECIPES / study / "reference" / (variant or "config")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        stores, summary = [], {}
        for seed in args.seeds.split(","):
            words = [args.recipe, f"run.seed={seed}", f"run.folder={scratch}", f"run.name=seed{seed}", *args.settings]
            if args.fresh:
                words.append(f"warm_start.cache={scratch}/cache")
            started = time.perf_counter()
            store = RunStore.open(train(read_config([*words, "record.rollouts=false"]), Quiet()).folder)
            summary[f"seed{seed}"] = summarise(store, time.perf_counter() - started)
            with (out / f"seed{seed}.jsonl").open("w") as lines:
                for row in store.metrics():
                    kept = {k: round(row[k], 6) if isinstance(row[k], float) else row[k] for k in KEPT if k in row}
                    lines.write(json.dumps(kept) + "\n")
            stores.append(store)
        summary["machine"] = stores[0].environment()
        (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        draw_metrics(stores, ["len/response/mean", "reward/mean"], "step", out / "curves.png")
    print(json.dumps({k: v for k, v in summary.items() if k != "machine"}, indent=2))


if __name__ == "__main__":
    main()
