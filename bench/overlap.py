"""Whether training in a thread while the sampler works ahead is faster: whole steps, side by side, in rounds.

    python bench/overlap.py                      judge and stale, three rounds each, a few minutes
    python bench/overlap.py --recipes judge --steps 30 --rounds 5

Three ways of the same number of steps: ``waits`` (sync.offset = 0: sampler and trainer take turns), ``ahead``
(sync.offset = 1, one thread: the sampler may begin a step early, but nothing runs at once) and ``overlap``
(sync.offset = 1, train.overlap). Arithmetic has one thread each. Writes ``bench/results/overlap.md`` and ``.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from ratchet.config.read import read_config
from ratchet.run.launch import train
from ratchet.run.machine import describe_environment
from ratchet.store.run_store import RunStore

WAYS = {
    "waits": ("sync.offset=0",),
    "ahead": ("sync.offset=1",),
    "overlap": ("sync.offset=1", "train.overlap=true"),
}
WARM_UP = 3
"""First steps of each run that are not timed."""
OUT = Path(__file__).parent / "results"


def seconds_per_step(recipe: str, way: str, steps: int, folder: str, name: str) -> float:
    """Return the mean wall time of a step, the first ones left out."""
    words = [recipe, *WAYS[way], "run.threads=1", f"train.steps={steps}", "eval.tasks=0", "record.rollouts=false",
             "record.checkpoint_every=1000000", f"run.folder={folder}", f"run.name={name}"]  # fmt: skip
    rows = RunStore.open(train(read_config(words)).folder).metrics()
    return statistics.mean(row["time/step"] for row in rows[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="judge,stale")
    parser.add_argument("--steps", type=int, default=23)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    measured: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in args.recipes.split(","):
            measured[recipe] = {way: [] for way in WAYS}
            for r in range(args.rounds):
                for way in WAYS:  # interleaved: what disturbs the machine disturbs all
                    took = seconds_per_step(recipe, way, args.steps, folder, f"{recipe}-{way}-{r}")
                    measured[recipe][way].append(took)
                    print(f"{recipe:8} {way:8} round {r}: {took:.3f} s a step", flush=True)
    lines = ["| recipe | way | s per step: median (least to most) | against `waits` |", "|---|---|---|---|"]
    for recipe, ways in measured.items():
        base = statistics.median(ways["waits"])
        for way, values in ways.items():
            middle = statistics.median(values)
            spread = f"{middle:.3f} ({min(values):.3f} to {max(values):.3f})"
            lines.append(f"| {recipe} | {way} | {spread} | {base / middle:.2f}x |")
    machine = describe_environment()
    facts = {"machine": machine, "steps": args.steps - WARM_UP, "rounds": args.rounds, "seconds_per_step": measured}
    (OUT / "overlap.json").write_text(json.dumps(facts, indent=2) + "\n")
    told = f"{args.rounds} interleaved rounds of {args.steps - WARM_UP} timed steps, one arithmetic thread per worker."
    (OUT / "overlap.md").write_text(f"# Training in a thread\n\n{told}\n\n" + "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
