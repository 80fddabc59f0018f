"""Diagnoses that other processes can import: one that works, and those that no page may be hurt by."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from ratchet.board.finding import Finding


def by_name(path: Path) -> Sequence[Finding]:
    """Do what the name of the folder says: die, hang, stumble over damaged rows, or find something."""
    if path.name == "dies":
        os._exit(3)
    if path.name == "hangs":
        print("begun", flush=True)
        threading.Event().wait()
    if path.name == "damaged":
        raise IndexError("row 7 is short")
    return [Finding("error", "rule", "reward/mean", 0, 3, f"Found by {os.getpid()}.")]
