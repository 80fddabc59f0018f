"""Tries which namespaces this kernel grants this user, each in a child of its own, and prints their names."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(__file__).removesuffix("/ratchet/sandbox/inside/probe.py"))

from ratchet.sandbox.inside import kernel, namespaces


def grants(flags: int, mounts: bool) -> bool:
    """Return whether a child may leave these namespaces, and if asked, mount in its own."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            namespaces.unshare_as_self(flags)
            if mounts:
                kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
                kernel.mount("none", "/tmp", "tmpfs")
            code = 0
        except OSError:
            pass
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def main() -> None:
    base = 0 if os.getuid() == 0 and grants(kernel.CLONE_NEWNS, mounts=False) else kernel.CLONE_NEWUSER
    if base and not grants(base, mounts=False):
        return
    names = ["user"] if base else []
    for name in ("mount", "pid", "net", "ipc", "uts"):
        if grants(base | namespaces.FLAGS[name], mounts=name == "mount"):
            names.append(name)
    print(" ".join(names))


if __name__ == "__main__":
    main()
