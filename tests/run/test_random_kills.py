"""Kill a run anywhere, again and again: at random instants, and at every single write. It ends as if nothing happened.

A kill is SIGKILL to a process that runs the command line. Most of these processes are forked off one that has imported
everything already (`Forge`), so that dozens of kills take seconds.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli_w
from builders import within
from runs import rows, weights

from ratchet.config.schema import RunConfig
from ratchet.run.checkpoint import damage, list_checkpoints
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]

REPLAY = ("buffer.kind=replay", "buffer.train_prompts=7", "buffer.cooldown=1", "buffer.capacity=14")
AHEAD = ("sync.offset=2", "sync.interval=2", "train.overlap=true")
LONG = ("train.steps=24", "record.checkpoint_every=2")
SHORT = ("train.steps=3", "record.checkpoint_every=1", "record.keep_checkpoints=1")
KILLS = 20

MAIN = "from ratchet.cli.main import main; main()"
FORGE = '''
import faulthandler, gc, json, os, signal, sys
from sqlalchemy.engine.default import DefaultDialect
import ratchet.charts.report, ratchet.cli.view, ratchet.run.finish, ratchet.run.launch
import ratchet.policy.checkpoint, ratchet.run.checkpoint, torch._dynamo
from ratchet.cli.main import main

ratchet.run.finish.draw_run = lambda store, remarks: []  # seconds, each time
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)  # where is it? asked right before a kill


def die_at_write(last, torn, folder):
    """Die right before write number `last`; if `torn`, of what is open for writing then only a part has arrived."""
    writes, opened = 0, None

    def write(path=None):
        nonlocal writes, opened
        writes += 1
        if writes == last:
            if torn and opened:
                size = os.path.getsize(opened)
                os.truncate(opened, size - 5 if opened.endswith(".jsonl") and size else size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        opened = path

    def audit(event, args):
        if event == "open" and str(args[0]).startswith(folder) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            write(str(args[0]))
        elif event in CHANGES:
            write()

    def also(owner, name):
        called = getattr(owner, name)

        def first(*args, **keys):
            write()
            return called(*args, **keys)

        setattr(owner, name, first)

    sys.addaudithook(audit)
    also(os, "fsync")
    also(DefaultDialect, "do_commit")
    also(ratchet.policy.checkpoint, "save_file")
    also(ratchet.run.checkpoint, "save_file")
    return lambda: writes


def run(order):
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.setpgid(0, 0)
    writes = die_at_write(order["write"], order["torn"], order["folder"])
    code = 0
    try:
        main(order["words"])
    except SystemExit as end:
        code = end.code or 0
    print("writes:", writes(), flush=True)
    os._exit(code)


gc.collect()
gc.freeze()  # a child collects what it made itself
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        try:
            run(order)
        except BaseException:
            faulthandler.dump_traceback()
            import traceback
            traceback.print_exc()
        os._exit(99)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
'''


class Forge:
    """Makes processes that run the command line, in milliseconds; one lives at a time."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        with (folder / "forge.txt").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", FORGE],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self._answer() == "ready", (folder / "forge.txt").read_text()

    def start(self, *words: str | Path, folder: Path, write: int = 0, torn: bool = False) -> int:
        """Start a process and return its number. It kills itself at a write below `folder`, or never."""
        self.log.unlink(missing_ok=True)
        order = {"words": [str(w) for w in words], "log": str(self.log), "folder": str(folder), "write": write}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**order, "torn": torn}) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def code(self) -> int:
        """Return how the process ended, once it has."""
        with within(60):
            return int(self._answer())

    def run(self, *words: str | Path, folder: Path, write: int = 0, torn: bool = False) -> int:
        self.start(*words, folder=folder, write=write, torn=torn)
        return self.code()

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass(frozen=True)
class Straight:
    """A run that nothing stopped, and what it takes to begin it again."""

    folder: Path
    steps: int
    seconds: float

    def begin(self, folder: Path) -> tuple[str, Path]:
        """Return the words that begin the same run in another folder."""
        tree = RunStore.open(self.folder).config_tree()
        tree["run"] |= {"folder": str(folder.parent), "name": folder.name}
        file = folder.with_suffix(".toml")
        file.write_text(tomli_w.dumps(tree))
        return "train", file

    def check(self, other: Path) -> None:
        """Fail unless the other run is this one, bit for bit."""
        assert rows(other) == rows(self.folder)
        assert weights(other, self.steps) == weights(self.folder, self.steps)
        assert sampled(other, self.steps) == sampled(self.folder, self.steps)
        kept = [sorted(p.name for p in (f / "checkpoints").iterdir()) for f in (other, self.folder)]
        assert kept[0] == kept[1]
        assert not any(damage(path) for path in list_checkpoints(other / "checkpoints"))
        assert RunStore.open(other).status()["state"] == "finished"
        assert (other / "report.md").is_file()


