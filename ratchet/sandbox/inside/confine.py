"""What every untrusted process passes through before its first instruction: limits, Landlock, no rights, no calls.

Owns the order of these steps. Each layer that this kernel refuses is left out, and the caller is told what is in force.
"""

from __future__ import annotations

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
        self._rules = kernel.ruleset(readable, writable) if spec["landlock"] else -1
        self._program = bytes.fromhex(str(spec["seccomp"]))
        self._lenient = bytes.fromhex(str(spec["seccomp_of_worker"]))
        self._begun = False
        self.counted = bool(spec["counted"])
        """Whether this user owns nothing but the jail."""

    def keep_rules_at(self, place: int) -> None:
        """Move the file descriptor of the rules to `place`; without rules, fill the place."""
        fd = self._rules if self._rules >= 0 else os.open(os.devnull, os.O_RDONLY)
        if fd != place:
            os.dup2(fd, place, inheritable=False)
            os.close(fd)
        self._rules = place if self._rules >= 0 else -1

    def begin(self) -> None:
        """Apply now, to a zygote, what it can itself live with, so that each of its processes has it already.

        A zygote makes namespaces and mounts. That its processes do not is held by their having no capabilities, and
        by the number of user namespaces allowed below the zygote's being none.
        """
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
        kernel.no_new_privileges()
        self._begun = True
        if self._lenient:
            kernel.filter_calls(self._lenient)
            self._program = b""

    def apply(self) -> None:
        """Give up every right, for this process and all it will start."""
        if not self._begun:
            kernel.no_new_privileges()
        if self._rules >= 0:
            kernel.restrict(self._rules)
        kernel.drop_capabilities()
        if self._program:
            kernel.filter_calls(self._program)


Bounds = tuple[tuple[int, tuple[int, int]], ...]
"""Limits as the kernel takes them: which, and its soft and hard value."""


def bounds(limits: dict[str, float]) -> Bounds:
    """Return the kernel's limits but that on processes."""
    cpu = ceil(limits["cpu_s"])
    return (
        _bound(resource.RLIMIT_CPU, cpu, cpu + 1),
        _bound(resource.RLIMIT_AS, int(limits["memory_bytes"])),
        _bound(resource.RLIMIT_FSIZE, int(limits["file_bytes"])),
        _bound(resource.RLIMIT_NOFILE, int(limits["open_files"])),
        _bound(resource.RLIMIT_CORE, 0),
        _bound(resource.RLIMIT_MEMLOCK, 0),
        _bound(resource.RLIMIT_MSGQUEUE, 0),
    )


def limit(within: Bounds, processes: int, counted: bool) -> None:
    """Set the kernel's limits, for this process and all it will start.

    `processes` includes the jail's own. `counted` says that this user owns nothing but the jail; otherwise the kernel
    counts what else it runs too, so that is added.
    """
    for which, values in within:
        resource.setrlimit(which, values)
    most = processes if counted else processes + _threads_of_this_user()
    resource.setrlimit(*_bound(resource.RLIMIT_NPROC, most))


def _bound(which: int, soft: int, hard: int | None = None) -> tuple[int, tuple[int, int]]:
    _, most = resource.getrlimit(which)
    hard = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    return which, (soft, hard)


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
