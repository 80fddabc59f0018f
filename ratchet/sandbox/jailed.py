"""Starts a jail, whatever makes its walls, and talks to the code inside. Shared by bubblewrap and the fallback.

Owns the processes on this side: each jail is a session of its own whose first process is killed at the end, and dies
with us; the kernel then kills the rest of its pid namespace.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import signal
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from ratchet.core.errors import ConfigError, RunError
from ratchet.sandbox import cgroup, seccomp
from ratchet.sandbox.box import BoxResult, LimitHit, Limits
from ratchet.sandbox.inside import frame, kernel
from ratchet.sandbox.view import HOME, INSIDE, View

_GRACE_S = 5.0
"""How long the inside may take beyond its own deadline before everything is killed from here."""

_ORDERLY_S = 1.0
"""How long the inside may take to kill what it started and end by itself, before it is killed from here."""

_USERS = itertools.cycle(range(50_000))


@dataclass(frozen=True, slots=True)
class Walls:
    """How a back end makes a jail, and what holds in it."""

    command: tuple[str, ...]
    """What starts the code inside; the number of the control socket is appended."""
    layers: tuple[str, ...]
    scratch: str
    """The scratch folder as it is named inside."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that the code inside must still make."""
    root: str = ""
    """An empty folder to make the new root on, if "mount" is among them."""
    mounted: bool = True
    """Whether the root is one of its own; without, `scratch` is a folder on disk."""
    pid_namespace: bool = True
    landlock: bool = True
    seccomp: bool = True
    cgroup: bool = True
    counted: bool = True
    drop_user: bool = True
    nest: bool = True


def fresh_user() -> int | None:
    """Return a user number that owns nothing here, if we may become anyone; the kernel then counts its processes."""
    if os.getuid() != 0:
        return None
    return 1_900_000_000 + os.getpid() % 1000 * 50_000 + next(_USERS)


@cache
def beside() -> tuple[str, ...]:
    """Return which of the layers that stand beside the namespaces this machine has."""
    found = []
    if version := kernel.landlock_version():
        found.append(f"Landlock {version}")
    if seccomp.program():
        found.append("seccomp")
    if (group := cgroup.open_group("probe")) is not None:
        group.kill()
        found.append("cgroup")
    return tuple(found)


def spec_of(walls: Walls, view: View, **more: object) -> dict[str, object]:
    """Return the first message to the inside."""
    uid = fresh_user() if walls.drop_user else None
    home = f"{HOME}/ratchet/sandbox/inside" if walls.mounted else str(INSIDE)
    readable = [*view.readable, home]
    return {
        "namespaces": list(walls.namespaces),
        "root": walls.root,
        "home": home,
        "binds": [list(pair) for pair in view.binds],
        "links": [list(pair) for pair in view.links],
        "uid": uid,
        "scratch": walls.scratch,
        "readable": [*readable, "/proc", "/dev"] if walls.pid_namespace else [*readable, "/dev/null", "/dev/urandom"],
        "writable": [walls.scratch, "/dev/null"],
        "landlock": walls.landlock,
        "seccomp": seccomp.program(addresses=walls.mounted).hex() if walls.seccomp else "",
        "seccomp_of_worker": seccomp.program(worker=True).hex() if walls.seccomp else "",
        "counted": walls.counted,
        "pid_namespace": walls.pid_namespace,
        "nest": walls.nest,
        "environment": view.environment(walls.scratch),
        "site": list(view.site),
        **more,
    }


def limits_spec(limits: Limits) -> dict[str, float]:
    """Return limits as the inside reads them."""
    return {name: getattr(limits, name) for name in Limits.__slots__}


class Jail:
    """A running jail and the socket to the code in it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket, printed: Printed) -> None:
        self.process, self.channel, self._printed = process, channel, printed
        self.group: cgroup.Group | None = None
        self.words = "without a word"
        """The last line that a lost jail printed."""

    @staticmethod
    async def start(walls: Walls, memory_bytes: int, processes: int) -> Jail:
        """Start the code inside; it waits for its first message.

        **Raises**: `RunError` if the program that makes the walls cannot be started.
        """
        printed = await Printed.open()
        ours, theirs = socket.socketpair()
        jail = None
        try:
            process = await asyncio.create_subprocess_exec(
                *walls.command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=printed.write_end,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={"PATH": "/usr/bin:/bin"},
                cwd="/",
            )
            jail = Jail(process, ours, printed)
        except OSError as error:
            raise RunError(f"A box could not be started: {error}. Try another sandbox.backend.") from error
        finally:
            theirs.close()
            os.close(printed.write_end)
            if jail is None:  # or cancelled: asyncio then kills what it may have started
                ours.close()
                printed.close()
        ours.setblocking(False)
        jail.group = cgroup.open_group(str(process.pid)) if walls.cgroup else None
        if jail.group is not None:
            jail.group.limit(memory_bytes, processes)
            jail.group.add(process.pid)
        return jail

    async def read(self) -> bytes:
        """Return some of what is printed inside; empty at the end, when nobody holds the pipe any more."""
        return await self._printed.reader.read(1 << 16)

    async def send(self, message: dict[str, object]) -> None:
        await asyncio.get_running_loop().sock_sendall(self.channel, frame.pack(message))

    async def receive(self) -> dict[str, object] | None:
        """Return the next message, or None if the jail has gone."""
        head = await self._exactly(4)
        if head is None:
            return None
        (length,) = struct.unpack("!I", head)
        body = await self._exactly(length) if length <= frame.LARGEST else None
        value = frame.unpack(body) if body else None
        return value if isinstance(value, dict) else None

    async def _exactly(self, length: int) -> bytes | None:
        loop, parts = asyncio.get_running_loop(), []
        while length:
            try:
                part = await loop.sock_recv(self.channel, length)
            except ConnectionError:
                return None
            if not part:
                return None
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def kill(self) -> None:
        """Kill everything in the jail; returns before the kernel is done. May be called twice."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Let the inside kill all it started, and end."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    async def end(self) -> None:
        """Kill everything in the jail and wait until it is gone, its control group too."""
        self.channel.close()  # at which the inside ends by itself, so that each process is waited for by its parent
        try:
            async with asyncio.timeout(_ORDERLY_S):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()
        if self.group is not None:
            await asyncio.to_thread(self.group.kill)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                while part := await self.read():
                    self.words = part.decode("utf-8", "replace").strip().rpartition("\n")[2] or self.words
        self._printed.close()
        for _ in range(3):  # asyncio closes its side of the process in the turns after
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Printed:
    """A pipe of our own for what is printed: until one of asyncio's has ended, its process is not taken for ended."""

    reader: asyncio.StreamReader
    write_end: int
    transport: asyncio.ReadTransport

    @staticmethod
    async def open() -> Printed:
        read_end, write_end = os.pipe()
        reader = asyncio.StreamReader()
        with ExitStack() as held:
            pipe = held.enter_context(os.fdopen(read_end, "rb", buffering=0))
            held.callback(os.close, write_end)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
            held.pop_all()
            return Printed(reader, write_end, transport)

    def close(self) -> None:
        self.transport.close()


