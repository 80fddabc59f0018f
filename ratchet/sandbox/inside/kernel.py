"""The few calls of the Linux kernel that a jail is made of, through ctypes. Each raises OSError with its own name."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Sequence
from typing import cast

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWUTS = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x04000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38

# Landlock's calls have the same numbers on every architecture: include/uapi/asm-generic/unistd.h.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ = (1 << 0) | (1 << 2) | (1 << 3)
"""Execute, read a file, read a folder."""
_OF_FILES = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15)
"""The rights that a rule on a file, not a folder, may name."""


def _known(name: str, *types: type) -> Callable[..., int]:
    """Return a C function that raises; made once, as every new object of ctypes costs a forked process a page."""
    function = _libc[name]  # one of our own, not the shared attribute
    function.argtypes = types
    function.errcheck = _checked  # type: ignore[assignment]
    return cast(Callable[..., int], function)


def _checked(result: int, function: object, arguments: tuple[object, ...]) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{getattr(function, '__name__', 'call')}: {os.strerror(number)}")
    return result


_prctl_of = _known("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
_unshare, _setns = _known("unshare", ctypes.c_int), _known("setns", ctypes.c_int, ctypes.c_int)
_mount = _known("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount, _pivot = _known("umount2", ctypes.c_char_p, ctypes.c_int), _known("pivot_root", *[ctypes.c_char_p] * 2)
_capset = _known("capset", ctypes.c_void_p, ctypes.c_void_p)
_syscall = _known("syscall", ctypes.c_long, *[ctypes.c_void_p] * 4)


def _prctl(option: int, argument: int = 0, pointer: object = None) -> None:
    _prctl_of(option, argument, pointer, 0, 0)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags`; a new pid namespace begins with the next fork."""
    _unshare(flags)


def join(fd: int, flags: int) -> None:
    """Enter the namespaces `flags` of the process or namespace file behind `fd`."""
    _setns(fd, flags)


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    encoded = kind.encode() if kind else None
    _mount(source.encode(), target.encode(), encoded, flags, data.encode() or None)


def unmount(target: str) -> None:
    _umount(target.encode(), MNT_DETACH)


def pivot(new_root: str, old_root: str) -> None:
    _pivot(new_root.encode(), old_root.encode())


def die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, 9)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_memory(hidden: bool = True) -> None:
    """Let no other process of the same user read this one's memory, environment or files in /proc."""
    _prctl(_PR_SET_DUMPABLE, int(not hidden))


def no_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


_CAPABILITY_HEADER = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
"""_LINUX_CAPABILITY_VERSION_3, this process."""
_NO_CAPABILITIES = ctypes.create_string_buffer(24)


def drop_capabilities() -> None:
    """Give up every capability, for good: with `no_new_privileges` no program can give them back."""
    _capset(_CAPABILITY_HEADER, _NO_CAPABILITIES)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_calls(program: bytes) -> None:
    """Apply a compiled seccomp filter (struct sock_filter, 8 bytes each) to this process and its descendants."""
    buffer = ctypes.create_string_buffer(program, len(program))
    holder = _Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _prctl(_PR_SET_SECCOMP, 2, ctypes.byref(holder))  # SECCOMP_MODE_FILTER


def landlock_version() -> int:
    """Return the version of Landlock that this kernel offers; 0 for none."""
    version = _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), ctypes.c_void_p(0), ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(version))


def ruleset(readable: Sequence[str], writable: Sequence[str]) -> int:
    """Return a Landlock ruleset: reading below `readable`, everything below `writable`, nothing else. -1 for none.

    Folders mounted below those are included. From version 4 it also denies TCP, from 6 signals and abstract sockets
    across the border. Paths that do not exist are passed over.
    """
    version = landlock_version()
    if not version:
        return -1
    files = (1 << (13 + (version >= 2) + (version >= 3))) - 1 | ((1 << 15) if version >= 5 else 0)
    network, scoped = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    attributes = struct.pack("QQQ", files, network, scoped)[: 8 if version < 4 else 16 if version < 6 else 24]
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    rules = _syscall(_LANDLOCK_CREATE, buffer, len(attributes), 0, 0)
    for paths, rights in ((readable, _READ), (writable, files)):
        for path in paths:
            _allow(rules, path, rights & files)
    return rules


def restrict(rules: int) -> None:
    """Apply a ruleset to this process and its descendants, for good. Needs `no_new_privileges`."""
    _syscall(_LANDLOCK_RESTRICT, rules, 0, 0, 0)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= _OF_FILES
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd), 12)
    _syscall(_LANDLOCK_ADD, rules, 1, rule, 0)  # 1: LANDLOCK_RULE_PATH_BENEATH
    os.close(fd)
