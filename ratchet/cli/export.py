"""A checkpoint as a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from ratchet.core.errors import ConfigError
from ratchet.policy.policy import Policy
from ratchet.run.checkpoint import chosen_checkpoint


def export_model(run: Path, folder: Path, step: int | None) -> str:
    """Write the model after `step` steps of `run` (the last checkpoint unless given) to `folder`."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty. Name a new folder.")
    path = chosen_checkpoint(run / "checkpoints", step)
    policy = Policy.load(path)
    policy.save(folder)
    return (
        f"{path.name} written to {folder}: {policy.shape.num_parameters:,} weights, fingerprint {policy.fingerprint()}"
    )
