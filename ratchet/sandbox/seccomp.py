"""The filter of system calls, compiled with pyseccomp: what no test of a function needs and attacks begin with.

Owns the list. Everything not on it is allowed: the namespaces decide what a call can reach, this keeps the kernel's
lesser-used doors shut. Refused calls fail with "Operation not permitted"; nothing is killed.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from functools import cache

REFUSED = (
    # Looking into, or changing, other processes.
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd", "perf_event_open",
    # New namespaces, mounts and roots.
    "unshare", "setns", "mount", "umount2", "umount", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick",
    "move_mount", "open_tree", "mount_setattr", "name_to_handle_at", "open_by_handle_at",
    # The kernel's own machinery.
    "bpf", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "kexec_load", "kexec_file_load",
    "init_module", "finit_module", "delete_module", "iopl", "ioperm", "modify_ldt", "syslog", "acct", "quotactl",
    "quotactl_fd", "swapon", "swapoff", "reboot", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
    "sethostname", "setdomainname", "vhangup", "fanotify_init", "lookup_dcookie", "personality",
    # What would outlive its process, or hold memory that no limit counts.
    "add_key", "request_key", "keyctl", "shmget", "shmat", "shmctl", "semget", "semctl", "semop", "semtimedop",
    "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "memfd_create", "memfd_secret",
)  # fmt: skip

_NAMESPACES = 0x7E020080
"""Every CLONE_NEW* flag of clone(2)."""


_OF_WORKERS = ("unshare", "setns", "mount")
"""What a warm worker must do itself, before it gives up its capabilities in each process it forks."""


@cache
def program(worker: bool = False, addresses: bool = True) -> bytes:
    """Return the filter as the kernel takes it; empty if libseccomp is not on this machine (see `why_not`).

    That of a `worker` lets namespaces and mounts pass, which then need capabilities that a check does not have. Without
    `addresses` only pairs of sockets can be had: where files of the machine are in sight, so are its services' sockets.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError):
        return b""
    refuse = pyseccomp.ERRNO(errno.EPERM)
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in (name for name in REFUSED if not (worker and name in _OF_WORKERS)):
        try:
            rules.add_rule(refuse, name)
        except (OSError, ValueError):  # a call that this architecture, or this libseccomp, does not know
            continue
    # clone3 hides its flags in memory; told that it is missing, libraries fall back to clone.
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    for bit in () if worker else (1 << n for n in range(32) if _NAMESPACES & 1 << n):
        rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, bit, bit))
    if addresses:
        rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.NE, int(socket.AF_UNIX)))
    else:
        rules.add_rule(refuse, "socket")
        rules.add_rule(refuse, "connect")
        datagram = pyseccomp.Arg(
            1, pyseccomp.MASKED_EQ, 0xF, int(socket.SOCK_DGRAM)
        )  # those take an address per message
        rules.add_rule(refuse, "socketpair", datagram)
    rules.add_rule(refuse, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, 0x5412))  # TIOCSTI
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        return os.pread(file.fileno(), 1 << 20, 0)


def why_not() -> str:
    """Return why there is no filter; empty if there is one."""
    return "" if program() else "libseccomp was not found: apt install libseccomp2, and pip install pyseccomp"
