"""How token sequences are packed without padding, and how a prompt shared by many answers is stored once.

A packed batch is one flat row of T tokens, cut into segments. A segment may have a *parent*: its tokens come first,
as if they stood before the segment's own. So the eight answers to one prompt are eight segments with one parent, and
the prompt is computed once, forward and backward. Parents have no parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ratchet.core.rollout import Tokens


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the segments of a packed batch begin, and which segment each continues."""

    start: Tensor
    """(P+1,) int64 on the CPU: segment p owns tokens start[p] .. start[p+1]-1."""
    parent: Tensor
    """(P,) int64 on the CPU: index of the parent segment, always smaller than p, or -1."""
    position: Tensor
    """(T,) int64 on the device: place of each token in its full sequence, the parent's tokens included."""

    @property
    def num_tokens(self) -> int:
        return int(self.start[-1])

    @property
    def num_segments(self) -> int:
        return len(self.parent)

    @cached_property
    def rectangles(self) -> tuple[Rectangle, ...]:
        """The same layout as padded rectangles, for attention written with dense tensors."""
        lengths = (self.start[1:] - self.start[:-1]).tolist()
        parents, starts = self.parent.tolist(), self.start.tolist()
        roots = [p for p in range(len(parents)) if parents[p] < 0 and lengths[p] > 0]
        children = [p for p in range(len(parents)) if parents[p] >= 0 and lengths[p] > 0]
        return tuple(
            _rectangle(chosen, starts, lengths, parents, self.position.device) for chosen in (roots, children) if chosen
        )


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Some segments of a layout as one padded block: R rows of Q queries and K keys."""

    query: Tensor
    """(R, Q) index of each query token; padding repeats token 0 of the batch."""
    key: Tensor
    """(R, K) index of each key token, the parent's first; padding repeats token 0 of the batch."""
    visible: Tensor
    """(R, 1, Q, K) bool: which keys a query sees."""
    flat: Tensor
    """(M,) places in the flattened (R*Q) queries that are real tokens."""
    token: Tensor
    """(M,) the token each of those places is."""


def layout_of(lengths: Sequence[int], parents: Sequence[int], device: torch.device) -> Layout:
    """Return the layout of segments with these lengths and parents (-1 for none), in this order."""
    start = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=start[1:])
    before = np.array([lengths[p] if p >= 0 else 0 for p in parents], dtype=np.int64)
    position = np.arange(start[-1]) - np.repeat(start[:-1] - before, lengths)
    return Layout(
        start=torch.from_numpy(start),
        parent=torch.tensor(list(parents), dtype=torch.int64),
        position=torch.from_numpy(position).to(device),
    )


def pack(segments: Sequence[Tokens], device: torch.device) -> Tensor:
    """Return the tokens of all segments as one (T,) int64 tensor."""
    flat = np.concatenate(segments) if len(segments) else np.zeros(0, dtype=np.int32)
    return torch.from_numpy(flat.astype(np.int64)).to(device)


def _rectangle(
    chosen: list[int], starts: list[int], lengths: list[int], parents: list[int], device: torch.device
) -> Rectangle:
    """Build the padded block for `chosen` segments."""
    prefix = [lengths[parents[p]] if parents[p] >= 0 else 0 for p in chosen]
    own = [lengths[p] for p in chosen]
    rows, width = len(chosen), max(own)
    keys = max(a + b for a, b in zip(prefix, own, strict=True))
    query = np.zeros((rows, width), dtype=np.int64)
    key = np.zeros((rows, keys), dtype=np.int64)
    real = np.zeros((rows, width), dtype=bool)
    for r, p in enumerate(chosen):
        mine = np.arange(starts[p], starts[p] + own[r])
        query[r, : own[r]], real[r, : own[r]] = mine, True
        if prefix[r]:
            first = starts[parents[p]]
            key[r, : prefix[r]] = np.arange(first, first + prefix[r])
        key[r, prefix[r] : prefix[r] + own[r]] = mine
    before = np.array(prefix)[:, None, None]
    # A padded query sees key 0, so that its softmax is finite; its output is never read.
    visible = np.arange(keys)[None, None, :] <= before + np.arange(width)[None, :, None]
    flat = np.flatnonzero(real)
    arrays = (query, key, visible[:, None], flat, query.reshape(-1)[flat])
    return Rectangle(*(torch.from_numpy(a).to(device) for a in arrays))
