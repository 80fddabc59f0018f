"""A run under random faults, for minutes: do its sums close, and does its memory stay flat?

    python bench/soak.py --minutes 3      writes bench/results/soak.md and .json

Real: a Ray of its own, started by `ray start` and joined by address; `ratchet train` and `ratchet resume` in
processes of their own; explorers with engines. The policy is tiny. Every --every seconds on average one of these:

    explorer killed   SIGKILL to the process of one explorer
    explorer paused   SIGSTOP, and SIGCONT after 1 to 20 s; after cluster.silence_s it is given up
    player killed     SIGKILL to the process in which the environment plays
    trainer killed    SIGKILL to the process that trains and owns the run; `ratchet resume` follows at once

At the end the run is stopped by SIGINT, as a person stops it. Then each step must be there once, with each of its
groups once, the ledger must account for each attempt, and no process may be left. Memory is the resident size of a
process, read every two seconds; its slope is that of one line per life, with one slope for all lives of a kind, the
first 40 s of each left out. Its error allows for neighbouring readings that repeat each other (first-order
autocorrelation).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Split, Task
from ratchet.run.machine import describe_environment
from ratchet.store.run_store import RunStore

OUT = Path(__file__).parent / "results"
HERE = Path(__file__).resolve()
READ_EVERY_S, WARM_UP_S = 2.0, 40.0
PATIENCE_S = 120.0
"""How long a step may take after a fault before the soak has failed."""
SILENCE_S = 10.0
PROMPTS, SAMPLES, EXPLORERS, PLAYERS = 6, 4, 2, 1
TREE: Mapping[str, Any] = {
    "run": {"threads": 1, "device": "cpu", "name": "soak"},
    "environment": {"name": f"{HERE}:Vowels"},
    "policy": {"tiny": {"hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "head_size": 16,
                        "intermediate": 16, "context": 24}},
    "explore": {"prompts_per_step": PROMPTS, "samples_per_prompt": SAMPLES, "max_tokens": 8},
    "algorithm": {"name": "grpo", "lr": 1e-3},
    "train": {"steps": 50_000, "overlap": True},
    "sync": {"offset": 1},
    "eval": {"tasks": 0},
    "record": {"checkpoint_every": 20},
}  # fmt: skip


class Vowels:
    """An environment that pays for vowels, after a wait of random length."""

    name = "vowels"
    words = ()
    characters = "abcdefghi0123456789"

    def num_tasks(self, split: Split) -> int | None:
        return None

    def task(self, split: Split, index: int) -> Task:
        text = "".join(split.rng(index).choices("0123456789", k=3))
        return Task(self.name, (Message("user", text),), extras={"index": index})

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        reply = await policy.chat(task.prompt)
        return Outcome(Score(sum(c in "aei" for c in reply.text) / max(1, len(reply.text))))


class Memory:
    """Resident sizes of processes over time."""

    def __init__(self) -> None:
        self.lives: dict[tuple[str, int], list[tuple[float, float]]] = {}

    def read(self, kind: str, pid: int) -> None:
        """Read one process, if it is there."""
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return
        self.lives.setdefault((kind, pid), []).append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))

    def report(self, kind: str) -> dict[str, float] | None:
        """Return the slope over all lives of a kind in MiB per hour, its error, and the sizes at begin and end."""
        xs, ys, parts = list[float](), list[float](), 0
        for (of, _), points in self.lives.items():
            kept = [(t, y) for t, y in points if t - points[0][0] >= WARM_UP_S]
            if of != kind or len(kept) < 10:
                continue
            mean_t, mean_y = statistics.fmean(t for t, _ in kept), statistics.fmean(y for _, y in kept)
            xs += [(t - mean_t) / 3600 for t, _ in kept]
            ys += [y - mean_y for _, y in kept]
            parts += 1
        if not parts:
            return None
        square = sum(x * x for x in xs)
        slope = sum(x * y for x, y in zip(xs, ys, strict=True)) / square
        rest = [y - slope * x for x, y in zip(xs, ys, strict=True)]
        power = sum(r * r for r in rest) or 1e-12
        again = min(0.99, max(0.0, sum(a * b for a, b in itertools.pairwise(rest)) / power))
        error = math.sqrt(power / max(1, len(xs) - parts - 1) / square * (1 + again) / (1 - again))
        last = [y for (of, _), points in self.lives.items() if of == kind for _, y in points]
        return {"lives": parts, "readings": len(xs), "slope": slope, "error": error, "highest": max(last)}

    def thinned(self) -> list[dict[str, Any]]:
        """Return every life as minutes since its first reading and MiB, of every fifteenth reading."""
        return [
            {"kind": kind, "minutes": [round((t - points[0][0]) / 60, 1) for t, _ in points[::15]],
             "mib": [round(y, 1) for _, y in points[::15]]}
            for (kind, _), points in self.lives.items()
        ]  # fmt: skip


class Soak:
    """The run, what is done to it, and what came of that."""

    def __init__(self, folder: Path, seed: int, but: str) -> None:
        self.but = but
        self.rng, self.memory, self.faults = random.Random(seed), Memory(), list[dict[str, Any]]()
        self.folder, self.log = folder / "soak", folder / "log.txt"
        with socket.socket() as free:
            free.bind(("", 0))
            self.port = int(free.getsockname()[1])
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        self.environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
                            "RAY_worker_niceness": "0"}  # fmt: skip
        tree = {**TREE, "run": {**TREE["run"], "folder": str(folder)}}
        tree["cluster"] = {"name": "ray", "explorers": EXPLORERS, "environments": PLAYERS,
                           "address": f"127.0.0.1:{self.port}", "silence_s": SILENCE_S}  # fmt: skip
        self.file = folder / "soak.toml"
        self.file.write_text(tomli_w.dumps(tree))
        self.ray = self._start(Path(sys.executable).parent / "ray", "start", "--head", "--block",
                               f"--num-cpus={EXPLORERS + PLAYERS}", f"--port={self.port}",
                               "--object-store-memory=100000000", "--include-dashboard=false",
                               "--disable-usage-stats")  # fmt: skip
        end = time.monotonic() + 60
        while not answers(self.port):
            if time.monotonic() > end:
                raise SystemExit(f"Ray does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.2)
        self.run: subprocess.Popen[bytes] | None = None
        self.paused: list[tuple[float, int]] = []

    def begin(self) -> None:
        """Start the run, or go on with it."""
        word = ("resume", self.folder) if any((self.folder / "checkpoints").glob("step_*")) else ("train", self.file)
        self.run = self._start(sys.executable, "-m", "ratchet", *word, "--plain")

    def watch(self, seconds: float) -> None:
        """Read memory and let paused explorers go on, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for then, pid in [p for p in self.paused if p[0] <= time.monotonic()]:
                self.paused.remove((then, pid))
                kill(pid, signal.SIGCONT)
            self._read()
            assert self.run is not None
            if self.run.poll() is not None:
                raise SystemExit(f"The run ended by itself with {self.run.returncode}: {self.log.read_text()[-3000:]}")
            time.sleep(min(READ_EVERY_S, max(0.0, end - time.monotonic())))

    def fault(self) -> None:
        """Do one thing to the run, and wait until it has trained two steps more."""
        explorers, players = self.pids("explorer"), self.pids("player")
        kinds = ["trainer killed", *(["explorer killed"] * 2 + ["explorer paused"] * 2 if explorers else []),
                 *(["player killed"] if players else [])]  # fmt: skip
        if not (kinds := [kind for kind in kinds if kind != self.but]):
            return
        kind, at = self.rng.choice(kinds), self.steps()
        assert self.run is not None
        if kind == "trainer killed":
            self.run.kill()
            self.run.wait()
            self.begin()
            at = self.steps_saved()
        elif kind == "explorer killed":
            kill(self.rng.choice(explorers), signal.SIGKILL)
        elif kind == "player killed":
            kill(self.rng.choice(players), signal.SIGKILL)
        else:
            pid, pause = self.rng.choice(explorers), self.rng.uniform(1, 20)
            kill(pid, signal.SIGSTOP)
            self.paused.append((time.monotonic() + pause, pid))
        started = time.monotonic()
        while self.steps() < at + 2 or self.status().get("pid") != self.run.pid:
            if time.monotonic() - started > PATIENCE_S:
                raise SystemExit(f"{kind}: no step within {PATIENCE_S:g} s. {self.status()}")
            self.watch(0.5)
        self.faults.append({"kind": kind, "step": at, "seconds": time.monotonic() - started})
        print(f"{kind} at step {at}: two steps further after {self.faults[-1]['seconds']:.1f} s", flush=True)

    def stop(self) -> int:
        """Stop the run as a person does; return its exit code."""
        for _, pid in self.paused:
            kill(pid, signal.SIGCONT)
        assert self.run is not None
        self.run.send_signal(signal.SIGINT)
        return self.run.wait(PATIENCE_S)

    def close(self) -> list[int]:
        """End Ray; return the actors that outlived the run."""
        time.sleep(3)
        left = [pid for kind, pid in self.memory.lives if kind in ("explorer", "player") and alive(pid)]
        self.ray.send_signal(signal.SIGTERM)
        try:
            self.ray.wait(30)
        except subprocess.TimeoutExpired:
            self.ray.kill()
        return left

    def status(self) -> dict[str, Any]:
        path = self.folder / "status.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def pids(self, kind: str) -> list[int]:
        """Return the processes of one kind of actor, "explorer" or "player"."""
        name = {"explorer": "explorer-", "player": "environment-"}[kind]
        return [a["pid"] for a in self.status().get("actors", ()) if "pid" in a and a["name"].startswith(name)]

    def steps(self) -> int:
        return int(self.status().get("step", 0))

    def steps_saved(self) -> int:
        return max((int(p.name[5:]) for p in (self.folder / "checkpoints").glob("step_*")), default=0)

    def _read(self) -> None:
        assert self.run is not None
        self.memory.read("trainer", self.run.pid)
        for kind in ("explorer", "player"):
            for pid in self.pids(kind):
                self.memory.read(kind, pid)
        for pid, name in processes():
            if name in ("raylet", "gcs_server"):
                self.memory.read(name, pid)

    def _start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, env=self.environment, start_new_session=True)


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def answers(port: int) -> bool:
    """Whether something listens at a port of this machine."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    path = Path(f"/proc/{pid}/stat")
    try:
        return path.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes() -> Iterator[tuple[int, str]]:
    """Yield number and name of the processes there are."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield int(entry.name), (entry / "comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue


