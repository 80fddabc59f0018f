"""How fast the experience buffer is, and whether that depends on how much it holds.

    python bench/buffer.py --out bench/results/buffer                 # SQLite, up to a million experiences
    python bench/buffer.py --url postgresql://user@host/db --sizes 1e3,1e4,1e5 --shapes 8x200

An experience is a rollout. A buffer is filled group by group, each in its own transaction as in a run; at each size the
operations of a step of 64 groups are timed, five times over, always on the same buffer. Wall times are what a run
waits; CPU times tell how much of that other programs on the machine took. Writes `<out>.md` and `<out>.json`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.buffer.groups import GroupTable
from ratchet.core.rollout import Group, Rollout, Score, Status, StopReason, Trajectory, Turn
from ratchet.core.task import Message, Task

STEP = 64
"""Groups put and groups trained per step."""
COOLDOWN = 2
SHAPES = {"8x200": (8, 200, 100), "1x32": (1, 32, 20)}
"""Rollouts per group, tokens per answer, tokens per prompt."""
OPERATIONS = ("put", "choose", "load", "use", "evict", "purge")
WORDS = ("so", "the", "sum", "of", "all", "these", "is", "what", "we", "had", "to", "find", "which", "means", "that")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="database; empty: a SQLite file in --folder")
    parser.add_argument("--folder", help="where the SQLite files lie meanwhile; the default is the temporary folder")
    parser.add_argument("--sizes", default="1e3,1e4,1e5,1e6", help="experiences, separated by commas")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of " + ", ".join(SHAPES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where to write, without ending")
    args = parser.parse_args()
    sizes = [int(float(size)) for size in args.sizes.split(",")]
    found = [row for shape in args.shapes.split(",") for row in measure(args, shape, sizes)]
    report = table(found)
    print(report)
    if args.out:
        result = {"machine": machine(args), "rows": found}
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(f"{machine_line(result['machine'])}\n\n{report}\n")


def template(shape: str) -> list[Group]:
    """Return a step's groups with random tokens; the text takes as much room as an answer's."""
    rollouts, answer, prompt = SHAPES[shape]
    rng = np.random.default_rng(0)
    made = []
    for index in range(STEP):
        asked = rng.integers(0, 32_000, prompt).astype(np.int32)
        tries = []
        for attempt in range(rollouts):
            turn = Turn(
                prompt=asked,
                output=(rng.zipf(1.3, answer) % 32_000).astype(np.int32),
                logprobs=-rng.exponential(1.0, answer).astype(np.float32),
                log_kept=np.zeros(0, dtype=np.float32),
                version=0,
                last_version=0,
                fingerprint="0123456789abcdef",
                stop=StopReason.END,
                text=" ".join(rng.choice(WORDS, answer)),
                seconds=1.0,
            )
            reward = Score(float(rng.integers(0, 2)))
            tries.append(Rollout("task", attempt, (Trajectory((turn,)),), Status.OK, reward))
        made.append(Group(Task("bench", (Message("user", "?"),), "!"), index, 0, tuple(tries)))
    return made


class Filling:
    """A buffer that grows step by step."""

    def __init__(self, url: str, groups: list[Group]) -> None:
        self.url, self.name = url, f"bench-{uuid.uuid4().hex}"
        self.table = GroupTable.open(url, self.name, tokenizer="bench", create=True)
        self.groups, self.step, self.rng = groups, 0, np.random.default_rng(1)

    def put_step(self) -> None:
        """Put a step's groups. Their priorities lie as freshness leaves them: new ones high, used ones lower."""
        for group in self.groups:
            priority = self.step - float(self.rng.integers(0, 20))
            self.table.put(replace(group, step=self.step), version=self.step, priority=priority, admitted=True)
        self.step += 1

    def reopen(self) -> None:
        """Close the buffer and open it again, as a resumed run does."""
        self.table.close()
        self.table = GroupTable.open(self.url, self.name, tokenizer="bench", create=False)

    def train_step(self) -> dict[str, tuple[float, float]]:
        """Do everything a step does, at full capacity; return (wall, CPU) seconds by operation."""
        now, table, room = self.step, self.table, self.table.size
        entries: list[Any] = []
        parts: dict[str, Callable[[], object]] = {
            "put": self.put_step,
            "choose": lambda: entries.extend(table.choose(now, STEP, cooldown=COOLDOWN, max_uses=0)),
            "load": lambda: table.load(entries),
            "use": lambda: table.use(now, entries, [e.priority - 1 for e in entries]),
            "evict": lambda: (table.evict_older(now, 0), table.evict_beyond(now, room)),
            "purge": lambda: table.purge(now),
        }
        times = {}
        for name in OPERATIONS:
            wall, cpu = time.perf_counter(), time.process_time()
            parts[name]()
            times[name] = (time.perf_counter() - wall, time.process_time() - cpu)
        assert len(entries) == STEP
        assert table.size == room
        return times


