"""Weights on their way to another process: a checkpoint folder in memory, or wherever both can read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ratchet.core.errors import ConfigError
from ratchet.policy.policy import fingerprint

SHARED_MEMORY = Path("/dev/shm")
Split = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""From our names of weights to those that `transformers` knows them by."""


class WeightFolder:
    """A temporary folder with the model's configuration and tokenizer, to which weights are written, version by
    version. Only the newest stays."""

    def __init__(
        self,
        parent: str,
        save_model: Callable[[Path], None],
        split: Split,
        dtype: Literal["float32", "bfloat16"],
        *,
        readable: bool = True,
    ) -> None:
        """An empty `parent` takes shared memory where there is any. `save_model` writes a whole model folder.

        `readable` says whether the weights are those of our own decoder, so that an engine's can be told by them.

        **Raises**: `ConfigError` if the folder cannot be written.
        """
        where = Path(parent) if parent else SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
        try:
            where.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix="ratchet-weights-", dir=where))
        except OSError as error:
            raise ConfigError(
                f'engine.folder = "{where}" cannot be written: {error.strerror}. Name a folder that this process can '
                "write and the server can read."
            ) from None
        self.start = self.folder / "start"
        """The model an engine begins with."""
        self.dtype = dtype
        """Precision that the engine computes in, as the policy does."""
        self._split, self._precision = split, torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self._readable = readable
        self._newest: Path | None = None
        save_model(self.start)

    def tensors(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights by the names of `transformers`, in the precision the engine computes in."""
        return {name: weight.detach().to(self._precision) for name, weight in self._split(weights).items()}

    def digest(self, weights: Mapping[str, Tensor]) -> str:
        """Return the fingerprint of weights as an engine holds them: rounded, and by our names.

        Empty for those of another form, which have no such names: an adapter, another architecture.
        """
        if not self._readable:
            return ""
        return fingerprint({name: weight.detach().to(self._precision) for name, weight in weights.items()})

    def write(self, weights: Mapping[str, Tensor], version: int) -> Path:
        """Return a model folder with these weights. **Raises**: `ConfigError` if there is no room for it."""
        target = self.folder / f"version-{version:06d}"
        try:
            target.mkdir(exist_ok=True)
            for file in self.start.iterdir():
                if file.is_file() and ".safetensors" not in file.name:  # nor the index of shards
                    shutil.copy2(file, target / file.name)
            # Contiguous copies on the CPU: safetensors writes neither views nor a device's memory.
            there = {name: weight.cpu().contiguous().clone() for name, weight in self.tensors(weights).items()}
            save_file(there, target / "model.safetensors", metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"Weights cannot be written to {target}: {error}. Set engine.folder to a folder with more room."
            ) from None
        if self._newest not in (None, target):
            shutil.rmtree(self._newest, ignore_errors=True)
        self._newest = target
        return target

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
