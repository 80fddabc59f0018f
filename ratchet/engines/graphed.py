"""A runner for a GPU: a contiguous cache that stays where it is, so that a decoding step can be replayed as a graph.

Called by `engines.build` for a CUDA device. Decoding one token launches some four hundred small kernels; one by one
they cost more than the arithmetic. Here a step over `R` rows and `L` positions, both rounded up, is recorded once as
a CUDA graph and replayed with one launch. On any other device the same code runs step by step, which is how it is
tested; it never asks the device for a number, so nothing waits for it but the sampler.

Not measured on a GPU yet: see bench/results/gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ratchet.core.rollout import Tokens
from ratchet.core.shape import ModelShape
from ratchet.kernels.layout import layout_of, pack
from ratchet.kernels.reference import OPS, OPS_BF16, attend, normed_and_rotated
from ratchet.policy.decoder import Decoder, Layer, after_attention

POSITIONS = 256
"""The cache grows, and steps are recorded, by this many positions."""
ROWS = 64
"""Beyond this many rows, steps are recorded by multiples of it; up to it, by powers of two."""


@dataclass(frozen=True, slots=True)
class Replay:
    """How a GPU decodes."""

    graphs: bool
    """Record each kind of step once as a CUDA graph, and replay it."""
    compiled: bool = False
    """Let `torch.compile` fuse the small kernels of a step."""


def why_no_graphs(device: torch.device) -> str:
    """Return why CUDA graphs cannot be had on a device; empty if they can."""
    if device.type != "cuda":
        return f"the device is {device.type}, not cuda"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if torch.version.hip is not None:
        return "only tried with CUDA, not with ROCm"
    return ""


def rounded_rows(rows: int) -> int:
    """Return the number of rows a step over so many is recorded for."""
    return 1 << (rows - 1).bit_length() if rows <= ROWS else -(-rows // ROWS) * ROWS


def rounded_positions(positions: int) -> int:
    """Return the number of positions a step over so many is recorded for."""
    return -(-positions // POSITIONS) * POSITIONS


class GraphedRunner:
    """See `engines.runner.Runner` for what the methods promise. Not for concurrent calls.

    The cache of a layer is (rows, G, positions, D). The live rows are always the first ones: a row that leaves is
    overwritten by the last. With bfloat16, matrices and cache are bfloat16, sums and the residual stream float32.
    """

    def __init__(
        self, shape: ModelShape, dtype: Literal["float32", "bfloat16"], device: torch.device, replay: Replay
    ) -> None:
        self.shape, self.device, self.replay = shape, device, replay
        self._precision = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self._decoder = Decoder(shape, OPS_BF16 if dtype == "bfloat16" else OPS).to(device).requires_grad_(False)
        for parameter in self._decoder.parameters():
            if parameter.dim() > 1:
                parameter.data = parameter.data.to(self._precision)
        self._compute: Callable[[int, int], Tensor] = self._forward
        if replay.compiled and device.type == "cuda":
            self._compute = torch.compile(self._forward, dynamic=False)
        self._graphing = replay.graphs and not why_no_graphs(device)
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.recorded = 0
        """Kinds of steps recorded so far, those that a growing cache made useless included."""
        self._rows: list[int] = []  # row number at each slot
        self._slot: dict[int, int] = {}
        self._next = 0
        self._length = np.zeros(0, dtype=np.int64)  # of each slot; the device has its own copy
        none = torch.zeros(0, dtype=torch.int64, device=device)
        self._order: tuple[list[int], Tensor] = ([], none)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._position, self._token = none, none  # of each slot, on the device
        self._make_room(0, 0)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._decoder.named_parameters():
            parameter.copy_(weights[name])  # in place: what was recorded reads from here

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        lengths = [len(p) for p in prompts]
        slots = self._open(lengths, copies, room)
        layout = layout_of(lengths, [-1] * len(prompts), self.device)
        x = F.embedding(pack(prompts, self.device), self._decoder.embedding).float()
        ends = np.concatenate([[0], np.cumsum(lengths)])
        for i, layer in enumerate(self._decoder.layers):
            assert isinstance(layer, Layer)
            q, k, v = self._project(layer, x, self._decoder.turns(i)[layout.position])
            for p, mine in enumerate(slots):
                span = slice(int(ends[p]), int(ends[p + 1]))
                self._keys[i][mine, :, : lengths[p]] = k[span].transpose(0, 1)
                self._values[i][mine, :, : lengths[p]] = v[span].transpose(0, 1)
            x = self._finish(layer, x, attend(q, k, v, layout, self.shape.window).float())
        rows = [self._rows[s] for s in slots]
        return rows, self._logits(x[torch.from_numpy(ends[1:] - 1).to(self.device)])

    @torch.inference_mode()
    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        slots, live = [self._slot[r] for r in rows], len(self._rows)
        if slots == list(range(live)):
            self._token[:live].copy_(tokens)
            logits = self._run(live)[:live]
            self._position[:live] += 1
        else:
            at = self._at(slots)
            self._token[at] = tokens
            # Rows that were not asked are computed too, and forget it: their next token overwrites its place.
            logits = self._run(live)[at]
            self._position[at] += 1
        self._length[slots] += 1
        return logits

    @torch.inference_mode()
    def release(self, rows: Sequence[int]) -> None:
        for row in rows:
            hole, last = self._slot.pop(row), len(self._rows) - 1
            if hole != last:
                self._length[hole] = self._length[last]
                self._position[hole] = self._position[last]
                used = int(self._length[last])
                for cache in (*self._keys, *self._values):
                    cache[hole, :, :used] = cache[last, :, :used]
                self._rows[hole] = self._rows[last]
                self._slot[self._rows[hole]] = hole
            self._rows.pop()
        self._length = self._length[: len(self._rows)]
        self._position[len(self._rows) :] = 0  # so that rounding up to more rows stays within what is recorded

    def trim(self) -> None:
        """Give the cache's memory back, and what was recorded with it, if no row is open."""
        if not self._rows:
            self._make_room(0, 0)

    @property
    def cache_bytes(self) -> int:
        """Memory of the cache now."""
        return sum(c.numel() * c.element_size() for c in (*self._keys, *self._values))

    def _run(self, live: int) -> Tensor:
        """Return the logits after the tokens in `_token`, at least `live` rows of them."""
        kind = rounded_rows(live), min(rounded_positions(int(self._length.max()) + 1), self._keys[0].shape[2])
        if not self._graphing:
            return self._compute(*kind)
        if kind not in self._graphs:
            self._graphs[kind] = self._record(kind)
        graph, logits = self._graphs[kind]
        graph.replay()
        return logits

    def _record(self, kind: tuple[int, int]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Return a graph of one kind of step and where it leaves its logits."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):  # once beforehand: libraries allocate and choose on first use
            self._compute(*kind)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._compute(*kind)
        self.recorded += 1
        return graph, logits

    def _forward(self, rows: int, longest: int) -> Tensor:
        """Return logits (rows, V) and write keys and values at each row's position. Rows beyond the live are junk."""
        shape, decoder, position = self.shape, self._decoder, self._position[:rows]
        index = torch.arange(rows, device=self.device)
        place = torch.arange(longest, device=self.device)
        seen = place <= position[:, None]
        if shape.window:
            seen &= place > position[:, None] - shape.window
        seen = seen[:, None, None]
        x = F.embedding(self._token[:rows], decoder.embedding).float()
        turned = decoder.cos_sin[position]
        upright = decoder.upright[position] if shape.unrotated else turned
        for i, layer in enumerate(decoder.layers):
            assert isinstance(layer, Layer)
            q, k, v = self._project(layer, x, upright if i in shape.unrotated else turned)
            self._keys[i][index, :, position] = k
            self._values[i][index, :, position] = v
            # The query heads of one key head stand as so many queries, so that no key is copied for them.
            mixed = F.scaled_dot_product_attention(
                q.view(rows, shape.key_heads, -1, shape.head_size),
                self._keys[i][:rows, :, :longest],
                self._values[i][:rows, :, :longest],
                attn_mask=seen,
            )
            x = self._finish(layer, x, mixed.reshape(rows, -1).float())
        return self._logits(x)

    def _open(self, lengths: Sequence[int], copies: Sequence[int], room: int) -> list[slice]:
        """Open rows for each prompt, growing the cache where needed; return the slots of each prompt."""
        first, total = len(self._rows), len(self._rows) + sum(copies)
        self._make_room(total, min(max(lengths) + room, self.shape.context))
        slots, at = [], first
        for count in copies:
            slots.append(slice(at, at + count))
            for slot in range(at, at + count):
                self._rows.append(self._next)
                self._slot[self._next] = slot
                self._next += 1
            at += count
        added = np.repeat(np.array(lengths, dtype=np.int64), np.array(copies))
        self._length = np.concatenate([self._length, added])
        self._position[first:total] = torch.from_numpy(added).to(self.device)
        return slots

    def _make_room(self, rows: int, positions: int) -> None:
        """Make the cache large enough; `(0, 0)` empties it. What was recorded for the old one is forgotten."""
        empty = not (rows or positions)
        have = (0, 0) if empty else (self._keys[0].shape[0], self._keys[0].shape[2])
        if not empty and have[0] >= rows and have[1] >= positions:
            return
        wide, long = (max(have[0], rounded_rows(max(rows, 1))), max(have[1], rounded_positions(positions)))
        size = (0, 0) if empty else (wide, long)
        kept = 0 if empty else len(self._rows)
        old = (self._keys, self._values, self._position) if kept else None
        self._graphs = {}
        self._pool = torch.cuda.graph_pool_handle() if self._graphing else None
        self._keys, self._values = ([self._cache(*size) for _ in range(self.shape.layers)] for _ in range(2))
        self._position = torch.zeros(size[0], dtype=torch.int64, device=self.device)
        self._token = torch.zeros(size[0], dtype=torch.int64, device=self.device)
        if old is not None:
            for new, before in ((self._keys, old[0]), (self._values, old[1])):
                for there, here in zip(new, before, strict=True):
                    there[:kept, :, : have[1]] = here[:kept]
            self._position[:kept] = old[2][:kept]

    def _cache(self, rows: int, positions: int) -> Tensor:
        shape = (rows, self.shape.key_heads, positions, self.shape.head_size)
        return torch.zeros(shape, dtype=self._precision, device=self.device)

    def _at(self, slots: list[int]) -> Tensor:
        """Return slots as a tensor on the device, sent there only when they change."""
        if self._order[0] != slots:
            self._order = slots, torch.tensor(slots, device=self.device)
        return self._order[1]

    def _project(self, layer: Layer, x: Tensor, cos_sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values in the cache's precision."""
        ops, eps = self._decoder.ops, self.shape.norm_eps
        qkv = ops.linear(ops.rms_norm(x, layer.attn_norm, eps), layer.qkv, layer.qkv_bias)
        q, k, v = normed_and_rotated(qkv, self._decoder.heads, layer.q_norm, layer.k_norm, cos_sin, eps)
        return q.to(self._precision), k.to(self._precision), v.to(self._precision)

    def _finish(self, layer: Layer, x: Tensor, mixed: Tensor) -> Tensor:
        return after_attention(self._decoder.ops, layer, x, mixed, self.shape.norm_eps)

    def _logits(self, x: Tensor) -> Tensor:
        decoder = self._decoder
        return decoder.ops.linear(decoder.ops.rms_norm(x, decoder.final_norm, self.shape.norm_eps), decoder.head, None)
