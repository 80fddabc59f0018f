"""Programs that try to harm the machine or to fool the verdict, run in every box and in the pool.

Each file in `attacks` says in its header what it tries, in which ways it is run (as a command in a box, as a test, as
the module under test), and which limits or outcomes may be seen. In all of them: it never prints ESCAPED, nothing it
started is left, and the machine is as before.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ratchet.sandbox
from ratchet.config.schema import SandboxSection
from ratchet.sandbox import bubblewrap, linux
from ratchet.sandbox.box import MEBIBYTE, BoxResult, Limits
from ratchet.sandbox.bubblewrap import BubblewrapBox
from ratchet.sandbox.linux import LinuxBox
from ratchet.sandbox.pool import CheckPool
from ratchet.sandbox.program import CheckResult, How, Outcome, Program

pytestmark = pytest.mark.slow
"""Fork bombs and the like load the machine for a minute, which tests beside them would suffer from."""

FOLDER = Path(__file__).parent / "attacks"
SECRET = "the-parent-knows-this"
BUGGY, FIXED = "def f(x):\n    return x + 1\n", "def f(x):\n    return x + 2\n"
TRUSTED = (
    "from solution import f\n\ndef test_f():\n    expected = 2\n    assert f(0) == expected\n    assert f(1) == 3\n"
)
LIMITS = Limits(wall_s=0.8, cpu_s=1.0, memory_bytes=128 * MEBIBYTE, processes=16, file_bytes=4 * MEBIBYTE,
                scratch_bytes=8 * MEBIBYTE, open_files=64, output_bytes=16 << 10)  # fmt: skip
ALL = ("mount", "pid", "net", "user", "ipc", "uts")

needs_bubblewrap = pytest.mark.skipif(bool(bubblewrap.why_not()), reason=bubblewrap.why_not() or "-")
needs_namespaces = pytest.mark.skipif("mount" not in linux.namespaces(), reason="no namespaces")
needs_landlock = pytest.mark.skipif(bool(linux._lacks(())), reason=linux._lacks(()) or "-")

BOXES = [
    pytest.param(BubblewrapBox, id="bubblewrap", marks=needs_bubblewrap),
    pytest.param(LinuxBox, id="linux", marks=needs_namespaces),
    pytest.param(lambda: LinuxBox(without=ALL), id="landlock", marks=needs_landlock),
]
POOLS = [BOXES[0], *(pytest.param(*b.values, id=b.id, marks=[*b.marks, pytest.mark.slow]) for b in BOXES[1:])]


@dataclass(frozen=True)
class Attack:
    name: str
    source: str
    ways: frozenset[str]
    box: frozenset[str]
    pool: frozenset[str]


def attacks() -> list[Attack]:
    found = []
    for path in sorted(FOLDER.glob("*.py")):
        head = dict(re.findall(r"^# (\w+): (.*)$", path.read_text(), re.MULTILINE))
        words = {key: frozenset(head.get(key, "").split()) for key in ("ways", "box", "pool")}
        assert "tries" in head
        found.append(Attack(path.stem, path.read_text(), **words))
    return found


ATTACKS = attacks()


@dataclass
class Target:
    """What the attacks are aimed at: files, a secret, a server and a service of the parent."""

    folder: Path
    port: int

    def aimed(self, attack: Attack) -> str:
        places = {
            "@SECRET_FILE@": str(self.folder / "secret.txt"),
            "@FOLDER@": str(self.folder),
            "@PARENT@": str(os.getpid()),
            "@PORT@": str(self.port),
            "@SECRET@": SECRET,
            "@PACKAGE@": str(Path(ratchet.sandbox.__file__).parent),
        }
        source = attack.source
        for name, value in places.items():
            source = source.replace(name, value)
        return source


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """A secret in a file and in the environment, a server and two local services; then nothing may have changed."""
    (tmp_path / "secret.txt").write_text(SECRET)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    monkeypatch.setenv("RATCHET_SECRET", SECRET)
    before = machine()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as service:
        service.bind(os.path.relpath(tmp_path / "service"))
        service.listen()
        with socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind("\0ratchet-service")
            abstract.listen()
            yield Target(tmp_path, server.getsockname()[1])
    assert machine() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["secret.txt", "service"]
    assert not survivors()


def machine() -> dict[str, object]:
    """Return what must be the same afterwards."""
    places = ("/", "/tmp", "/dev/shm", "/var/tmp", "/usr", "/usr/lib", "/etc", "/root", "/dev", "/run", os.getcwd(),
              os.path.dirname(os.__file__))  # fmt: skip
    names = {p: sorted(n for n in os.listdir(p) if "ratchet-escaped" in n) for p in places if os.access(p, os.R_OK)}
    return {
        "files": names,
        # Other tests of this machine may mount things in folders of their own meanwhile.
        "mounts": [m for m in Path("/proc/self/mountinfo").read_text().splitlines() if "pytest-of" not in m],
        "groups": own_groups(),
        "own folders": own_boxes(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def own_boxes() -> list[str]:
    folder = Path(f"/tmp/ratchet-box-{os.getuid()}")
    return [path.name for path in folder.glob(f"{os.getpid()}-*")]


def own_groups() -> list[str]:
    """Return control groups of this process; others come and go meanwhile, even while one looks."""
    found = []
    for here, folders, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(here, name) for name in folders if name.startswith(f"ratchet-{os.getpid()}-")]
    return found


def survivors() -> list[str]:
    """Return processes that belong to a jail of this process: by its user numbers, or as a descendant that is left."""
    low = 1_900_000_000 + os.getpid() % 1000 * 50_000
    found = []
    for name in os.listdir("/proc"):
        try:
            if not name.isdigit():
                continue
            text = Path(f"/proc/{name}/stat").read_text()
            child = text.rpartition(")")[2].split()[1] == str(os.getpid()) and "jail.py" in _command(name)
            if text.rpartition(")")[2].split()[0] == "Z":  # dead, and its parent's to bury
                continue
            if low <= os.stat(f"/proc/{name}").st_uid < low + 50_000 or child:
                found.append(text)
        except OSError:
            continue
    return found


def _command(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")


def wrong_in_box(attack: Attack, result: BoxResult) -> str:
    if "ESCAPED" in result.output:
        return result.output
    if attack.box and result.hit.value not in attack.box:
        return f"hit {result.hit}, exit {result.exit_code}, signal {result.signal}: {result.output[-300:]}"
    return "" if result.seconds < LIMITS.wall_s + 4 else f"took {result.seconds} s"


@pytest.mark.parametrize("make", BOXES)
def test_no_attack_gets_out_of_a_box_or_outlives_it(
    make: Callable[[], BubblewrapBox | LinuxBox], target: Target
) -> None:
    async def run() -> dict[str, str]:
        box, places = make(), asyncio.Semaphore(6)

        async def one(attack: Attack) -> str:
            async with places:
                result = await box.run({"attack.py": target.aimed(attack)}, ["python3.11", "attack.py"], LIMITS)
            return wrong_in_box(attack, result)

        chosen = [a for a in ATTACKS if "box" in a.ways]
        said = await asyncio.gather(*(one(a) for a in chosen))
        box.close()
        return {a.name: text for a, text in zip(chosen, said, strict=True) if text}

    assert asyncio.run(run()) == {}


async def in_pool(
    make: Callable[[], BubblewrapBox | LinuxBox], programs: dict[tuple[str, str], Program]
) -> dict[tuple[str, str], CheckResult]:
    box = make()
    async with CheckPool(SandboxSection(workers=4), box) as pool:
        results = await asyncio.gather(*(pool.check(p) for p in programs.values()))
        sound = await pool.check(Program(FIXED, TRUSTED))
        assert sound.outcome is Outcome.PASSED, "the pool still works"
    box.close()
    return dict(zip(programs, results, strict=True))


@pytest.mark.parametrize("make", POOLS)
def test_no_test_escapes_or_is_taken_to_reproduce_a_bug_it_did_not_find(
    make: Callable[[], BubblewrapBox | LinuxBox], target: Target
) -> None:
    programs = {
        (attack.name, version): Program(module, target.aimed(attack), How.SCRIPT, limits=LIMITS)
        for attack in ATTACKS
        if "test" in attack.ways
        for version, module in (("buggy", BUGGY), ("fixed", FIXED))
    }
    results = asyncio.run(in_pool(make, programs))
    wrong = {}
    for attack in (a for a in ATTACKS if "test" in a.ways):
        buggy, fixed = results[attack.name, "buggy"], results[attack.name, "fixed"]
        if buggy.outcome in (Outcome.ASSERTION, Outcome.EXPECTED) and fixed.outcome is Outcome.PASSED:
            wrong[attack.name] = f"FORGED: {buggy} {fixed}"
        for result in (buggy, fixed):
            if "ESCAPED" in result.output or (attack.pool and result.outcome.value not in attack.pool):
                wrong[attack.name] = f"{result}"
    assert wrong == {}


@pytest.mark.parametrize(
    ("how", "may_read"),
    [
        pytest.param(How.FUNCTIONS, True, id="read"),
        pytest.param(How.FUNCTIONS, False, id="run"),
        pytest.param(How.PYTEST, False, id="pytest"),
    ],
)
@pytest.mark.parametrize("make", POOLS)
def test_no_module_escapes_or_passes_a_test_that_it_fails(
    make: Callable[[], BubblewrapBox | LinuxBox], how: How, may_read: bool, target: Target
) -> None:
    programs = {
        (attack.name, "module"): Program(target.aimed(attack), TRUSTED, how, may_read=may_read, limits=LIMITS)
        for attack in ATTACKS
        # Under pytest those are enough that are about what the test sees.
        if "module" in attack.ways and (how is How.FUNCTIONS or "box" not in attack.ways)
    }
    results = asyncio.run(in_pool(make, programs))
    passed = {name: r for (name, _), r in results.items() if r.outcome is Outcome.PASSED or "ESCAPED" in r.output}
    assert passed == {}


def test_the_suite_is_as_large_as_was_promised() -> None:
    assert len(ATTACKS) >= 40
