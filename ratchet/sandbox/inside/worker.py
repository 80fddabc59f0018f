"""A warm worker: judges checks one after the other, in processes that its zygote forks.

Runs no stranger's code. What it says about a check comes from the kernel (who ended how, and when) and from one report:
that of the test's process, or its own for a plain test, which needs no process. It never asks the module's process
anything but values, and never waits beyond a check's deadline, however nonsensical the answer.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from ratchet.sandbox.inside import confine, frame, roles
from ratchet.sandbox.inside.remote import Client
from ratchet.sandbox.inside.verdict import CompileError, Judge
from ratchet.sandbox.inside.zygote import MODULE, TEST, Ended, Zygote

if TYPE_CHECKING:
    from ratchet.sandbox.inside import plain

Header = dict[str, object]
_LARGEST_REPORT = 1 << 16
_LONGEST_READ = 20_000
"""Characters of a test that is still read; a longer one is run."""


def serve(spec: dict[str, object], control: int) -> None:
    """Answer checks until the outside closes `control`."""
    os.environ.clear()
    environment, site, warm = spec["environment"], spec["site"], spec["warm"]
    assert isinstance(environment, dict)
    assert isinstance(site, list)
    assert isinstance(warm, list)
    os.environ.update(environment)
    sys.path += [path for path in site if path not in sys.path]
    _import_random()
    for name in warm:
        importlib.import_module(name)
    if "pytest" in warm:
        importlib.import_module("ratchet.sandbox.inside.suite").warm()
    roles.rehearse()
    gc.collect()
    gc.freeze()
    zygote = Zygote(spec)
    worker = _Worker(zygote, control)
    warnings.simplefilter("ignore")  # about tests that are read
    lock = confine.Lock(spec)
    lock.apply()
    layers = ["pid namespace per check", "mount namespace per check"] if zygote.nested else []
    frame.write(control, {"ready": True, "layers": layers})
    while isinstance(header := frame.read(control), dict):
        frame.write(control, worker.check(header))


def _import_random() -> None:
    """Import it without what makes every fork slower: OpenSSL, and reseeding after it; all shall draw the same."""
    sys.modules["_hashlib"] = None  # type: ignore[assignment]
    at_fork, os.register_at_fork = os.register_at_fork, lambda **_: None
    importlib.import_module("random").seed(0)
    os.register_at_fork = at_fork
    del sys.modules["_hashlib"]


@dataclass
class _Watch:
    """One check as the worker sees it."""

    limits: dict[str, float]
    started: float
    control: int
    """Ready when the outside has hung up."""
    out: int
    """Where the check prints."""
    output: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)
    hit: str = "none"

    @property
    def left_s(self) -> float:
        return self.started + self.limits["wall_s"] - time.monotonic()

    def until(self, ready: int, report: int = -1) -> None:
        """Take what comes until `ready` is, a limit is hit, or the outside hangs up."""
        poll = select.poll()
        for fd in (ready, self.control, self.out, report):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        while True:
            left = self.left_s
            found = [fd for fd, _ in poll.poll(left * 1000)] if left > 0 else []
            if not found or self.control in found:
                self.hit = "wall"
                return
            if self.out in found and not self._take(self.out, self.output, int(self.limits["output_bytes"])):
                poll.unregister(self.out)
            if report in found and not self._take(report, self.report, _LARGEST_REPORT):
                poll.unregister(report)
            if len(self.output) > self.limits["output_bytes"]:
                self.hit = "output"
                return
            if ready in found:
                return

    def drain(self, report: int = -1) -> None:
        """Take what is left once all processes have ended."""
        for fd, into, most in ((self.out, self.output, int(self.limits["output_bytes"])),
                               (report, self.report, _LARGEST_REPORT)):  # fmt: skip
            if fd >= 0:
                while self._take(fd, into, most) and select.select([fd], [], [], 0)[0]:
                    pass

    @staticmethod
    def _take(fd: int, into: bytearray, most: int) -> bool:
        """Read what is there; False at the end of the stream."""
        try:
            part = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        into += part[: most + 1 - len(into)]
        return bool(part)


class _Gone(BaseException):
    """The module's process has ended, is out of time, or talks nonsense."""


