"""A runner in plain torch, for any device: one dense key-value cache, whose live rows always stand together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ratchet.core.rollout import Tokens
from ratchet.core.shape import ModelShape
from ratchet.kernels.layout import layout_of, pack
from ratchet.kernels.reference import Ops, attend, normed_and_rotated
from ratchet.policy.decoder import Decoder, Layer, after_attention

CHUNK = 64
"""The cache grows by whole chunks of this many tokens."""


class DenseRunner:
    """See `engines.runner.Runner` for what the methods promise.

    The cache is (rows, G, positions, D) per layer. A row that leaves is overwritten by the last one, so the live rows
    are always the first ones and attention reads a view instead of a gathered copy.
    """

    def __init__(self, shape: ModelShape, ops: Ops, device: torch.device) -> None:
        self.shape, self.device = shape, device
        self._decoder = Decoder(shape, ops).to(device).requires_grad_(False)
        self._rows: list[int] = []  # row number at each slot
        self._slot: dict[int, int] = {}
        self._next = 0
        self._length = torch.zeros(0, dtype=torch.int64, device=device)
        self._keys = [self._empty(0, 0) for _ in range(shape.layers)]
        self._values = [self._empty(0, 0) for _ in range(shape.layers)]

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._decoder.named_parameters():
            parameter.copy_(weights[name])

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        lengths = [len(p) for p in prompts]
        slots = self._open(lengths, copies, room)
        layout = layout_of(lengths, [-1] * len(prompts), self.device)
        x = F.embedding(pack(prompts, self.device), self._decoder.embedding)
        ends = layout.start.tolist()
        for i, layer in enumerate(self._decoder.layers):
            assert isinstance(layer, Layer)
            q, k, v = self._project(layer, x, self._decoder.turns(i)[layout.position])
            for p, mine in enumerate(slots):
                span = slice(ends[p], ends[p + 1])
                self._keys[i][mine, :, : lengths[p]] = k[span].transpose(0, 1)
                self._values[i][mine, :, : lengths[p]] = v[span].transpose(0, 1)
            x = self._finish(layer, x, attend(q, k, v, layout, self.shape.window))
        rows = [[self._rows[s] for s in mine.tolist()] for mine in slots]
        return rows, self._logits(x[layout.start[1:].to(self.device) - 1])

    @torch.inference_mode()
    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        slots = [self._slot[r] for r in rows]
        together = slots == list(range(len(slots)))
        at: slice | Tensor = slice(0, len(slots)) if together else torch.tensor(slots, device=self.device)
        position = self._length[at]
        index = torch.arange(len(slots), device=self.device) if together else at
        longest = int(position.max()) + 1
        place = torch.arange(longest, device=self.device)
        seen = place <= position[:, None]
        if self.shape.window:
            seen &= place > position[:, None] - self.shape.window
        seen = seen[:, None, None]
        x = F.embedding(tokens, self._decoder.embedding)
        for i, layer in enumerate(self._decoder.layers):
            assert isinstance(layer, Layer)
            q, k, v = self._project(layer, x, self._decoder.turns(i)[position])
            self._keys[i][index, :, position] = k
            self._values[i][index, :, position] = v
            mixed = F.scaled_dot_product_attention(
                q[:, :, None],
                self._keys[i][at][:, :, :longest],
                self._values[i][at][:, :, :longest],
                attn_mask=seen,
                enable_gqa=self.shape.query_heads != self.shape.key_heads,
            )
            x = self._finish(layer, x, mixed.reshape(len(x), -1))
        self._length[at] = position + 1
        return self._logits(x)

    @torch.inference_mode()
    def release(self, rows: Sequence[int]) -> None:
        for row in rows:
            hole, last = self._slot.pop(row), len(self._rows) - 1
            if hole != last:
                self._length[hole] = self._length[last]
                for cache in (*self._keys, *self._values):
                    cache[hole] = cache[last]
                self._rows[hole] = self._rows[last]
                self._slot[self._rows[hole]] = hole
            self._rows.pop()
        if not self._rows:  # nobody is left: give the memory back
            self._keys = [self._empty(0, 0) for _ in self._keys]
            self._values = [self._empty(0, 0) for _ in self._values]

    def _empty(self, rows: int, positions: int) -> Tensor:
        return torch.zeros(rows, self.shape.key_heads, positions, self.shape.head_size, device=self.device)

    def _open(self, lengths: Sequence[int], copies: Sequence[int], room: int) -> list[Tensor]:
        """Open rows for each prompt, growing the cache where needed; return the slots of each prompt."""
        slots, first = [], len(self._rows)
        for count in copies:
            mine = range(len(self._rows), len(self._rows) + count)
            for slot in mine:
                self._rows.append(self._next)
                self._slot[self._next] = slot
                self._next += 1
            slots.append(torch.tensor(list(mine), device=self.device))
        per_row = torch.repeat_interleave(torch.tensor(lengths), torch.tensor(list(copies))).to(self.device)
        self._length = torch.cat([self._length[:first], per_row])
        have_rows, have = self._keys[0].shape[0], self._keys[0].shape[2]
        need = -(-(max(lengths) + room) // CHUNK) * CHUNK
        if have_rows < len(self._rows) or have < need:
            for caches in (self._keys, self._values):
                for i, old in enumerate(caches):
                    caches[i] = self._empty(max(have_rows, len(self._rows)), max(have, need))
                    caches[i][:have_rows, :, :have] = old
        return slots

    def _project(self, layer: Layer, x: Tensor, cos_sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ops, eps = self._decoder.ops, self.shape.norm_eps
        qkv = ops.linear(ops.rms_norm(x, layer.attn_norm, eps), layer.qkv, layer.qkv_bias)
        return normed_and_rotated(qkv, self._decoder.heads, layer.q_norm, layer.k_norm, cos_sin, eps)

    def _finish(self, layer: Layer, x: Tensor, mixed: Tensor) -> Tensor:
        return after_attention(self._decoder.ops, layer, x, mixed, self.shape.norm_eps)

    def _logits(self, x: Tensor) -> Tensor:
        decoder = self._decoder
        normed = decoder.ops.rms_norm(x, decoder.final_norm, self.shape.norm_eps)
        return decoder.ops.linear(normed, decoder.head, None).float()