def sums(store: RunStore, first: int = 0) -> dict[str, Any]:
    """Hold what the run recorded together: each step and group once, each attempt accounted for."""
    rows, wrong, attempts, groups = store.metrics(), list[str](), 0, 0
    if [row["step"] for row in rows] != list(range(first, first + len(rows))):
        wrong.append("steps are missing or double in metrics.jsonl")
    for row in rows:
        k = int(row["step"])
        found = sorted(g.index for g in store.read_groups(k))
        if found != list(range(PROMPTS * k, PROMPTS * (k + 1))):
            wrong.append(f"step {k} recorded groups {found}")
        told = sum(value for name, value in row.items() if name.startswith("ledger/"))
        if not told == row["rollouts/asked"] == PROMPTS * SAMPLES:
            wrong.append(f"step {k}: the ledger accounts for {told:g} of {row['rollouts/asked']:g} attempts")
        attempts, groups = attempts + int(told), groups + len(found)
    return {"steps": len(rows), "groups": groups, "attempts": attempts, "wrong": wrong}


def soak(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run for so long; return what came of it."""
    made = Soak(folder, args.seed, args.but)
    load = [os.getloadavg()[0]]
    try:
        made.begin()
        started = time.monotonic()
        while made.steps() < 3:
            made.watch(1)
        end = started + 60 * args.minutes
        while time.monotonic() < end:
            wait = made.rng.expovariate(1 / args.every)
            made.watch(max(0.0, min(wait, end - time.monotonic())))
            load.append(os.getloadavg()[0])
            if time.monotonic() < end - args.every:
                made.fault()
        made.watch(5)
        code = made.stop()
    finally:
        if made.run is not None and made.run.poll() is None:
            made.run.kill()
        left = made.close()
    store = RunStore.open(made.folder)
    lost = sum(event["kind"] == "explorer_lost" for event in store.events())
    return {
        "minutes": args.minutes, "every": args.every, "seed": args.seed, "but": args.but, "code": code,
        "left": len(left), "explorers_lost": lost, "faults": made.faults, "load": statistics.fmean(load), **sums(store),
        "memory": {k: made.memory.report(k) for k in ("trainer", "explorer", "player", "raylet", "gcs_server")},
        "lives": made.memory.thinned(), "machine": describe_environment(),
    }  # fmt: skip


def page(found: Mapping[str, Any]) -> str:
    """Return what was found as a page."""
    but = f' --but "{found["but"]}"' if found["but"] else ""
    lines = [
        "# Soak",
        "",
        f"`python bench/soak.py --minutes {found['minutes']:g} --every {found['every']:g} --seed {found['seed']}{but}`,"
        f" on {found['machine']['cores']} cores with a mean load of {found['load']:.1f}. What is done and how it is "
        "counted stands at the top of the script.",
        "",
        f"- {found['steps']} steps, {found['groups']} groups, {found['attempts']} attempts. "
        + (f"**{len(found['wrong'])} sums do not close**: {'; '.join(found['wrong'][:5])}." if found["wrong"] else
           "Each step once, each of its groups once, the ledger accounts for each attempt."),
        f"- Stopped by SIGINT: exit code {found['code']}; {found['left']} actors left behind.",
        f"- {len(found['faults'])} faults; {found['explorers_lost']} explorers were lost and replaced.",
        "",
        "| fault | times | two steps further: median, longest |",
        "|---|---|---|",
    ]  # fmt: skip
    for kind, times in sorted(Counter(f["kind"] for f in found["faults"]).items()):
        took = sorted(f["seconds"] for f in found["faults"] if f["kind"] == kind)
        lines.append(f"| {kind} | {times} | {statistics.median(took):.1f} s, {took[-1]:.1f} s |")
    lines += ["", "| process | lives read | readings | highest | slope, MiB per hour |", "|---|---|---|---|---|"]
    for kind, of in found["memory"].items():
        if of is not None:
            lines.append(
                f"| {kind} | {of['lives']} | {of['readings']} | {of['highest']:.0f} MiB | "
                f"{of['slope']:+.1f} ± {of['error']:.1f} |"
            )
    for life in found.get("lives", ()):
        if life["kind"] == "trainer" and life["minutes"][-1] >= 10:
            told = ", ".join(f"{size:.1f} after {at:.0f} min" for at, size in
                             zip(life["minutes"][4::8], life["mib"][4::8], strict=True))  # fmt: skip
            lines += ["", f"A trainer that lived {life['minutes'][-1]:.0f} minutes, in MiB: {told}."]
    return "\n".join([*lines, ""])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between faults, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--but", default="", help='a fault to leave out, "trainer killed" say')
    parser.add_argument("--out", type=Path, default=OUT / "soak.md")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        found = soak(args, Path(folder))
    args.out.write_text(page(found))
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    print(page(found))
    if found["wrong"] or found["left"] or found["code"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
