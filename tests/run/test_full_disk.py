"""A disk that takes no more: the checkpoint before stays, and the message says what to do."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomli_w
from builders import tiny_policy, within
from click.testing import CliRunner
from runs import rows, weights

from ratchet.cli.main import main
from ratchet.config.schema import RunConfig
from ratchet.core.errors import CheckpointError
from ratchet.run.checkpoint import RunState, list_checkpoints, newest_sound, write_checkpoint
from ratchet.run.launch import train
from ratchet.run.observer import Silent

Config = Callable[..., RunConfig]
REPLAY = ("buffer.kind=replay", "buffer.train_prompts=7", "buffer.cooldown=1", "buffer.capacity=14")


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let the system refuse files larger than `size` bytes, as a full disk refuses any."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [64, 4096, 20_000])
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path: Path, size: int) -> None:
    policy = tiny_policy(hidden=32, intermediate=64)
    fingerprint = policy.fingerprint()
    optimiser = {f"{name}/exp_avg": weight for name, weight in policy.weights().items()}
    first = write_checkpoint(tmp_path, policy, RunState(1, 1, fingerprint), optimiser, {})
    with no_file_above(size), pytest.raises(CheckpointError, match=r"step_000002 cannot be written: .*ratchet resume"):
        write_checkpoint(tmp_path, policy, RunState(2, 2, fingerprint), optimiser, {})
    assert newest_sound(tmp_path) == (first, [])
    assert list_checkpoints(tmp_path) == [first]
    assert [p.name for p in tmp_path.iterdir()] == [first.name], "nothing half-written is left"


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        if os.geteuid():
            pytest.skip("only root may mount a file system that can be full or read-only")
        self.mounted = self._mount("-t", "tmpfs", "-o", "size=64m", "ratchet-test")
        if not self.mounted:
            pytest.skip("this machine lets nobody mount a file system")

    def set(self, option: str) -> None:
        """Change the file system, as ``size=300k``, ``ro`` or ``rw``."""
        assert self._mount("-o", f"remount,{option}")

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)

    def _mount(self, *words: str) -> bool:
        return not subprocess.run(["mount", *words, self.folder], capture_output=True).returncode


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr("ratchet.run.finish.draw_run", lambda store, remarks: [])  # takes seconds
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


class Dies(Silent):
    def step(self, row: dict[str, float], total: int) -> None:
        if row["step"] == 3:
            raise MemoryError("killed")


def ratchet(*words: str | Path) -> tuple[int, str]:
    """Return the exit code of a command and what it said. Anything but an exit is raised."""
    with within(30):
        result = CliRunner().invoke(main, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def written(config: RunConfig, file: Path) -> Path:
    file.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    return file


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("ratchet: ")]


def fill(config: Config, disk: Disk, size: int, *settings: str, straight: Path) -> str:
    """Run a config on a disk of some KB, resume it when it is full, and when there is room; return the first error."""
    disk.set(f"size={size}k")
    config_file, folder = disk.folder.parent / "config.toml", disk.folder / "run"
    code, said = ratchet("train", written(config(*settings, folder=disk.folder), config_file))
    if code == 0:
        return ""
    assert code in (1, 2), said
    error = errors(said)[0]
    if not list_checkpoints(folder / "checkpoints"):  # full before the run began: nothing to go on from
        assert "cannot be" in error or "failed while" in error, error
        assert ratchet("resume", folder)[0] in (1, 2)
        disk.set("size=64m")
        shutil.rmtree(folder, ignore_errors=True)
        assert ratchet("train", config_file)[0] == 0
        assert rows(folder) == rows(straight)
        return error
    assert code == 1, said
    sound, complaints = newest_sound(folder / "checkpoints")
    assert not complaints
    assert "ratchet resume" in error, error
    code, said = ratchet("resume", folder)
    assert (code, len(errors(said))) == (1, 1), said
    assert newest_sound(folder / "checkpoints")[0].name >= sound.name
    disk.set("size=64m")
    assert ratchet("resume", folder)[0] == 0
    assert rows(folder) == rows(straight)
    assert weights(folder) == weights(straight)
    return error


def straight_on(disk: Disk, config: RunConfig) -> tuple[Path, int]:
    """Run a config to its end, and take it off the disk again. Return its folder, and how many KB it took."""
    folder = train(config).folder
    state = os.statvfs(disk.folder)
    moved = shutil.move(folder, disk.folder.parent / "straight")
    return Path(moved), (state.f_blocks - state.f_bfree) * state.f_frsize // 1024


@pytest.mark.parametrize(
    "share", [0.5, 0.8, *(pytest.param(n / 40, marks=pytest.mark.slow) for n in range(1, 40) if n not in (20, 32))]
)
def test_a_run_that_fills_its_disk_says_so_and_goes_on_when_there_is_room(
    config: Config, disk: Disk, share: float
) -> None:
    settings = (*REPLAY, "record.checkpoint_every=1", "record.keep_checkpoints=9")
    straight, size = straight_on(disk, config(*settings, folder=disk.folder))
    error = fill(config, disk, int(share * size), *settings, straight=straight)
    print(f"{share}: {error}")
    assert error


def test_a_buffer_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(
    config: Config, disk: Disk, tmp_path: Path
) -> None:
    settings = (*REPLAY, "record.checkpoint_every=1", f"buffer.url=sqlite:///{disk.folder}/buffer.sqlite")
    straight = train(config(*REPLAY, "record.checkpoint_every=1", folder=tmp_path / "straight")).folder
    disk.set("size=200k")
    code, said = ratchet("train", written(config(*settings, folder=tmp_path), tmp_path / "config.toml"))
    assert code == 1, said
    assert re.search(r"The buffer at .* failed while .*: database or disk is full\. .*ratchet resume", said), said
    sound = newest_sound(tmp_path / "run" / "checkpoints")[0]
    assert sound.name > "step_000000", "it went some way"
    assert ratchet("resume", tmp_path / "run")[0] == 1
    assert newest_sound(tmp_path / "run" / "checkpoints")[0] == sound
    disk.set("size=64m")
    assert ratchet("resume", tmp_path / "run")[0] == 0
    assert rows(tmp_path / "run") == rows(straight)
    assert weights(tmp_path / "run") == weights(straight)


def test_a_checkpoint_that_finds_the_disk_full_says_so_and_the_run_goes_on_when_there_is_room(
    config: Config, disk: Disk, tmp_path: Path
) -> None:
    wide = ("policy.tiny.hidden=64", "policy.tiny.intermediate=256", "record.checkpoint_every=2")
    settings = (*wide, "record.rollouts=false", f"buffer.url=sqlite:///{tmp_path}/buffer.sqlite")
    straight, size = straight_on(disk, config(*wide, "record.rollouts=false", folder=disk.folder))
    error = fill(config, disk, int(0.45 * size), *settings, straight=straight)
    assert "step_000004 cannot be written" in error
    assert "The one before is untouched" in error


def test_a_run_folder_that_has_become_read_only_is_told_and_goes_on_when_it_is_writable(
    config: Config, disk: Disk, tmp_path: Path
) -> None:
    straight = train(config(folder=tmp_path)).folder
    with pytest.raises(MemoryError):
        train(config(folder=disk.folder), Dies())
    disk.set("ro")
    code, said = ratchet("resume", disk.folder / "run")
    assert code == 1, said
    assert re.search(r"cannot be written: Read-only file system", errors(said)[0]), said
    disk.set("rw")
    assert ratchet("resume", disk.folder / "run")[0] == 0
    assert rows(disk.folder / "run") == rows(straight)
    assert weights(disk.folder / "run") == weights(straight)
