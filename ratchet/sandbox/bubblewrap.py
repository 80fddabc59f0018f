"""Boxes made by bubblewrap: namespaces and a root of its own; the code inside adds limits, Landlock and seccomp."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath

from ratchet.core.errors import ConfigError
from ratchet.sandbox.box import BoxResult, Limits
from ratchet.sandbox.inside import kernel
from ratchet.sandbox.inside.namespaces import DEVICES
from ratchet.sandbox.jailed import Walls, beside, inside_command, run_in
from ratchet.sandbox.lease import Leases
from ratchet.sandbox.view import SCRATCH, View, view_of


@cache
def why_not() -> str:
    """Return why bubblewrap cannot be used here; empty if it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap was not found: apt install bubblewrap"
    trial = [program, *_NAMESPACES, *_user(), "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        done = subprocess.run(trial, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not run here: {error}"
    return f"bubblewrap may not make namespaces here: {done.stderr.strip()}" if done.returncode else ""


_NAMESPACES = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")


def _user() -> tuple[str, ...]:
    """As root, no user namespace: the code inside becomes a user of its own instead, which the kernel then counts."""
    return () if os.getuid() == 0 else ("--unshare-user",)


def arguments(view: View, scratch_bytes: int) -> tuple[str, ...]:
    """Return the command line up to the program that is to run."""
    words = ["bwrap", *_NAMESPACES, *_user(), "--die-with-parent", "--new-session", "--hostname", "box"]
    above = {str(folder) for _, target in view.binds for folder in PurePosixPath(target).parents} | {"/dev"}
    for folder in sorted(above - {"/"}):  # bubblewrap would keep those it makes by itself from everyone but root
        words += ["--perms", "0755", "--dir", folder]
    for source, target in view.binds:
        words += ["--ro-bind", source, target]
    for target, path in view.links:
        words += ["--symlink", target, path]
    for device in DEVICES:
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    words += ["--proc", "/proc", "--perms", "0700", "--size", str(scratch_bytes), "--tmpfs", SCRATCH]
    words += ["--remount-ro", "/", "--chdir", "/", "--"]
    return tuple(words)


def layers() -> tuple[str, ...]:
    """Return the protections in force, by name."""
    found = ["bubblewrap", *(f"{name} namespace" for name in ("mount", "pid", "net", "ipc", "uts"))]
    found.append("own user number" if os.getuid() == 0 else "user namespace")
    return (*found, "rlimits", *beside())


class BubblewrapBox:
    """One bubblewrap per command."""

    name = "bubblewrap"

    def __init__(self, more: Sequence[str] = ()) -> None:
        """`more` are further paths that can be read inside. **Raises**: `ConfigError` if bubblewrap cannot run."""
        if reason := why_not():
            raise ConfigError(f"{reason}.")
        self.leases = Leases()
        self.layers = layers()
        self._view = view_of(tuple(more))

    @property
    def view(self) -> View:
        return self._view

    def walls(self, scratch_bytes: int, folder: str = "") -> Walls:
        """Return how a jail is made; `folder` is not needed, for nothing of it lies on disk."""
        command = (*arguments(self._view, scratch_bytes), *inside_command(self._view))
        return Walls(command, self.layers, SCRATCH, landlock=bool(kernel.landlock_version()))

    async def run(self, files: Mapping[str, str | bytes], command: Sequence[str], limits: Limits) -> BoxResult:
        """Return what became of a command: see `Box.run`."""
        with self.leases.take(command, self.name, limits.wall_s):
            return await run_in(self.walls(limits.scratch_bytes), self._view, files, command, limits, self.layers)

    def close(self) -> None:
        """Sweep the scratch folders; boxes that run die with the coroutines that await them."""
        self.leases.close()