def sampled(folder: Path, steps: int) -> list[object]:
    """Return the recorded tokens of a run, with their log-probabilities and versions."""
    return [
        (t.output.tolist(), t.logprobs.tolist(), t.version, r.score and r.score.value)
        for k in range(steps)
        for g in RunStore.open(folder).read_groups(k)
        for r in g.rollouts
        for tr in r.trajectories
        for t in tr.turns
    ]


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    made = Forge(tmp_path_factory.mktemp("forge"))
    yield made
    made.close()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that waits for no disk, for tests with hundreds of runs."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def run_straight(forge: Forge, config: Config, folder: Path, *words: str) -> Straight:
    """Run a config to its end without a kill."""
    chosen = config(*words, "run.name=straight", folder=folder)
    file = folder / "straight.toml"
    file.write_text(tomli_w.dumps(chosen.model_dump(mode="json", exclude_none=True)))
    started = time.perf_counter()
    assert forge.run("train", file, folder=folder) == 0, forge.said()
    made = Straight(folder / "straight", chosen.train.steps, time.perf_counter() - started)
    assert len({r["reward/mean"] for r in rows(made.folder)}) > 1
    return made


def next_words(forge: Forge, straight: Straight, folder: Path) -> tuple[str, Path]:
    """Return the words that take a killed run further: a new beginning if it never came to its first checkpoint."""
    if list_checkpoints(folder / "checkpoints"):
        return "resume", folder
    if folder.exists():  # killed while it was being made
        assert forge.run("resume", folder, folder=folder) in (1, 2), forge.said()
        said = forge.said()
        assert said.startswith("ratchet: "), "a sentence, no trace"
        assert any(part in said for part in ("there is none. It never got", "is not a run folder", "config.toml")), said
        shutil.rmtree(folder)
    return straight.begin(folder)


def place(said: str) -> str:
    """Return what a process was doing when it was asked, right before the kill."""
    for name, marks in PLACES.items():
        if any(mark in said for mark in marks):
            return name
    return "elsewhere" if "File " in said else "beginning"


PLACES = {
    "checkpoint": ("in write_checkpoint", "in prune", "in checkpoint\n"),
    "buffer": ("/ratchet/buffer/",),
    "training": ("/ratchet/train/",),
    "sampling": ("/ratchet/engines/", "/ratchet/explore/"),
    "recording": ("/ratchet/store/",),
    "making the parts": ("in assemble\n", "in _assembled\n", "in _reassembled\n", "in make_environment\n"),
}
"""Functions and folders that a trace names -> what the process does; the first that fits counts."""


