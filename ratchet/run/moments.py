"""What training has gathered besides the weights, as files of a checkpoint: one per rank that holds something alone.

    optimiser.safetensors         rank 0: its part of spread tensors, and all that is not spread
    optimiser-00001.safetensors   rank 1: its part of spread tensors; and so on

A part says which rows of the whole it holds, so that any number of ranks, one too, reads what any number has written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ratchet.core.errors import CheckpointError
from ratchet.train.sharding import local_parts, places_of


def write_moments(folder: Path, state: Mapping[str, Tensor], *, rank: int) -> None:
    """Write what this rank holds; a rank other than 0 writes its parts only, and no file if it has none."""
    places, parts = places_of(state), local_parts(state)
    if rank:
        parts = {name: parts[name] for name in places}
    if rank and not parts:
        return
    name = f"optimiser-{rank:05d}.safetensors" if rank else "optimiser.safetensors"
    metadata = {"places": json.dumps(places)} if places else None
    save_file({k: v.contiguous() for k, v in parts.items()}, folder / name, metadata=metadata)


class Moments(Mapping[str, Tensor]):
    """The tensors of a checkpoint's files, each put together and read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises `CheckpointError` if rows of a tensor are missing."""
        self._pieces: dict[str, list[tuple[int, Path]]] = {}
        rows: dict[str, int] = {}
        there: dict[str, int] = {}
        for path in sorted(folder.glob("optimiser*.safetensors")):
            with safe_open(path, framework="pt") as opened:
                places = json.loads((opened.metadata() or {}).get("places", "{}"))
                for name in opened.keys():  # noqa: SIM118  (it is no mapping)
                    first, rows[name] = places.get(name, (0, -1))
                    self._pieces.setdefault(name, []).append((first, path))
                    if name in places:
                        there[name] = there.get(name, 0) + opened.get_slice(name).get_shape()[0]
        for name, found in there.items():
            if found != rows[name]:
                raise CheckpointError(
                    f"{folder} holds {found} of the {rows[name]} rows of {name}: a rank's file is missing. Remove "
                    "this folder and resume again."
                )

    def __getitem__(self, name: str) -> Tensor:
        found: list[Tensor] = []
        for _, path in sorted(self._pieces[name]):
            with safe_open(path, framework="pt") as opened:
                found.append(opened.get_tensor(name))
        return found[0] if len(found) == 1 else torch.cat(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)