class _Worker:
    def __init__(self, zygote: Zygote, control: int) -> None:
        self._zygote, self._control = zygote, control
        self._bounds: tuple[dict[str, float], confine.Bounds] = ({}, ())

    def check(self, header: Header) -> Header:
        """Return what became of one check."""
        limits, test, module = header["limits"], str(header.pop("test")), str(header.pop("module"))
        assert isinstance(limits, dict)
        if limits != self._bounds[0]:
            self._bounds = limits, confine.bounds(limits)
        # The jail's own, which have the same user: worker, zygote, their parents, and the other role.
        header |= {"bounds": self._bounds[1], "processes": int(limits["processes"]) + 4}
        started = time.monotonic()
        out, out_w = os.pipe()
        os.set_blocking(out, False)
        watch = _Watch(limits, started, self._control, out)
        try:
            plain_test = _plain(header, test)
            if plain_test is None:
                answer = self._run(header, test, module, out_w, watch)
            else:
                answer = self._judge(header, plain_test, module, out_w, watch)
        except CompileError as error:
            answer = Judge((), "", None).told(error)
        os.close(out_w)
        os.close(out)
        output = bytes(watch.output[: int(limits["output_bytes"])]).decode("utf-8", "replace")
        return {"peak": 0, **answer, "output": output, "seconds": time.monotonic() - started}

    def _judge(self, header: Header, test: plain.PlainTest, source: str, out: int, watch: _Watch) -> Header:
        """Judge a plain test, with the module in a process of its own."""
        from ratchet.sandbox.inside import plain

        link = self._module(header, out, source, watch)
        expected = header["expected"]
        assert isinstance(expected, list)

        def lost(how: str) -> NoReturn:
            raise _Gone(how)

        def wait() -> None:
            watch.until(link.fileno())
            if watch.hit != "none":
                lost(watch.hit)

        client = Client(link.fileno(), lost, wait)
        judge, reading = Judge(expected, "", client), plain.Reading(test, client)
        gone = False
        try:
            answer = judge.told(None, reading.run())
        except _Gone:
            gone, answer = True, {"outcome": "module_gone"}
        except BaseException as error:
            answer = judge.told(error, line=reading.line)
        if watch.hit == "none" and watch.left_s <= 0:
            watch.hit = "wall"
        link.close()
        (module,) = self._zygote.end(wait=gone and watch.hit == "none")
        watch.drain()
        return {**(self._cut_short(watch, None, module) or _named(answer)), "peak": module.peak}

    def _run(self, header: Header, test: str, source: str, out: int, watch: _Watch) -> Header:
        """Run a test in a process, and its module in another if they are to be apart."""
        report, far = socket.socketpair()
        nonce, apart = os.urandom(16).hex(), bool(header["apart"])
        # Without a process of the module the place of the link is filled by something else.
        link = self._module(header, out, source, watch) if apart else far.dup()
        self._zygote.start(TEST, [out, link.fileno(), far.fileno()])
        far.close()
        link.close()
        ended = self._zygote.ended()
        _limit_time(report, watch)
        told = {name: header[name] for name in ("bounds", "processes", "name", "how", "expected")}
        told["scratch_bytes"] = int(watch.limits["scratch_bytes"])
        _tell(report, {**told, "nonce": nonce, "test": test, **({} if apart else {"module": source})})
        report.setblocking(False)
        watch.until(ended, report.fileno())
        tested = self._zygote.end(wait=apart and b'"module_gone"' in watch.report)
        watch.drain(report.fileno())
        report.close()
        os.close(ended)
        spoiled = self._cut_short(watch, tested[-1], tested[0] if apart else None)
        return {**(spoiled or _reported(watch.report, nonce)), "peak": max(one.peak for one in tested)}

    def _module(self, header: Header, out: int, source: str, watch: _Watch) -> socket.socket:
        """Start the module's process, tell it its source, and return the way to it."""
        far, near = socket.socketpair()
        self._zygote.start(MODULE, [out, far.fileno()])
        far.close()
        _limit_time(near, watch)
        _tell(
            near, {**{name: header[name] for name in ("bounds", "processes", "name", "entry_points")}, "module": source}
        )
        return near

    def _cut_short(self, watch: _Watch, test: Ended | None, module: Ended | None) -> Header | None:
        """Return the verdict on what ended otherwise than by a report; a module's end counts if it came first."""
        if watch.hit == "wall":
            return {"outcome": "timeout", "hit": "wall"}
        if watch.hit == "output":
            return {"outcome": "killed", "hit": "output"}
        if module is not None and module.early:
            return self._death(module, "the module under test ended its process", watch)
        return self._death(test, "the test ended its process", watch) if test and test.code != 0 else None

    def _death(self, ended: Ended, who: str, watch: _Watch) -> Header:
        if ended.code >= 0:
            return {"outcome": "exited", "detail": f"{who} with exit code {ended.code}"}
        if ended.cpu_s >= watch.limits["cpu_s"]:
            return {"outcome": "timeout", "hit": "cpu", "detail": f"{who}: out of CPU time"}
        if ended.code == -signal.SIGKILL and self._zygote.nested:
            # The first process of a pid namespace cannot be killed from within, so this was the kernel, for memory.
            return {"outcome": "memory", "hit": "memory", "detail": f"{who}: out of memory"}
        return {"outcome": "killed", "name": signal.Signals(-ended.code).name, "detail": who}


def _plain(header: Header, test: str) -> plain.PlainTest | None:
    """Return the test if it is plain and may be read. **Raises** `CompileError`."""
    if not header["may_read"] or not header["apart"] or header["how"] == "pytest" or len(test) > _LONGEST_READ:
        return None
    from ratchet.sandbox.inside import plain  # after the zygote was forked, which needs none of it

    return plain.read(test, str(header["name"]), str(header["how"]))


def _tell(channel: socket.socket, told: Header) -> None:
    with contextlib.suppress(OSError):  # it has ended before it could be told, or takes too long: that will be seen
        frame.write(channel.fileno(), told)


def _limit_time(channel: socket.socket, watch: _Watch) -> None:
    """Let no read or write of a channel block beyond the deadline, should the other side stop within a message."""
    left = max(watch.left_s, 0.01)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        channel.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(left), int(left % 1 * 1e6)))


def _reported(report: bytearray, nonce: str) -> Header:
    """Return what the test's process says, if it was the trusted code there that said it."""
    if not report:
        return {"outcome": "exited", "detail": "the test ended its process before its end"}
    try:
        said = frame.unpack(bytes(report[4:]))
    except frame.BadFrame:
        said = None
    if not isinstance(said, dict) or said.pop("nonce", None) != nonce:
        return {"outcome": "forged", "detail": "the report is not the trusted one"}
    return _named(said)


def _named(report: Header) -> Header:
    if report["outcome"] == "module_gone":
        return {"outcome": "exited", "detail": "the module under test left, or answered nonsense"}
    return report
