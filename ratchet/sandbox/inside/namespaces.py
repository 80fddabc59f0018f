"""A root of its own, without bubblewrap: namespaces, bind mounts and pivot_root, as far as the kernel allows."""

from __future__ import annotations

import ctypes
import os
import struct

from ratchet.sandbox.inside import kernel

FLAGS = {
    "user": kernel.CLONE_NEWUSER,
    "mount": kernel.CLONE_NEWNS,
    "pid": kernel.CLONE_NEWPID,
    "net": kernel.CLONE_NEWNET,
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
}
DEVICES = ("null", "zero", "full", "random", "urandom")

_MOUNT_SETATTR = 442
"""The same number on every architecture: include/uapi/asm-generic/unistd.h."""


def enter(spec: dict[str, object]) -> None:
    """Move into the namespaces that `spec` names; returns in a new process if "pid" is among them."""
    names = spec["namespaces"]
    assert isinstance(names, list)
    unshare_as_self(sum(FLAGS[name] for name in names))
    if "pid" in names:
        if pid := os.fork():
            os.closerange(0, 64)
            os.waitpid(pid, 0)
            os._exit(0)
        kernel.die_with_parent()
        kernel.hide_memory()
    if "mount" in names:
        _new_root(spec)


def unshare_as_self(flags: int) -> None:
    """Leave namespaces; with a user namespace among them, keep the own user and group inside."""
    uid, gid = os.getuid(), os.getgid()
    kernel.hide_memory(False)  # or the maps could not be written
    kernel.unshare(flags)
    if flags & kernel.CLONE_NEWUSER:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    kernel.hide_memory()


def _new_root(spec: dict[str, object]) -> None:
    root, binds, links = str(spec["root"]), spec["binds"], spec["links"]
    assert isinstance(binds, list)
    assert isinstance(links, list)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("box", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0755")
    for source, target in binds:
        _bind(source, root + target)
        _read_only(root + target)
    for target, path in links:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for device in DEVICES:
        _bind(f"/dev/{device}", f"{root}/dev/{device}")
    for folder in ("/proc", "/tmp"):
        os.makedirs(root + folder, exist_ok=True)
    kernel.mount("proc", root + "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    size = spec["scratch_bytes"]
    kernel.mount("tmp", root + "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={size},mode=0700")
    kernel.mount(
        "none", root, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    )
    os.chdir(root)
    kernel.pivot(".", ".")
    kernel.unmount(".")
    os.chdir("/")


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w"):
            pass
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)


def _read_only(target: str) -> None:
    """Make a mount and all below it read-only, without set-uid programs and devices."""
    attributes = struct.pack("QQQQ", 1 | 2 | 4, 0, 0, 0)  # MOUNT_ATTR_RDONLY, NOSUID, NODEV
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    call = ctypes.CDLL(None, use_errno=True).syscall
    result = call(
        ctypes.c_long(_MOUNT_SETATTR), ctypes.c_int(-100), target.encode(), ctypes.c_uint(0x8000), buffer,
        ctypes.c_size_t(len(attributes)),
    )  # fmt: skip  # AT_FDCWD, AT_RECURSIVE
    if result:  # before Linux 5.12
        kernel.mount("none", target, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)
