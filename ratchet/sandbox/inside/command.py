"""One command under limits: starts it, waits for it, kills all that is left, tells the outside what happened."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import signal
import time

from ratchet.sandbox.inside import confine, frame


def run(spec: dict[str, object], control: int) -> None:
    """Run the command of `spec` in the current folder and write one report to `control`."""
    files, argv, environment, limits = spec["files"], spec["command"], spec["environment"], spec["limits"]
    assert isinstance(files, list)
    assert isinstance(argv, list)
    assert isinstance(environment, dict)
    assert isinstance(limits, dict)
    for path, content in files:
        if folder := os.path.dirname(path):
            os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(content))
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(argv, environment, limits, confine.Lock(spec), control)
    hit = "none" if _ended(pid, control, limits["wall_s"]) else "wall"
    if hit != "none":
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    kill_all(own=bool(spec["pid_namespace"]))
    report = {"status": os.waitstatus_to_exitcode(status), "hit": hit, "seconds": seconds}
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        frame.write(control, {**report, "peak": usage.ru_maxrss * 1024, "cpu": usage.ru_utime + usage.ru_stime})


def _become(
    argv: list[str], environment: dict[str, str], limits: dict[str, float], lock: confine.Lock, control: int
) -> None:
    try:
        os.close(control)
        os.setsid()
        confine.limit(confine.bounds(limits), int(limits["processes"]) + 3, lock.counted)
        lock.apply()
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror or error}\n".encode())
    finally:
        os._exit(127)


def _ended(pid: int, control: int, seconds: float) -> bool:
    """Wait until the process has ended, the time is up, or the outside has hung up; return whether it was the first."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    fd = os.pidfd_open(pid)
    poll.register(fd, select.POLLIN)
    ready = dict(poll.poll(seconds * 1000))
    os.close(fd)
    return fd in ready


def kill_all(own: bool) -> None:
    """Kill every process of the jail but this one, and wait until all are gone.

    With a pid namespace of our own one call reaches all. Without, this process adopts whatever loses its parent, and
    its descendants are stopped until there are no new ones, so that a bomb cannot outrun the killing.
    """
    while True:
        if own:
            _signal(-1, signal.SIGKILL)
        else:
            stopped: set[int] = set()
            while new := set(_descendants(os.getpid())) - stopped:
                for pid in new:
                    _signal(pid, signal.SIGSTOP)
                stopped |= new
            for pid in stopped:
                _signal(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in map(int, file.read().split()):
                    found += [child, *_descendants(child)]
    except OSError:  # it ended meanwhile
        pass
    return found
