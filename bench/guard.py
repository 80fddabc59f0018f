"""Whether the guard saves runs that collapse and leaves healthy ones alone.

    python bench/guard.py                     about twenty minutes on one core
    python bench/guard.py --seeds 3,4,5       other seeds of the collapse

`judge/collapse` is trained on each seed with the guard off and on, nothing else changed; the final reward is the mean
of the last five steps that count. Then ten runs that nothing is wrong with, guard on: each rollback there is a false
one. Writes ``bench/results/guard.json`` after each run, so that it can be stopped and goes on, and ``guard.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ratchet.config.read import read_config
from ratchet.run.launch import train
from ratchet.run.machine import describe_environment
from ratchet.store.run_store import RunStore

LAST = 5
"""Last steps whose mean reward is the final one."""
ON = "guard.enabled=true"
HEALTHY: tuple[tuple[str, ...], ...] = (
    *(("judge", f"run.seed={seed}") for seed in (10, 11, 12, 13)),
    *(("judge/gym", f"run.seed={seed}") for seed in (10, 11)),
    *(("stale", f"run.seed={seed}", "sync.interval=1") for seed in (10, 11)),
    *(("stale", f"run.seed={seed}", "sync.interval=20", "algorithm.name=rec_one_side") for seed in (10, 11)),
)
"""Ten runs that get better and stay good; none of these seeds was used while the guard was made."""
OUT = Path(__file__).parent / "results" / "guard.json"


@dataclass(frozen=True)
class Ran:
    first: float
    """Mean reward of the first steps."""
    final: float
    rollbacks: Sequence[str]
    """From where to where, and the remedy."""
    noted: Sequence[str]
    """What the guard found and acted on in any way."""
    ended: str
    seconds: float


def ran(words: tuple[str, ...], folder: str) -> Ran:
    """Train and return what became of it."""
    result = train(read_config([*words, f"run.folder={folder}", "record.rollouts=false"]))
    store = RunStore.open(result.folder)
    rows, events = store.metrics(), store.events()
    rewards = [row["reward/mean"] for row in rows]
    return Ran(
        statistics.mean(rewards[:LAST]),
        statistics.mean(rewards[-LAST:]),
        tuple(f"{e['step']} -> {e['to']}, {e['remedy'] or 'no remedy'}" for e in events if e["kind"] == "rollback"),
        tuple(f"{e['rule']}: {e['action']}" for e in events if e["kind"] == "guard"),
        store.status()["state"],
        sum(row["time/step"] for row in rows),
    )


def recorded(name: str, work: Callable[[], Ran]) -> Ran:
    """Return a run that this file's results hold already, or make it and keep it there."""
    found = (
        json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {"machine": describe_environment(), "runs": {}}
    )
    if name not in found["runs"]:
        found["runs"][name] = asdict(work())
        OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return Ran(**found["runs"][name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    seeds = args.seeds.split(",")

    def run(*words: str) -> Ran:
        with tempfile.TemporaryDirectory() as folder:
            one = recorded(" ".join(words), lambda: ran(words, folder))
        print(
            f"{' '.join(words)}: {one.first:.2f} -> {one.final:.2f}; {'; '.join(one.rollbacks) or 'no rollback'}",
            flush=True,
        )
        return one

    lines = ["# Guard", "", f"`python bench/guard.py`. A final reward is the mean of the last {LAST} steps.", ""]
    lines += ["Guessing in the right form earns 1.5: 1 for the form, and half of the answers are right.", ""]
    lines += ["| `judge/collapse`, seed | without guard | with guard | rolled back | seconds without, with |"]
    lines += ["|---|---:|---:|---|---|"]
    for seed in seeds:
        without = run("judge/collapse", f"run.seed={seed}")
        guarded = run("judge/collapse", f"run.seed={seed}", ON)
        back = "; ".join(guarded.rollbacks) or "never"
        took = f"{without.seconds:.0f}, {guarded.seconds:.0f}"
        lines.append(f"| {seed} | {without.final:.2f} | {guarded.final:.2f} | {back} | {took} |")
    lines += [
        "",
        "| healthy run | first steps | last steps | rolled back | acted on otherwise |",
        "|---|---:|---:|---|---|",
    ]
    for words in HEALTHY:
        one = run(*words, ON)
        told = [" ".join(words), f"{one.first:.2f}", f"{one.final:.2f}"]
        told += ["; ".join(one.rollbacks) or "never", "; ".join(one.noted) or "nothing"]
        lines.append(f"| {' | '.join(told)} |")
    text = "\n".join(lines) + "\n"
    OUT.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