def kill(forge: Forge, pid: int) -> None:
    """Ask a process where it is, and kill it before it gets much further; it may have ended already."""
    try:
        os.kill(pid, signal.SIGUSR1)
        for _ in range(20):
            if "File " in forge.said():
                break
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_at_random(forge: Forge, straight: Straight, folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill a run at random instants until it was killed so often; a run that ends earlier is checked, then another
    begins. Return where the kills hit."""
    rng, hits = random.Random(seed), Counter[str]()
    for number in itertools.count():
        while True:
            last = hits.total() == kills
            pid = forge.start(*next_words(forge, straight, folder / f"run-{number}"), folder=folder)
            if not last:
                time.sleep(rng.uniform(0, 0.6 * straight.seconds))
                kill(forge, pid)
            code = forge.code()
            if code == 0:
                break
            assert code == -signal.SIGKILL, forge.said()
            hits[place(forge.said())] += 1
        straight.check(folder / f"run-{number}")
        if last:
            return hits
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("sync.interval=20",),
        (*REPLAY, "buffer.max_staleness=4"),
        (*REPLAY, "buffer.max_staleness=21", "sync.interval=20", "buffer.max_uses=3"),
        AHEAD,
        (*AHEAD, *REPLAY, "buffer.max_staleness=5"),
    ],
    ids=["fresh", "stale", "fresh-replay", "stale-replay", "ahead", "ahead-replay"],
)
def test_a_run_killed_at_random_instants_equals_the_one_that_was_never_killed(
    forge: Forge, config: Config, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    straight = run_straight(forge, config, tmp_path, *LONG, *settings)
    hits = kill_at_random(forge, straight, tmp_path, KILLS, seed=len(settings))
    print(f"{settings}: {dict(hits)}, {straight.seconds:.1f} s unkilled")
    assert hits.total() == KILLS


def test_a_run_killed_twice_at_random_equals_the_one_that_was_never_killed(
    forge: Forge, config: Config, tmp_path: Path
) -> None:
    straight = run_straight(forge, config, tmp_path, "train.steps=6", "record.checkpoint_every=2", *REPLAY)
    assert kill_at_random(forge, straight, tmp_path, 2, seed=3).total() == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "torn"),
    [((), False), ((*REPLAY, "sync.interval=2", "buffer.max_staleness=2"), True), (AHEAD, False)],
    ids=["fresh", "stale-replay-torn", "ahead"],
)
def test_a_run_killed_at_any_write_equals_the_one_that_was_never_killed(
    forge: Forge, config: Config, memory: Path, settings: tuple[str, ...], torn: bool
) -> None:
    """Right before each write, and once with half of what is being written on the disk."""
    straight = run_straight(forge, config, memory, *SHORT, *settings)
    for write in itertools.count(1):
        folder = memory / f"run-{write}"
        code = forge.run(*straight.begin(folder), folder=folder, write=write, torn=torn)
        if code == 0:  # it has no such write
            break
        assert code == -signal.SIGKILL, forge.said()
        assert forge.run(*next_words(forge, straight, folder), folder=folder) == 0, (write, forge.said())
        straight.check(folder)
        shutil.rmtree(folder)
    print(f"{settings}: {write - 1} kills")
    assert write > 100


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(*REPLAY, "sync.interval=2"), AHEAD], ids=["stale-replay", "ahead"])
def test_a_resume_killed_at_any_write_equals_the_one_that_was_never_killed(
    forge: Forge, config: Config, memory: Path, settings: tuple[str, ...]
) -> None:
    straight = run_straight(forge, config, memory, *SHORT, *settings)
    begun = memory / "begun"
    for write in itertools.count(40, 5):  # until it dies in step 1
        assert forge.run(*straight.begin(begun), folder=begun, write=write) == -signal.SIGKILL
        if (begun / "checkpoints" / "step_000001").is_dir():
            break
        shutil.rmtree(begun)
    for write in itertools.count(1):
        folder = memory / f"run-{write}" / "begun"
        shutil.copytree(begun, folder)
        code = forge.run("resume", folder, folder=folder, write=write)
        if code == 0:
            break
        assert code == -signal.SIGKILL, forge.said()
        assert forge.run("resume", folder, folder=folder) == 0, (write, forge.said())
        straight.check(folder)
        shutil.rmtree(folder)
    print(f"{settings}: {write - 1} kills")
    assert write > 60


@pytest.mark.slow
def test_processes_of_their_own_killed_at_random_from_their_first_instant_on_lose_nothing(
    forge: Forge, config: Config, tmp_path: Path
) -> None:
    """Nothing is imported beforehand here: `ratchet train` and `ratchet resume` as a shell starts them."""
    straight = run_straight(forge, config, tmp_path, *LONG)
    folder, rng, kills, ready_s = tmp_path / "run", random.Random(0), 0, 4.0
    while True:
        words = next_words(forge, straight, folder)
        started = time.perf_counter()
        with (tmp_path / "said.txt").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", MAIN, *map(str, words)], stdout=said, stderr=said
            )
            if kills < 6:
                try:
                    process.wait(rng.uniform(0, ready_s + straight.seconds))
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
            code = process.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, (tmp_path / "said.txt").read_text()
        ready_s = max(ready_s, time.perf_counter() - started - straight.seconds)
    straight.check(folder)
