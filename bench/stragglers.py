"""What working ahead gains where answers differ much in length: whole runs on two explorers, in rounds.

    python bench/stragglers.py                    two real explorers on Ray, some minutes
    python bench/stragglers.py --rounds 1 --steps 12

Real: the run's loops, buffer, trainer, weights, and two explorers in processes of their own on Ray. Simulated: time. An
answer's length is drawn from a log-normal distribution (median 1, --sigma), and the attempt sleeps so long after the
tiny policy has spoken, in one of the --slots places its explorer has; a training step sleeps --train seconds in the
advantage. So neither cores nor other programs decide, and nothing here says how fast a model is.

Ways: ``sync`` (sync.offset = 0: sampler and trainer take turns), and ``ahead-n`` (train.overlap, sync.offset and
sync.interval = n, buffer.max_staleness = the bound 2 n - 1). Writes ``bench/results/stragglers.md`` and ``.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.on_policy import grpo
from ratchet.config.read import config_from_tree, merge, parse_override
from ratchet.core.batch import Batch
from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.seeds import derive
from ratchet.core.task import Message, Split, Task
from ratchet.run.launch import train
from ratchet.run.machine import describe_environment
from ratchet.store.run_store import RunStore

OUT = Path(__file__).parent / "results"
HERE = Path(__file__).resolve()
WARM_UP = 2
"""First steps of each run that are not timed: Ray starts in the first."""
EXPLORERS = 2
TREE: Mapping[str, Any] = {
    "run": {"threads": 1, "device": "cpu"},
    "environment": {"name": f"{HERE}:Stragglers"},
    "policy": {"tiny": {"hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "head_size": 16,
                        "intermediate": 16, "context": 24}},
    "explore": {"prompts_per_step": 16, "samples_per_prompt": 4, "max_tokens": 4},
    "algorithm": {"name": f"{HERE}:slow_grpo", "lr": 1e-3},
    "cluster": {"name": "ray", "explorers": EXPLORERS},
    "eval": {"tasks": 0},
    "record": {"rollouts": False, "checkpoint_every": 1_000_000},
}  # fmt: skip


class Stragglers:
    """An environment whose attempts take as long as an answer of log-normal length would."""

    name = "stragglers"
    words = ()
    characters = "abcdefghi0123456789"

    def __init__(self, *, unit: float = 0.05, sigma: float = 1.0, slots: int = 16) -> None:
        """An answer of length 1 takes `unit` seconds; an explorer gives `slots` answers at once."""
        self._unit, self._sigma = unit, sigma
        self._places = asyncio.Semaphore(slots)

    def num_tasks(self, split: Split) -> int | None:
        return None

    def task(self, split: Split, index: int) -> Task:
        text = "".join(split.rng(index).choices("0123456789", k=3))
        return Task(self.name, (Message("user", text),), extras={"index": index})

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        reply = await policy.chat(task.prompt)
        rng = random.Random(derive(task.extras["index"], reply.text))
        took = self._unit * length(rng, self._sigma)
        async with self._places:
            await asyncio.sleep(took)
        return Outcome(Score(float(len(reply.text) % 2)), {"seconds": took})


def length(rng: random.Random, sigma: float) -> float:
    """Return the length of an answer: log-normal, median 1, mean exp(sigma^2 / 2)."""
    return math.exp(rng.gauss(0.0, sigma))


def slow_grpo(*, seconds: float = 0.5) -> Algorithm:
    """Return GRPO whose training step takes so much longer; in a thread, others go on meanwhile."""
    plain = grpo()

    def advantage(batch: Batch) -> Tensor:
        time.sleep(seconds)
        return plain.advantage(batch)

    return replace(plain, advantage=advantage)


def words_of(way: str) -> tuple[str, ...]:
    """Return the settings of a way."""
    if way == "sync":
        return ()
    _, _, ahead = way.partition("-")
    n = int(ahead)
    return (f"sync.offset={n}", f"sync.interval={n}", "train.overlap=true", f"buffer.max_staleness={2 * n - 1}")


def run(args: argparse.Namespace, way: str, seconds: float, folder: str, name: str) -> dict[str, float]:
    """Return what a run's steps say, the first ones left out; seconds are per step."""
    tree = merge(dict(TREE), {"run": {"folder": folder, "name": name}, "train": {"steps": args.steps}})
    for word in (f"algorithm.seconds={seconds}", f"environment.sigma={args.sigma}", f"environment.unit={args.unit}",
                 f"environment.slots={args.slots}", *words_of(way)):  # fmt: skip
        tree = merge(tree, parse_override(word))
    ended = train(config_from_tree(tree))
    rows = RunStore.open(ended.folder).metrics()[WARM_UP:]
    said = {"step_s": statistics.fmean(row["time/step"] for row in rows)}
    for key in sorted({k for row in rows for k in row if k.startswith("wait/")}):
        said[key] = sum(row.get(key, 0.0) for row in rows) / len(rows)
    busy = statistics.fmean(row["env/seconds"] * row["rollouts/step"] for row in rows)
    said["busy_share"] = busy / (EXPLORERS * args.slots * said["step_s"])
    said["stale_mean"] = statistics.fmean(row["stale/mean"] for row in rows)
    said["stale_max"] = max(row["stale/max"] for row in rows)
    said["refused"] = sum(row["buffer/refused_stale"] + row["buffer/evicted_stale"] for row in rows)
    return said


