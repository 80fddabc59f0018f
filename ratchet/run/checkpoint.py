"""Checkpoints: the full state of a run as a folder that is also a Hugging Face checkpoint.

    config.json model.safetensors tokenizer.json ...   the policy
    optimiser.safetensors ...                          the optimiser's moments, from several ranks in several files
    sampler_000040.safetensors ...                     older weights that steps to come are sampled with
    state.json                                         counters, fingerprints
    MANIFEST.json                                      sha256 of every file; written last

A checkpoint is written into a temporary folder, flushed, and renamed: it is there whole or not at all. Random numbers
need no state, since every stream derives from names (`core.seeds`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ratchet.core.errors import CheckpointError, ConfigError, RunError
from ratchet.policy.policy import Policy
from ratchet.run.moments import Moments, write_moments

MANIFEST = "MANIFEST.json"

DISK_ERRORS = (OSError, SafetensorError)
"""What a full or unwritable disk raises; safetensors wraps the system's own error."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The counters of a run at the end of a step."""

    step: int
    """Steps done; the next step has this number."""
    version: int
    """Version of the policy's weights."""
    fingerprint: str
    samplers: Mapping[str, str] = field(default_factory=dict)
    """Version -> fingerprint of the older weights that steps to come are sampled with."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Version -> fingerprint of all weights whose groups steps to come may be trained on."""
    buffer: str = ""
    """Name of the buffer within its database; a run whose folder is renamed finds it by this."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The config of the run so far, as nested mappings: a changed one must not slip in unseen."""
    totals: Mapping[str, float] = field(default_factory=dict)
    """Cumulative counts: tokens, rollouts, FLOPs, seconds."""
    best_reward: float | None = None
    best_step: int = 0
    """The checkpoint with the highest mean reward of its last step."""
    evaluated_step: int = -1
    """Steps done at the last held-out evaluation."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a checkpoint folder holds besides the policy itself."""

    folder: Path
    state: RunState
    optimiser: Mapping[str, Tensor]
    samplers: Mapping[int, Mapping[str, Tensor]]
    """Version -> older weights that steps to come are sampled with."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint after `step` steps lies."""
    return folder / f"step_{step:06d}"


def write_checkpoint(
    folder: Path,
    policy: Policy,
    state: RunState,
    optimiser: Mapping[str, Tensor],
    samplers: Mapping[int, Mapping[str, Tensor]],
    *,
    others: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write the checkpoint of `state` below `folder` and return its path. Raises `CheckpointError`.

    `others` has the other ranks write their parts into the folder it is given, and returns when all have.
    """
    final = checkpoint_path(folder, state.step)
    part = folder / f".{final.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        policy.save(part)
        write_moments(part, optimiser, rank=0)
        others(part)
        for version, sampler in samplers.items():
            save_file({k: v.contiguous() for k, v in sampler.items()}, _sampler_path(part, version))
        (part / "state.json").write_text(json.dumps(asdict(state), indent=2) + "\n")
        seal(part)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        _flush(folder)
    except RunError:  # another rank's part
        shutil.rmtree(part, ignore_errors=True)
        raise
    except DISK_ERRORS as error:
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(
            f"The checkpoint {final} cannot be written: {why(error)}. The one before is untouched; make room or "
            "mend the permissions, then: ratchet resume"
        ) from error
    return final


def why(error: Exception) -> str:
    """Return the system's reason for a disk error."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def seal(folder: Path) -> None:
    """Write the manifest of a folder's files and flush everything to the disk."""
    digests = {p.name: _sha256(p) for p in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(digests, indent=2) + "\n")
    for path in [*folder.iterdir(), folder]:
        _flush(path)


def damage(path: Path) -> str:
    """Return what is wrong with a checkpoint folder, or an empty string."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        digests = json.loads(manifest.read_text())
    except json.JSONDecodeError:
        return f"{MANIFEST} is not JSON"
    for name, digest in digests.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if _sha256(path / name) != digest:
            return f"{name} has changed since it was written"
    return ""


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders below `folder`, oldest first."""
    return sorted(p for p in folder.glob("step_*") if p.is_dir())


def newest_sound(folder: Path) -> tuple[Path, list[str]]:
    """Return the newest undamaged checkpoint and a sentence for each newer one that is damaged.

    Raises `CheckpointError` when none is sound.
    """
    complaints: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        wrong = damage(path)
        if not wrong:
            return path, complaints
        complaints.append(f"{path.name} is damaged ({wrong}); using the one before")
    if not complaints:
        raise CheckpointError(
            f"{folder} holds no sound checkpoint: there is none. It never got to its first one, so nothing is lost: "
            f"remove {folder.parent} and start the run again."
        )
    raise CheckpointError(f"{folder} holds no sound checkpoint: {'; '.join(complaints)}.")


def chosen_checkpoint(folder: Path, step: int | None) -> Path:
    """Return the checkpoint after `step` steps, or the newest sound one. Raises `ConfigError` if it is not there."""
    if step is None:
        return newest_sound(folder)[0]
    path = checkpoint_path(folder, step)
    if not path.is_dir():
        steps = ", ".join(str(int(p.name[5:])) for p in list_checkpoints(folder))
        raise ConfigError(f"There is no checkpoint after step {step} in {folder}. There are: {steps or 'none'}.")
    wrong = damage(path)
    if wrong:
        raise CheckpointError(f"{path} is damaged: {wrong}. Choose another step.")
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint's state and tensors; the policy itself is read by `Policy.load(path)`."""
    row = json.loads((path / "state.json").read_text())
    state = RunState(**row)
    return Checkpoint(
        folder=path,
        state=state,
        optimiser=Moments(path),
        samplers={int(v): load_file(_sampler_path(path, int(v))) for v in state.samplers},
    )


def prune(folder: Path, keep: int, also: frozenset[int], *, done: int) -> int:
    """Remove all but the newest `keep` checkpoints; the initial one and those of the steps `also` stay.

    Those of more than `done` steps are not counted: a resumed run has found them damaged, and writes them anew.
    Returns the steps done at the oldest of the newest.
    """
    found = [path for path in list_checkpoints(folder) if int(path.name[5:]) <= done]
    for path in found[:-keep]:
        if int(path.name[5:]) not in also | {0}:
            shutil.rmtree(path, ignore_errors=True)
    return int(found[-keep:][0].name[5:])


def _sampler_path(folder: Path, version: int) -> Path:
    return folder / f"sampler_{version:06d}.safetensors"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
