"""A checkpoint as a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from ratchet.config.read import config_from_tree
from ratchet.core.errors import ConfigError
from ratchet.policy.policy import Precision
from ratchet.run.checkpoint import chosen_checkpoint
from ratchet.run.parts import saved_policy
from ratchet.store.run_store import RunStore


def export_model(run: Path, folder: Path, step: int | None, dtype: Precision = "float32") -> str:
    """Write the model after `step` steps of `run` (the last checkpoint unless given) to `folder`.

    An adapter is merged. Raises `ConfigError` for a folder that is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty. Name a new folder.")
    path = chosen_checkpoint(run / "checkpoints", step)
    policy = saved_policy(config_from_tree(RunStore.open(run).config_tree()), path, device="cpu")
    policy.export(folder, dtype=dtype)
    merged = " (adapter merged)" if policy.origin.base is not None else ""
    return (
        f"{path.name} written to {folder}: {policy.shape.num_parameters:,} weights in {dtype}{merged}, fingerprint "
        f"{policy.fingerprint()}"
    )
