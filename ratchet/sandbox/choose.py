"""Which box a run gets: the first that this machine can make, or a refusal that says what to install."""

from __future__ import annotations

from ratchet.core.errors import ConfigError
from ratchet.sandbox import bubblewrap, container, linux
from ratchet.sandbox.box import MEBIBYTE, Limits, Settings
from ratchet.sandbox.bubblewrap import BubblewrapBox
from ratchet.sandbox.container import ContainerBox
from ratchet.sandbox.linux import LinuxBox, UnsafeBox

JailedBox = BubblewrapBox | LinuxBox | UnsafeBox
"""Boxes that can hold the warm workers of a `CheckPool`; containers cannot."""


def open_box(section: Settings) -> JailedBox | ContainerBox:
    """Return a box as `section` asks.

    **Raises**: `ConfigError` if none can be had: it names the package to install, and the setting that goes without.
    """
    match section.backend:
        case "bubblewrap":
            _refuse(bubblewrap.why_not())
            return BubblewrapBox(section.readable)
        case "linux":
            _refuse(linux.why_not())
            return LinuxBox(section.readable)
        case "docker" | "podman":
            _refuse(container.why_not(section.backend))
            return ContainerBox(section.backend, section.image)
        case "auto":
            if not bubblewrap.why_not():
                return BubblewrapBox(section.readable)
            if not linux.why_not():
                return LinuxBox(section.readable)
    if not section.allow_unsafe:
        reasons = "; ".join(r for r in (bubblewrap.why_not(), linux.why_not()) if r) or 'sandbox.backend = "none"'
        raise ConfigError(
            f"Code written by the policy would run without isolation: {reasons}. Install bubblewrap (on Debian: apt "
            "install bubblewrap), or accept the risk with sandbox.allow_unsafe=true."
        )
    return UnsafeBox()


def open_jails(section: Settings) -> JailedBox:
    """Return a box that can hold warm workers. **Raises**: `ConfigError` as `open_box`, and for containers."""
    box = open_box(section)
    if isinstance(box, ContainerBox):
        raise ConfigError(
            f'sandbox.backend = "{section.backend}" starts a container per command and has no warm workers. Set it to '
            '"auto" for checks of functions.'
        )
    return box


def limits_of(section: Settings) -> Limits:
    """Return the limits of one check."""
    return Limits(
        wall_s=section.wall_s,
        cpu_s=section.cpu_s,
        memory_bytes=section.memory_mb * MEBIBYTE,
        processes=section.processes,
        file_bytes=section.file_mb * MEBIBYTE,
        scratch_bytes=section.scratch_mb * MEBIBYTE,
        open_files=64,
        output_bytes=16 << 10,
    )


def _refuse(reason: str) -> None:
    if reason:
        raise ConfigError(f'{reason[0].upper()}{reason[1:]}. Or set sandbox.backend = "auto".')
