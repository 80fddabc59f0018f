"""Attention of a packed batch without padding, by torch's FlexAttention: on a GPU one fused kernel, which passes over
the blocks of keys that no query of a block sees. Source: Dong et al. 2024 (arXiv 2412.05496).

Chosen by ``policy.attention = "flex"``. Not run on a GPU yet: on a CPU, where torch has no backward pass for it, its
forward pass is tested against the reference.
"""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from ratchet.kernels.layout import Layout


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int = 0) -> Tensor:
    """See `reference.attend`."""
    work = _compiled() if q.is_cuda else flex_attention
    shared = q.shape[1] != k.shape[1]
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    out = work(q, k, v, block_mask=_mask(layout, window), enable_gqa=shared)
    return out[0].transpose(0, 1).flatten(1)


@lru_cache(maxsize=2)
def _mask(layout: Layout, window: int) -> BlockMask:
    """Return which blocks of keys are seen by which blocks of queries, and what is seen within them.

    The layers of a pass, and its backward pass, ask for the same one.
    """
    lengths, position = layout.start[1:] - layout.start[:-1], layout.position
    segment = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(position.device)
    parent = torch.repeat_interleave(layout.parent, lengths).to(position.device)
    oldest = position - (window or layout.num_tokens) + 1

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        ours = (segment[key] == segment[query]) | (segment[key] == parent[query])
        return ours & (position[key] <= position[query]) & (position[key] >= oldest[query])

    n = layout.num_tokens
    return create_block_mask(seen, B=None, H=None, Q_LEN=n, KV_LEN=n, device=str(position.device))


@cache
def _compiled():  # type: ignore[no-untyped-def]
    """Return the fused kernel, for any number of tokens."""
    return torch.compile(flex_attention, dynamic=True)
