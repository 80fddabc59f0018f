"""Where a new run goes: a folder that is free, in a place that can be written."""

from __future__ import annotations

import os
from pathlib import Path

from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError


def choose_folder(config: RunConfig) -> Path:
    """Return the run's folder: as named, or the study's name and the next free number."""
    base = Path(config.run.folder)
    if config.run.name:
        folder = base / config.run.name
        if folder.exists():
            raise ConfigError(
                f"There is a run at {folder} already. Choose another run.name, or go on with it: "
                f"ratchet resume {folder}"
            )
        return folder
    stem = config.run.study or config.environment.name.rpartition(":")[2]
    taken = [p.name.rpartition("-")[2] for p in base.glob(f"{stem}-*")] if base.is_dir() else []
    return base / f"{stem}-{1 + max((int(t) for t in taken if t.isdigit()), default=0):03d}"


def check_writable(folder: Path) -> None:
    """Raise `ConfigError` before anything is computed if run folders cannot be made there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / f".ratchet-{os.getpid()}"
        mark.touch()
        mark.unlink()
    except OSError as error:
        raise ConfigError(
            f'run.folder = "{folder}" cannot be written: {error.strerror}. Set run.folder to a folder that can.'
        ) from None
