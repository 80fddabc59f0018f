"""A warm worker: has imported what tests need, and forks two fresh processes for every check.

Runs no stranger's code and never holds a stranger's source, so nothing of one check is left for the next. What it says
about a check comes from the kernel (who ended how, and when) and from one report of the test's process. If this kernel
allows it, each process of a check is the first of its own pid namespace, so killing it kills all it started, and has a
mount namespace with an empty scratch folder in memory.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ratchet.sandbox.inside import command, confine, frame, kernel, namespaces, roles

Header = dict[str, object]
_LARGEST_REPORT = 1 << 16


def serve(spec: dict[str, object], control: int) -> None:
    """Answer checks until the outside closes `control`."""
    os.environ.clear()
    environment, site, warm = spec["environment"], spec["site"], spec["warm"]
    assert isinstance(environment, dict)
    assert isinstance(site, list)
    assert isinstance(warm, list)
    os.environ.update(environment)
    sys.path += [path for path in site if path not in sys.path]
    scratch, lock = str(spec["scratch"]), confine.Lock(spec)
    if nested := _nest() if spec["nest"] else False:
        lock.begin()
        scratch = _below(scratch)
    # OpenSSL, which hashlib would load for random, makes every fork a tenth slower.
    sys.modules["_hashlib"] = None  # type: ignore[assignment]
    importlib.import_module("random")
    del sys.modules["_hashlib"]
    for name in warm:
        importlib.import_module(name)
    if "pytest" in warm:
        importlib.import_module("ratchet.sandbox.inside.suite").warm()
    worker = _Worker(lock, nested, bool(spec["pid_namespace"]), scratch, control)
    gc.collect()
    gc.freeze()
    layers = ["pid namespace per check", "mount namespace per check"] if nested else []
    frame.write(control, {"ready": True, "layers": layers})
    channel = socket.socket(fileno=control)
    while (request := _receive(channel)) is not None:
        header, fds = request
        answer = worker.check(header, fds)
        for fd in fds:
            os.close(fd)
        frame.write(control, answer)


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


def _receive(channel: socket.socket) -> tuple[Header, list[int]] | None:
    size = array.array("i").itemsize
    data, ancillary, _, _ = channel.recvmsg(1 << 16, socket.CMSG_SPACE(2 * size))
    if not data:
        return None
    fds = array.array("i")
    for _, _, content in ancillary:
        fds.frombytes(content[: len(content) - len(content) % size])
    header = frame.unpack(data[4:])
    assert isinstance(header, dict)
    return header, list(fds)


@dataclass
class _Ended:
    """What the kernel says about a process that is no more."""

    code: int
    """Exit code, or minus the signal."""
    peak: int
    cpu_s: float


@dataclass
class _Watch:
    """One check as the worker sees it."""

    output_bytes: int
    output: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)
    hit: str = "none"

    def take(self, fd: int, into: bytearray, most: int) -> bool:
        """Read what is there; False at the end of the stream."""
        try:
            part = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        into += part[: most + 1 - len(into)]
        return bool(part)


class _Worker:
    def __init__(self, lock: confine.Lock, nested: bool, own: bool, scratch: str, control: int) -> None:
        self._lock, self._nested, self._own, self._scratch = lock, nested, own, scratch
        self._control = control
        self._self = os.pidfd_open(os.getpid())

    def check(self, header: Header, fds: list[int]) -> Header:
        """Return what became of one check; `fds` are the sources of the test and of the module."""
        limits = header["limits"]
        assert isinstance(limits, dict)
        started = time.monotonic()
        out, out_w = _pipe()
        report, report_w = _pipe()
        apart, module = bool(header["apart"]), 0
        nonce = os.urandom(16).hex()
        far, near = socket.socketpair() if apart else (None, None)
        if far is not None and near is not None:
            kept = {roles.OUT: out_w, roles.RPC: far.fileno(), roles.SOURCE: fds[1]}
            module = self._spawn(lambda: roles.play_module(header), kept, limits)
            kept = {roles.OUT: out_w, roles.RPC: near.fileno(), roles.SOURCE: fds[0], roles.REPORT: report_w}
        else:
            kept = {roles.OUT: out_w, roles.SOURCE: fds[0], roles.REPORT: report_w, roles.MODULE: fds[1]}
        test = self._spawn(lambda: roles.play_test({**header, "nonce": nonce}), kept, limits)
        for end in (far, near):
            if end is not None:
                end.close()
        os.close(out_w)
        os.close(report_w)
        watch = _Watch(int(limits["output_bytes"]))
        self._watch(watch, test, out, report, started + limits["wall_s"])
        early = module and os.waitid(os.P_PID, module, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        tested, moduled = self._end(test), self._end(module) if module else None
        if not self._nested:
            command.kill_all(self._own)
            _empty(self._scratch)
        for fd, into, most in ((out, watch.output, watch.output_bytes), (report, watch.report, _LARGEST_REPORT)):
            while watch.take(fd, into, most) and select.select([fd], [], [], 0)[0]:
                pass
            os.close(fd)
        answer = _outcome(watch, tested, moduled if early else None, nonce, limits["cpu_s"], self._nested)
        peak = max(tested.peak, moduled.peak if moduled else 0)
        output = bytes(watch.output[: watch.output_bytes]).decode("utf-8", "replace")
        return {**answer, "output": output, "seconds": time.monotonic() - started, "peak": peak}

    def _spawn(self, play: Callable[[], None], kept: dict[int, int], limits: dict[str, float]) -> int:
        if self._nested:
            kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            code = 98
            try:
                self._enter(kept, limits)
                play()
                code = 0
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
            finally:
                os._exit(code)
        if self._nested:
            kernel.join(self._self, kernel.CLONE_NEWPID)
        return pid

    def _enter(self, kept: dict[int, int], limits: dict[str, float]) -> None:
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in kept.values()]  # beyond every place
        for place, fd in zip(kept, moved, strict=True):
            os.dup2(fd, place, inheritable=False)
        os.dup2(roles.OUT, 1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if self._nested and roles.REPORT in kept:  # the module's process has nowhere to write
            size = int(limits["scratch_bytes"])
            kernel.unshare(kernel.CLONE_NEWNS)
            options = f"size={size},nr_inodes=4096,mode=0700"
            kernel.mount("tmp", self._scratch, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
        os.chdir(self._scratch)
        confine.limit(limits, self._lock.counted, beside=4)
        self._lock.apply()
        for fd in range(3, 7):
            if fd not in kept:
                _close(fd)
        os.closerange(7, 1024)

    def _watch(self, watch: _Watch, test: int, out: int, report: int, deadline: float) -> None:
        ended = os.pidfd_open(test)
        poll = select.poll()
        for fd in (ended, out, report, self._control):
            poll.register(fd, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            ready = [fd for fd, _ in poll.poll(max(0.0, left * 1000))] if left > 0 else []
            if not ready or self._control in ready:  # the time is up, or the outside has hung up
                watch.hit = "wall"
                break
            if out in ready and not watch.take(out, watch.output, watch.output_bytes):
                poll.unregister(out)
            if report in ready and not watch.take(report, watch.report, _LARGEST_REPORT):
                poll.unregister(report)
            if len(watch.output) > watch.output_bytes:
                watch.hit = "output"
                break
            if ended in ready:
                break
        os.close(ended)

    @staticmethod
    def _end(pid: int) -> _Ended:
        """Kill a process of the check with all it started, and wait until they are gone."""
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        return _Ended(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)


def _empty(folder: str) -> None:
    """Remove what a check without a mount of its own has left; links are not followed."""
    for here, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(here, name))
        for name in folders:
            path = os.path.join(here, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)


def _pipe() -> tuple[int, int]:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    return ours, theirs


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):  # it was not open
        os.close(fd)


def _outcome(watch: _Watch, test: _Ended, module: _Ended | None, nonce: str, cpu_s: float, nested: bool) -> Header:
    """Return the verdict; `module` is given only if the module's process ended before the test's did."""
    if watch.hit == "wall":
        return {"outcome": "timeout", "hit": "wall"}
    if watch.hit == "output":
        return {"outcome": "killed", "hit": "output"}
    if module is not None:
        return _death(module, "the module under test ended its process", cpu_s, nested)
    if test.code != 0:
        return _death(test, "the test ended its process", cpu_s, nested)
    try:
        report = frame.unpack(bytes(watch.report[4:]))
    except frame.BadFrame:
        report = None
    if not watch.report:
        return {"outcome": "exited", "detail": "the test ended its process before its end"}
    if not isinstance(report, dict) or report.pop("nonce", None) != nonce:
        return {"outcome": "forged", "detail": "the report is not the trusted one"}
    if report["outcome"] == "module_gone":
        return {"outcome": "exited", "detail": "the module under test left, or answered nonsense"}
    return report


def _death(ended: _Ended, who: str, cpu_s: float, nested: bool) -> Header:
    if ended.code >= 0:
        return {"outcome": "exited", "detail": f"{who} with exit code {ended.code}"}
    if ended.cpu_s >= cpu_s:
        return {"outcome": "timeout", "hit": "cpu", "detail": f"{who}: out of CPU time"}
    if ended.code == -signal.SIGKILL and nested:
        # The first process of a pid namespace cannot be killed from within, so this was the kernel, for memory.
        return {"outcome": "memory", "hit": "memory", "detail": f"{who}: out of memory"}
    return {"outcome": "killed", "name": signal.Signals(-ended.code).name, "detail": who}