def measure(args: argparse.Namespace, shape: str, sizes: list[int]) -> list[dict[str, Any]]:
    """Grow one buffer through the sizes; at each, time a step as often as asked."""
    rollouts, rows = SHAPES[shape][0], []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        file = Path(folder) / "buffer.sqlite"
        filling = Filling(args.url or f"sqlite:///{file}", template(shape))
        for size in sizes:
            while filling.table.size * rollouts < size:
                filling.put_step()
            filling.train_step()  # the first compiles statements
            steps = [filling.train_step() for _ in range(args.repeats)]
            filling.table.flush()
            opening = time.perf_counter()
            filling.reopen()
            rows.append(
                {
                    "shape": shape,
                    "database": filling.url.partition(":")[0].partition("+")[0],
                    "experiences": filling.table.size * rollouts,
                    "groups": filling.table.size,
                    "wall_s": {name: [step[name][0] for step in steps] for name in OPERATIONS},
                    "cpu_s": {name: [step[name][1] for step in steps] for name in OPERATIONS},
                    "open_s": time.perf_counter() - opening,
                    "file_bytes": file.stat().st_size if file.exists() else None,
                    "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                }
            )
            print(
                shape,
                size,
                {n: f"{1e3 * statistics.median(t):.2f} ms" for n, t in rows[-1]["wall_s"].items()},
                file=sys.stderr,
            )
        filling.table.close()
    return rows


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the numbers depend on."""
    cpuinfo, model = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if cpuinfo.exists():
        model = next((x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), model)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model, "cores": os.cpu_count(), "cores_used": allowed, "python": platform.python_version(),
        "sqlalchemy": importlib.metadata.version("sqlalchemy"), "sqlite": sqlite3.sqlite_version,
        "repeats": args.repeats, "load": os.getloadavg(),
    }  # fmt: skip


def machine_line(facts: dict[str, Any]) -> str:
    """Return the machine in a sentence."""
    return (
        f"{facts['cpu']}, {facts['cores_used']} of {facts['cores']} cores; Python {facts['python']}, SQLAlchemy "
        f"{facts['sqlalchemy']}, SQLite {facts['sqlite']}; load average at the end {facts['load'][0]:.1f}."
    )


def spread(seconds: list[float], scale: float) -> str:
    """Return median and range."""
    values = [scale * value for value in seconds]
    return f"{statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}]"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown report: putting groups, then the rest of a step of 64 groups."""
    lines = [
        "| buffer | experiences | put, ms per group, CPU | wall | groups/s, CPU | experiences/s, CPU | file, MB "
        "| per group, KB | open, s | peak, MiB |",
        "|" + "---|" * 10,
    ]
    step = [
        f"| buffer | experiences | {' | '.join(f'{n}, ms, CPU | wall' for n in OPERATIONS[1:])} |",
        "|" + "---|" * 12,
    ]
    for row in rows:
        head = f"| {row['database']} {row['shape']} | {row['experiences']:,} "
        cpu, wall, size = row["cpu_s"], row["wall_s"], row["file_bytes"]
        rate = STEP / statistics.median(cpu["put"])
        file = f"{size / 1e6:.1f} | {size / 1e3 / row['groups']:.2f}" if size else "- | -"
        lines.append(
            f"{head}| {spread(cpu['put'], 1e3 / STEP)} | {spread(wall['put'], 1e3 / STEP)} | {rate:,.0f} "
            f"| {rate * row['experiences'] / row['groups']:,.0f} | {file} | {row['open_s']:.3f} "
            f"| {row['peak_rss_bytes'] / 2**20:.0f} |"
        )
        cells = [f"{spread(cpu[name], 1e3)} | {spread(wall[name], 1e3)}" for name in OPERATIONS[1:]]
        step.append(f"{head}| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"The rest of a step of {STEP} groups:", "", *step])


if __name__ == "__main__":
    main()