def inside_paths(files: Mapping[str, str | bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield files as relative paths and bytes. **Raises**: `ConfigError` if a path leaves the scratch folder."""
    for name, content in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ConfigError(f'The file "{name}" would lie outside the box. Give paths relative to its folder.')
        yield str(path), content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content


async def run_in(walls: Walls, view: View, files: Mapping[str, str | bytes], command: Sequence[str], limits: Limits,
                 layers: tuple[str, ...]) -> BoxResult:  # fmt: skip
    """Return what became of a command in a jail of its own."""
    packed = [[path, base64.b64encode(data).decode()] for path, data in inside_paths(files)]
    spec = spec_of(walls, view, mode="command", files=packed, command=list(command),
                   limits=limits_spec(limits), scratch_bytes=limits.scratch_bytes)  # fmt: skip
    # The jail's own three processes and their memory come on top.
    jail = await Jail.start(walls, limits.memory_bytes + (64 << 20), limits.processes + 8)
    output = _Output(limits.output_bytes)
    try:
        async with asyncio.timeout(limits.wall_s + _GRACE_S):
            reading = asyncio.ensure_future(output.read(jail))
            try:
                await jail.send(spec)
                report = await jail.receive()
                await reading
            except ConnectionError:
                report = None
            finally:
                reading.cancel()
    except TimeoutError:
        report = {"hit": "wall", "seconds": limits.wall_s + _GRACE_S}
    finally:
        group = jail.group
        killed = group is not None and group.out_of_memory
        refused = group is not None and group.out_of_processes
        peak = group.peak_bytes if group is not None else 0
        await asyncio.shield(jail.end())
    if report is None and not output.full:
        if not killed:
            raise RunError(f"A box could not be made: {output.text.strip() or 'it ended at once'}.")
        report = {"status": -9}
    return _result(report or {}, output, limits, peak, killed, refused, layers)


class _Output:
    def __init__(self, most: int) -> None:
        self._most, self._data = most, bytearray()
        self.full = False

    async def read(self, jail: Jail) -> None:
        """Read until the end; past the limit the jail is killed."""
        while part := await jail.read():
            self._data += part[: self._most - len(self._data) + 1]
            if len(self._data) > self._most:
                self.full = True
                jail.hang_up()
                return

    @property
    def text(self) -> str:
        return bytes(self._data[: self._most]).decode("utf-8", "replace")


def _result(report: Mapping[str, object], output: _Output, limits: Limits, peak: int, killed: bool, refused: bool,
            layers: tuple[str, ...]) -> BoxResult:  # fmt: skip
    status = report.get("status")
    code = status if isinstance(status, int) else -signal.SIGKILL
    seconds, cpu, used = (float(str(report.get(name, 0.0))) for name in ("seconds", "cpu", "peak"))
    peak = max(peak, int(used))
    hit = LimitHit.NONE
    if output.full:
        hit, code = LimitHit.OUTPUT, -signal.SIGKILL
    elif report.get("hit") == "wall":
        hit = LimitHit.WALL
    elif killed or (code and output.text.rstrip().rpartition("\n")[2].startswith("MemoryError")):
        hit = LimitHit.MEMORY
    elif -code == signal.SIGXCPU or (-code == signal.SIGKILL and cpu >= limits.cpu_s):
        hit = LimitHit.CPU
    elif -code == signal.SIGXFSZ:
        hit = LimitHit.FILE
    elif code and refused:
        hit = LimitHit.PROCESSES
    return BoxResult(
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        output=output.text,
        seconds=seconds,
        peak_bytes=peak,
        hit=hit,
        layers=layers,
    )


def inside_command(view: View, home: str | Path = HOME) -> tuple[str, ...]:
    """Return what starts the code inside, where `home` holds it."""
    return (view.python, "-I", "-S", "-B", f"{home}/ratchet/sandbox/inside/jail.py")
