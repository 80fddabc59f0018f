"""Boxes made by ourselves, where bubblewrap is not: the namespaces this kernel grants, Landlock, seccomp, limits.

Each layer found is named in `layers`. Too few of them, and no box is made: see `lacks`. `UnsafeBox` isolates nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache

from ratchet.core.errors import ConfigError
from ratchet.sandbox import seccomp
from ratchet.sandbox.box import BoxResult, Limits
from ratchet.sandbox.inside import kernel
from ratchet.sandbox.jailed import Walls, beside, inside_command, run_in
from ratchet.sandbox.lease import Leases
from ratchet.sandbox.view import INSIDE, SCRATCH, View, view_of

_SOURCE = INSIDE.parent.parent.parent
"""The folder that holds the package, as the inside is started before there are walls."""


@cache
def namespaces() -> tuple[str, ...]:
    """Return which namespaces this kernel grants us; empty on other systems."""
    if sys.platform != "linux":
        return ()
    command = [sys.executable, "-I", "-S", "-B", str(INSIDE / "probe.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return tuple(done.stdout.split())


def lacks(found: Sequence[str], landlock: int, filtered: bool, root: bool, grouped: bool) -> str:
    """Return what is missing for a box that holds; empty if nothing is.

    Without a mount namespace Landlock must close the files; without a net namespace seccomp must close sockets; without
    a pid namespace Landlock 6 must keep signals in. Root's processes are counted by control groups only, unless it can
    become another user, which takes a mount namespace that shows that user what it needs.
    """
    if "mount" not in found and not landlock:
        return "neither a mount namespace nor Landlock, so files could be read and written"
    if "net" not in found and not filtered:
        return "neither a net namespace nor seccomp, so the network could be reached"
    if "pid" not in found and landlock < 6:
        return "neither a pid namespace nor Landlock 6, so our own processes could be signalled"
    if "mount" not in found and root and not grouped:
        return "root neither a mount namespace nor control groups, so processes could not be counted"
    return ""


@cache
def why_not() -> str:
    """Return why no box can be made by ourselves; empty if one can."""
    if sys.platform != "linux":
        return f"namespaces and Landlock are Linux only, this is {sys.platform}"
    missing = _lacks(namespaces())
    return f"this machine grants {missing}" if missing else ""


def _lacks(found: Sequence[str]) -> str:
    filtered, grouped = bool(seccomp.program()), "cgroup" in beside()
    return lacks(found, kernel.landlock_version(), filtered, os.getuid() == 0, grouped)


class LinuxBox:
    """One jail of our own making per command."""

    name = "linux"

    def __init__(self, more: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        """`more` are further paths that can be read inside; `without` names namespaces to do without, for tests.

        **Raises**: `ConfigError` if what is left does not hold.
        """
        found = [name for name in namespaces() if name not in without]
        if set(found) == {"user"}:
            found = []
        if missing := _lacks(found):
            raise ConfigError(f"This machine grants {missing}.")
        self._found = tuple(found)
        self._view = view_of(tuple(more), mounted="mount" in found)
        self.leases = Leases()
        self._drops = os.getuid() == 0 and "mount" in found
        user = ("own user number",) if self._drops else ()
        self.layers = (*(f"{name} namespace" for name in found), *user, "rlimits", *beside())

    @property
    def view(self) -> View:
        return self._view

    def walls(self, scratch_bytes: int, folder: str = "") -> Walls:
        """Return how a jail is made; `folder` is where its root is mounted, or its scratch if mounts are refused."""
        mounted = "mount" in self._found
        return Walls(
            inside_command(self._view, _SOURCE),
            self.layers,
            SCRATCH if mounted else folder,
            namespaces=self._found,
            root=folder,
            mounted=mounted,
            pid_namespace="pid" in self._found,
            counted=self._drops or "user" in self._found,
            drop_user=self._drops,
            nest=mounted and "pid" in self._found,
        )

    async def run(self, files: Mapping[str, str | bytes], command: Sequence[str], limits: Limits) -> BoxResult:
        """Return what became of a command: see `Box.run`."""
        with self.leases.take(command, self.name, limits.wall_s) as lease:
            walls = self.walls(limits.scratch_bytes, str(lease.folder))
            return await run_in(walls, self._view, files, command, limits, self.layers)

    def close(self) -> None:
        """Sweep the scratch folders; boxes that run die with the coroutines that await them."""
        self.leases.close()


class UnsafeBox:
    """No isolation at all: limits and killing only. Only where the user said so."""

    name = "none"
    layers: tuple[str, ...] = ("NO ISOLATION", "rlimits", "process group")

    def __init__(self) -> None:
        self.leases = Leases()
        self._view = view_of(mounted=False)

    @property
    def view(self) -> View:
        return self._view

    def walls(self, scratch_bytes: int, folder: str = "") -> Walls:
        command = inside_command(self._view, _SOURCE)
        return Walls(
            command,
            self.layers,
            folder,
            mounted=False,
            pid_namespace=False,
            landlock=False,
            seccomp=False,
            cgroup=False,
            counted=False,
            drop_user=False,
            nest=False,
        )

    async def run(self, files: Mapping[str, str | bytes], command: Sequence[str], limits: Limits) -> BoxResult:
        """Return what became of a command: see `Box.run`."""
        with self.leases.take(command, self.name, limits.wall_s) as lease:
            walls = self.walls(limits.scratch_bytes, str(lease.folder))
            return await run_in(walls, self._view, files, command, limits, self.layers)

    def close(self) -> None:
        """Sweep the scratch folders."""
        self.leases.close()
