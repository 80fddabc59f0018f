"""Boxes: what a command sees, what becomes of it, and what is left of it. Attacks have a file of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ratchet.config.schema import SandboxSection
from ratchet.core.errors import ConfigError
from ratchet.sandbox import bubblewrap, linux
from ratchet.sandbox.box import MEBIBYTE, Box, BoxResult, LimitHit, Limits
from ratchet.sandbox.bubblewrap import BubblewrapBox
from ratchet.sandbox.choose import open_box, open_jails
from ratchet.sandbox.container import arguments
from ratchet.sandbox.lease import Leases, sweep
from ratchet.sandbox.linux import LinuxBox, UnsafeBox, lacks

BOXES = [
    pytest.param(BubblewrapBox, marks=pytest.mark.skipif(bool(bubblewrap.why_not()), reason="no bubblewrap")),
    pytest.param(LinuxBox, marks=pytest.mark.skipif(bool(linux.why_not()), reason="no namespaces")),
    UnsafeBox,
]
SHORT = Limits(wall_s=0.5, memory_bytes=256 * MEBIBYTE)


def run(box: Box, files: Mapping[str, str | bytes], command: Sequence[str], limits: Limits = Limits()) -> BoxResult:  # noqa: B008
    try:
        return asyncio.run(box.run(files, command, limits))
    finally:
        box.close()


@pytest.mark.parametrize("make", BOXES)
def test_a_command_gets_its_files_and_gives_its_code_output_time_and_memory(make: type[Box]) -> None:
    result = run(make(), {"a/b.txt": "hello", "c": b"\xff"}, ["sh", "-c", "cat a/b.txt; echo >&2 oops; ls; exit 3"])
    assert (result.exit_code, result.signal, result.hit) == (3, None, LimitHit.NONE)
    assert result.output.split() == ["hellooops", "a", "c"] or result.output.split() == ["hello", "oops", "a", "c"]
    assert 0 < result.seconds < 5
    assert result.peak_bytes > 0
    assert "rlimits" in result.layers


@pytest.mark.parametrize("make", BOXES)
def test_limits_are_named_when_they_are_hit(make: type[Box]) -> None:
    async def all_of() -> list[LimitHit]:
        box = make()
        commands = {
            "sleep 60": SHORT,
            "yes": SHORT,
            "python3.11 -c 'x = bytearray(1 << 31)'": SHORT,
            "while :; do :; done": Limits(wall_s=6, cpu_s=1),
        }
        results = await asyncio.gather(*(box.run({}, ["sh", "-c", c], limits) for c, limits in commands.items()))
        box.close()
        return [r.hit for r in results]

    assert asyncio.run(all_of()) == [LimitHit.WALL, LimitHit.OUTPUT, LimitHit.MEMORY, LimitHit.CPU]


@pytest.mark.parametrize("make", BOXES)
def test_a_command_that_is_not_there_is_a_result(make: type[Box]) -> None:
    result = run(make(), {}, ["no-such-program"])
    assert result.exit_code == 127
    assert "no-such-program" in result.output


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x"])
def test_files_outside_the_box_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="outside the box"):
        run(UnsafeBox(), {path: ""}, ["true"])


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_SECRET", "x")
    assert "RATCHET_SECRET" not in run(UnsafeBox(), {}, ["env"]).output


def test_cancelling_kills_the_box() -> None:
    async def cancelled() -> None:
        box = UnsafeBox()
        task = asyncio.create_task(box.run({}, ["sleep", "60"], Limits(wall_s=60)))
        while not list(box.leases):
            await asyncio.sleep(0)
        (lease,) = box.leases
        assert (lease.what, lease.back_end) == ("sleep 60", "none")
        assert lease.until - lease.since == 60
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not list(box.leases)
        assert not lease.folder.exists()
        box.close()

    asyncio.run(cancelled())


def test_the_folders_of_processes_that_are_no_more_are_swept_and_links_are_not_followed(tmp_path: Path) -> None:
    root, precious = tmp_path / "boxes", tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    left = root / "999999999-1-a" / "1" / "locked"
    left.mkdir(parents=True)
    (left / "link").symlink_to(precious)
    left.chmod(0)
    leases = Leases(root)
    assert leases.swept >= 1
    with leases.take("x", "none") as lease:
        assert sweep(root) == 0
        assert lease.folder.is_dir()
    assert not any(p.name == "999999999-1-a" for p in root.iterdir())
    leases.close()
    assert not root.exists()
    assert (precious / "file").read_text() == "x"


def test_without_isolation_nothing_runs_unless_the_user_says_so() -> None:
    with pytest.raises(ConfigError, match=r"apt install bubblewrap.*sandbox\.allow_unsafe=true"):
        open_box(SandboxSection(backend="none"))
    box = open_box(SandboxSection(backend="none", allow_unsafe=True))
    assert "NO ISOLATION" in box.layers
    box.close()


def test_a_back_end_that_is_missing_names_its_package() -> None:
    with pytest.raises(ConfigError, match="podman"):
        open_jails(SandboxSection(backend="podman", image="x"))


@pytest.mark.parametrize(
    ("found", "landlock", "filtered", "root", "grouped", "holds"),
    [
        (("mount", "pid", "net"), 0, False, True, False, True),
        ((), 6, True, False, False, True),
        ((), 6, True, True, True, True),
        ((), 6, True, True, False, False),
        ((), 5, True, False, False, False),
        (("mount", "pid"), 0, False, False, False, False),
        ((), 0, True, False, True, False),
    ],
)
def test_too_few_layers_are_no_box(
    found: tuple[str, ...], landlock: int, filtered: bool, root: bool, grouped: bool, holds: bool
) -> None:
    assert (lacks(found, landlock, filtered, root, grouped) == "") is holds


def test_a_container_gets_every_limit_and_no_network() -> None:
    words = arguments("podman", "image:1", "name", "/given-folder", ["pytest", "-q"], Limits())
    line = " ".join(words)
    for part in (
        "--network none",
        "--read-only",
        "--cap-drop ALL",
        "no-new-privileges",
        f"--memory {Limits().memory_bytes}",
        "--pids-limit 66",
        "--ulimit cpu=10:10",
        "--volume /given-folder:/given:ro",
        "--pull never",
    ):
        assert part in line
    assert words[-2:] == ["pytest", "-q"]
    assert os.fspath("image:1") in words


@pytest.mark.parametrize("box", ["bubblewrap", "linux"])
def test_packages_of_a_virtual_environment_in_the_scratch_folders_place_are_seen(box: str) -> None:
    why_not = {"bubblewrap": bubblewrap.why_not, "linux": linux.why_not}[box]()
    if why_not:
        pytest.skip(why_not)
    program = f"""
import asyncio, sys
from ratchet.config.schema import SandboxSection
from ratchet.sandbox.box import Limits
from ratchet.sandbox.choose import open_box
box = open_box(SandboxSection(backend={box!r}))
result = asyncio.run(box.run({{}}, ["python3", "-c", "import lies_there; print(lies_there.__file__)"], Limits()))
box.close()
print(result.output)
"""
    with TemporaryDirectory(dir="/tmp") as folder:
        venv.create(f"{folder}/environment", symlinks=True, with_pip=False)
        (site,) = Path(folder).glob("environment/lib/python3*/site-packages")
        (site / "lies_there.py").write_text("")
        (site / "ours.pth").write_text("\n".join(sys.path))
        done = subprocess.run([f"{folder}/environment/bin/python", "-c", program], capture_output=True, text=True)
    assert done.stdout.strip().endswith("lies_there.py"), done.stderr
    assert not done.stdout.startswith("/tmp")
