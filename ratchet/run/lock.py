"""One process at a time works on a run: two would overwrite each other's checkpoints and buffer."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.core.errors import ConfigError, RunError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the run folder while the body runs; the system lets go when the process ends, however it ends.

    Raises `ConfigError` naming the process that holds it.
    """
    path = folder / "run.lock"
    try:
        file = path.open("a+")
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}. Make {folder} writable, then try again."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"Another process ({file.read().strip() or 'unknown'}) is working on {folder}. Wait for its end, or "
                "stop it first; what it does now: ratchet status " + str(folder)
            ) from None
        file.truncate(0)
        file.write(f"pid {os.getpid()}")
        file.flush()
        yield
