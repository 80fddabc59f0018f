"""What every untrusted process passes through before its first instruction: limits, Landlock, no rights, no calls.

Owns the order of these steps. Each layer that this kernel refuses is left out, and the caller is told what is in force.
"""

from __future__ import annotations

import fcntl
import os
import resource
from math import ceil

from ratchet.sandbox.inside import kernel


class Lock:
    """What every untrusted process is locked with; prepared once, applied in each."""

    def __init__(self, spec: dict[str, object]) -> None:
        readable, writable = spec["readable"], spec["writable"]
        assert isinstance(readable, list)
        assert isinstance(writable, list)
        self._rules = -1
        if spec["landlock"] and (rules := kernel.ruleset(readable, writable)) >= 0:
            self._rules = fcntl.fcntl(rules, fcntl.F_DUPFD_CLOEXEC, 64)  # out of the way of the places of a role
            os.close(rules)
        self._program = bytes.fromhex(str(spec["seccomp"]))
        self._lenient = bytes.fromhex(str(spec["seccomp_of_worker"]))
        self.counted = bool(spec["counted"])
        """Whether this user owns nothing but the jail, so that the kernel's count of its processes is ours."""

    def begin(self) -> None:
        """Apply now, to a worker, what it can itself live with, so that each of its processes has it already.

        A worker makes namespaces and mounts. That its processes do not is held by their having no capabilities, and
        by the number of user namespaces allowed below the worker's being none.
        """
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
        kernel.no_new_privileges()
        if self._lenient:
            kernel.filter_calls(self._lenient)
            self._program = b""

    def apply(self) -> None:
        """Give up every right, for this process and all it will start."""
        kernel.no_new_privileges()
        if self._rules >= 0:
            kernel.restrict(self._rules)
        kernel.drop_capabilities()
        if self._program:
            kernel.filter_calls(self._program)


def limit(limits: dict[str, float], counted: bool, beside: int = 0) -> None:
    """Set the kernel's limits; `beside` processes of the same user, the jail's own, are not counted."""
    cpu = ceil(limits["cpu_s"])
    _set(resource.RLIMIT_CPU, cpu, cpu + 1)
    _set(resource.RLIMIT_AS, int(limits["memory_bytes"]))
    _set(resource.RLIMIT_FSIZE, int(limits["file_bytes"]))
    _set(resource.RLIMIT_NOFILE, int(limits["open_files"]))
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MEMLOCK, 0)
    _set(resource.RLIMIT_MSGQUEUE, 0)
    processes = int(limits["processes"]) + beside + (0 if counted else _threads_of_this_user())
    _set(resource.RLIMIT_NPROC, processes)


def _set(which: int, soft: int, hard: int | None = None) -> None:
    _, most = resource.getrlimit(which)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(soft if hard is None else hard, most)
    resource.setrlimit(which, (soft, soft if hard is None else hard))


def _threads_of_this_user() -> int:
    mine, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == mine:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:  # it ended meanwhile
            continue
    return count


def become(uid: int) -> None:
    """Become a user that owns nothing on this machine."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
