"""The zygote: a process that does nothing but fork the processes of checks, each locked before its first line.

It parses nothing and holds no source, so nothing of one check is left for the next, and it writes to little memory, for
each page that it writes to after a fork must be copied. If this kernel allows it, each process of a check is the first
of its own pid namespace, so killing it kills all it started, and a test's process has a mount namespace with an empty
scratch folder in memory.

    worker -> zygote    b"M" or b"T", and the descriptors of the new process (see `roles`)
           <-           for a test: b"s" and a descriptor that is ready once the process has ended
    worker -> zygote    b"E": end all, or b"W": those that have not ended by themselves within a moment
           <-           what the kernel says of each, in the order they were started
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass

from ratchet.sandbox.inside import command, confine, kernel, namespaces, roles

MODULE, TEST, END, WAIT = b"M", b"T", b"E", b"W"
_CHANNEL, _RULES = 3, 4
"""Where a zygote has the way to its worker and the rules of Landlock, so that what it is given for a process comes to
lie where `roles` says."""
_BEYOND = 64
_ENDED = struct.Struct("=?iqd")
_CLOSING_S = 0.2
"""How long a process may take to end once it has let go of its channel."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What the kernel says about a process that is no more."""

    early: bool
    """Whether it ended before it was to be ended."""
    code: int
    """Exit code, or minus the signal."""
    peak: int
    cpu_s: float


class Zygote:
    """The worker's side."""

    def __init__(self, spec: dict[str, object]) -> None:
        """Fork the zygote. What this process has imported is what the processes of checks have at hand."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            try:
                _serve(spec, theirs.detach())
            finally:
                os._exit(1)
        theirs.close()
        self.nested = self._channel.recv(1) == b"1"
        """Whether each process has namespaces of its own."""

    def start(self, kind: bytes, fds: list[int]) -> None:
        """Start a process in the role `kind`."""
        socket.send_fds(self._channel, [kind], fds)

    def ended(self) -> int:
        """Return a descriptor that is ready once the test that was started last has ended."""
        _, (ended,), _, _ = socket.recv_fds(self._channel, 1, 1)
        return int(ended)

    def end(self, wait: bool = False) -> list[Ended]:
        """Kill every process with all it started and wait until they are gone; `wait` lets them end first, a moment."""
        self._channel.send(WAIT if wait else END)
        return [Ended(*values) for values in _ENDED.iter_unpack(self._channel.recv(256))]


def _serve(spec: dict[str, object], channel: int) -> None:
    kernel.die_with_parent()
    kernel.adopt_orphans()  # is not inherited
    lock, scratch = confine.Lock(spec), str(spec["scratch"])
    os.dup2(channel, _CHANNEL, inheritable=False)
    lock.keep_rules_at(_RULES)
    os.closerange(roles.OUT, 1024)
    if nested := _nest() if spec["nest"] else False:
        lock.begin()
        scratch = _below(scratch)
    os.write(_CHANNEL, b"1" if nested else b"0")
    nursery = _Nursery(lock, nested, scratch)
    size = array.array("i").itemsize
    with socket.socket(fileno=_CHANNEL) as ours:
        while True:
            data, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4 * size), socket.MSG_CMSG_CLOEXEC)
            if not data:
                return
            if data in (END, WAIT):
                ours.send(nursery.end(wait=data == WAIT))
                continue
            fds = array.array("i", ancillary[0][2])
            pid = nursery.start(data)
            for fd in fds:
                os.close(fd)
            if data == TEST:
                ended = os.pidfd_open(pid)
                socket.send_fds(ours, [b"s"], [ended])
                os.close(ended)


def _nest() -> bool:
    """Become the first process of a pid namespace that this process may make others below; False if refused."""
    try:
        namespaces.unshare_as_self(kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS)
    except OSError:
        return False
    if pid := os.fork():
        os.closerange(0, 64)
        os.waitpid(pid, 0)
        os._exit(0)
    kernel.die_with_parent()
    kernel.hide_memory()
    return True


def _below(scratch: str) -> str:
    """Return where each check gets an empty folder mounted; what lies around it cannot be written any more.

    Nothing of the machine is to be read in /proc either: a check has no business there, and no way to tell runs apart.
    """
    place, quiet = f"{scratch}/box", kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    os.mkdir(place)
    kernel.mount("none", scratch, None, kernel.MS_REMOUNT | kernel.MS_BIND | quiet)
    kernel.mount("none", "/proc", "tmpfs", quiet, "size=4k,mode=0555")
    return place


class _Nursery:
    """Forks and buries."""

    def __init__(self, lock: confine.Lock, nested: bool, scratch: str) -> None:
        self._lock, self._nested, self._scratch = lock, nested, scratch
        myself = os.pidfd_open(os.getpid())
        self._self = fcntl.fcntl(myself, fcntl.F_DUPFD_CLOEXEC, _BEYOND)
        os.close(myself)
        self._alive: list[int] = []

    def start(self, kind: bytes) -> int:
        """Fork a process, whose descriptors lie in their places by now; return its number."""
        if self._nested:
            kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            self._live(kind)
        if self._nested:
            kernel.join(self._self, kernel.CLONE_NEWPID)
        self._alive.append(pid)
        return pid

    def _live(self, kind: bytes) -> None:
        code = 98
        try:
            os.dup2(roles.OUT, 1)
            os.dup2(roles.OUT, 2)
            told = roles.told(roles.REPORT if kind == TEST else roles.LINK)
            if kind == TEST and self._nested:  # the module's process has nowhere to write
                kernel.unshare(kernel.CLONE_NEWNS)
                options = f"size={told['scratch_bytes']},nr_inodes=4096,mode=0700"
                kernel.mount("tmp", self._scratch, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
            os.chdir(self._scratch)
            confine.limit(told["bounds"], told["processes"], self._lock.counted)
            self._lock.apply()
            os.closerange(_CHANNEL, roles.LINK)
            os.closerange(roles.REPORT + (kind == TEST), 1024)
            roles.play_test(told) if kind == TEST else roles.play_module(told)
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(code)

    def end(self, wait: bool) -> bytes:
        """Kill all, wait until they are gone, and return what the kernel says of each."""
        if wait:
            self._give_a_moment()
        early = [os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None for pid in self._alive]
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
        said = b""
        for pid, before in zip(self._alive, early, strict=True):
            _, status, usage = os.wait4(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            said += _ENDED.pack(before, code, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)
        self._alive.clear()
        if not self._nested:
            command.kill_all(own=False)
            _empty(self._scratch)
        return said

    def _give_a_moment(self) -> None:
        until = time.monotonic() + _CLOSING_S
        for pid in self._alive:
            fd = os.pidfd_open(pid)
            select.select([fd], [], [], max(0.0, until - time.monotonic()))
            os.close(fd)


def _empty(folder: str) -> None:
    """Remove what a check without a mount of its own has left; links are not followed."""
    for here, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(here, name))
        for name in folders:
            path = os.path.join(here, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
