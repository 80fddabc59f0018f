"""What of this machine can be seen from inside: programs, libraries, this Python and its packages; read-only.

Not the repository, not the home, not /etc but for what the linker reads.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ratchet.core.errors import ConfigError

INSIDE = Path(__file__).parent / "inside"
HOME = "/ratchet-jail"
"""Where the code of `inside` lies in a jail."""
SCRATCH = "/tmp"
"""Where an empty folder is mounted in a jail that has mounts of its own."""

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/tmp", "/dev/shm"),
)
"""/dev/shm is the scratch folder, so that one limit holds for both."""


@dataclass(frozen=True, slots=True)
class View:
    binds: tuple[tuple[str, str], ...]
    """(path here, path inside)"""
    links: tuple[tuple[str, str], ...]
    """(what a link says, where it lies)"""
    site: tuple[str, ...]
    """Folders of installed packages."""
    python: str
    path: str
    """Value of PATH inside."""

    @property
    def readable(self) -> tuple[str, ...]:
        return tuple(target for _, target in self.binds)

    def environment(self, scratch: str) -> dict[str, str]:
        """Return all the environment that a program inside gets; nothing of ours."""
        return {
            "PATH": self.path,
            "HOME": scratch,
            "TMPDIR": scratch,
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(self.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }


@cache
def view_of(more: Sequence[str] = (), *, mounted: bool = True) -> View:
    """Return the view of this machine and this interpreter; `more` are further paths to be seen.

    `mounted` says that a scratch folder will lie over what is in `SCRATCH`: packages installed below it are seen in
    another place. **Raises**: `ConfigError` if the interpreter itself lies there.
    """
    links, shown = list(DEVICE_LINKS), []
    for path in _SYSTEM:
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.isdir(path):
            shown.append(path)
    python = os.path.realpath(sys.executable)
    site = dict.fromkeys(os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib"))
    for path in (*_FILES, os.path.realpath(sys.base_prefix), os.path.dirname(os.path.dirname(python)), *site, *more):
        if os.path.exists(path) and not any(Path(path).is_relative_to(above) for above in shown):
            shown.append(path)
    moved = {path: path for path in shown}
    if mounted:
        if Path(python).is_relative_to(SCRATCH):
            raise ConfigError(
                f"The interpreter {python} lies below {SCRATCH}, where the sandbox puts its scratch folder. Install "
                "Python elsewhere (a virtual environment below that folder is no problem, its interpreter is)."
            )
        moved |= {path: f"{HOME}/packages/{n}" for n, path in enumerate(site) if Path(path).is_relative_to(SCRATCH)}
    binds = list(moved.items())
    binds.append((str(INSIDE), f"{HOME}/ratchet/sandbox/inside"))
    search = dict.fromkeys((os.path.dirname(python), "/usr/local/bin", "/usr/bin", "/bin"))
    seen = tuple(moved.get(path, path) for path in site)
    return View(tuple(binds), tuple(links), seen, python, os.pathsep.join(search))
