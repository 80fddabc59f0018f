"""A checkpoint as a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from ratchet.config.read import config_from_tree
from ratchet.core.errors import ConfigError
from ratchet.core.load import require_library
from ratchet.policy.hub import check_push, push_folder
from ratchet.policy.policy import Precision
from ratchet.run.checkpoint import chosen_checkpoint
from ratchet.run.policies import saved_policy
from ratchet.store.run_store import RunStore


def export_model(
    run: Path, folder: Path, step: int | None, dtype: Precision = "float32", *, push: str = "", public: bool = False
) -> str:
    """Write the model after `step` steps of `run` (the last checkpoint unless given) to `folder`.

    An adapter is merged. `push` is the name on the hub that the folder is pushed to; empty for none. Raises
    `ConfigError` for a folder that is not empty, `ModelError` if it cannot be pushed.
    """
    if public and not push:
        raise ConfigError("--public says how a model is pushed, and --push names none. Give both, or neither.")
    if push:
        require_library("huggingface_hub", extra="hf", purpose="ratchet export --push")
        check_push(push)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty. Name a new folder.")
    path = chosen_checkpoint(run / "checkpoints", step)
    policy = saved_policy(config_from_tree(RunStore.open(run).config_tree()), path, device="cpu")
    policy.export(folder, dtype=dtype)
    merged = " (adapter merged)" if policy.origin.base is not None else ""
    fingerprint = policy.fingerprint()
    written = (
        f"{path.name} written to {folder}: {policy.shape.num_parameters:,} weights in {dtype}{merged}, fingerprint "
        f"{fingerprint}"
    )
    if not push:
        return written
    message = f"{run.resolve().name} {path.name}, fingerprint {fingerprint}"
    return f"{written}\npushed to {push_folder(folder, push, private=not public, message=message)}"