def table(found: Mapping[str, Mapping[str, list[dict[str, float]]]]) -> str:
    """Return the Markdown report."""
    lines = [
        "| training, s | way | s per step: median (least to most) | throughput against `sync` | staleness: mean, most "
        "| groups dropped | explorers' places in use | waits, s per step |",
        "|" + "---|" * 8,
    ]
    for seconds, ways in found.items():
        base = statistics.median(said["step_s"] for said in ways["sync"])
        for way, rounds in ways.items():
            took = [said["step_s"] for said in rounds]
            middle = statistics.median(took)
            causes = sorted({k for said in rounds for k in said if k.startswith("wait/")})
            waits = {k: statistics.median(said.get(k, 0.0) for said in rounds) for k in causes}
            told = ", ".join(f"{k.removeprefix('wait/')} {v:.2f}" for k, v in waits.items() if v >= 0.005)
            lines.append(
                f"| {seconds} | {way} | {middle:.2f} ({min(took):.2f} to {max(took):.2f}) | {base / middle:.2f}x "
                f"| {statistics.median(s['stale_mean'] for s in rounds):.1f}, "
                f"{max(s['stale_max'] for s in rounds):.0f} "
                f"| {sum(s['refused'] for s in rounds):.0f} "
                f"| {100 * statistics.median(s['busy_share'] for s in rounds):.0f} % | {told or '-'} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="sync,ahead-1,ahead-2,ahead-4")
    parser.add_argument("--train", default="0.1,0.5", help="seconds a training step sleeps, separated by commas")
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--unit", type=float, default=0.05, help="seconds of an answer of median length")
    parser.add_argument("--slots", type=int, default=32, help="answers that an explorer gives at once")
    parser.add_argument("--name", default="stragglers", help="name of the result files")
    args = parser.parse_args()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seconds in args.train.split(","):
            found[seconds] = {way: [] for way in args.ways.split(",")}
            for r in range(args.rounds):
                for way in found[seconds]:  # interleaved: what disturbs the machine disturbs all
                    said = run(args, way, float(seconds), folder, f"{seconds}-{way}-{r}")
                    found[seconds][way].append(said)
                    print(seconds, way, r, {k: round(v, 3) for k, v in said.items()}, flush=True)
    settings = {k: v for k, v in vars(args).items() if k not in ("name", "train", "ways")}
    facts = {"machine": describe_environment(), "load": os.getloadavg(), "explorers": EXPLORERS, **settings}
    explore = TREE["explore"]
    machine = facts["machine"]
    told = (
        f"{machine['processor']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}. "
        f"{args.rounds} interleaved rounds of {args.steps - WARM_UP} timed steps. {EXPLORERS} explorers on Ray with "
        f"{args.slots} places each; {explore['prompts_per_step']} prompts of {explore['samples_per_prompt']} answers a "
        f"step. An answer takes {args.unit:g} s x a log-normal length (median 1, sigma {args.sigma:g}), asleep; so is "
        "the training time. Loops, buffer, trainer, weights and Ray are real. 'Places in use': seconds slept over "
        "seconds there were."
    )
    report = table(found)
    (OUT / f"{args.name}.json").write_text(json.dumps({**facts, "found": found}, indent=1) + "\n")
    (OUT / f"{args.name}.md").write_text(f"# Stragglers\n\n{told}\n\n{report}\n")
    print(report)


if __name__ == "__main__":
    main()
