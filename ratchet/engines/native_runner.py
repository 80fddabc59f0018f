"""Decoding in C++: a whole step through all layers is one call, and a prompt shared by many rows is stored once.

Called by the local engine in place of `dense.DenseRunner` where `kernels.native.available()`. It owns a packed copy
of the weights and the key-value cache; it never samples. Memory for keys and values grows by pages of 32 tokens as
rows grow, and is reused, not returned, when rows leave; `trim` returns it.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ratchet.core.rollout import Tokens
from ratchet.core.shape import ModelShape
from ratchet.kernels import native
from ratchet.policy.rope import rope_table

_SLOTS = (
    "embedding", "head", "final_norm", "attn_norm", "qkv", "qkv_bias", "q_norm", "k_norm", "out", "mlp_norm",
    "gate_up", "down",
)  # fmt: skip
"""Kinds of weights, in the order of `Slot` in decoder.cpp."""


class NativeRunner:
    """A `Runner` on the CPU. Logits of a row do not depend on the other rows of a step, nor on the number of threads.

    With ``bfloat16``, weights and cache are rounded to bfloat16, and sums are float32. Not for concurrent calls.
    """

    def __init__(self, shape: ModelShape, dtype: Literal["float32", "bfloat16"]) -> None:
        if not native.runs_heads_of(shape.head_size):
            raise ValueError(f"head size {shape.head_size} has no C++ kernel; use DenseRunner")
        if not shape.is_plain:
            raise ValueError(f"{shape} has parts the C++ decoder lacks; use DenseRunner")
        self.shape = shape
        self._library = native.library()
        heads = (shape.query_heads, shape.key_heads, shape.head_size)
        sizes = (shape.vocab, shape.hidden, shape.layers, *heads, shape.intermediate, shape.context)
        dimensions = (ctypes.c_int64 * 10)(*sizes, shape.qk_norm, shape.qkv_bias)
        angles = rope_table(shape, shape.context)
        bf16 = dtype == "bfloat16"
        self._decoder = self._library.ratchet_decoder_new(dimensions, shape.norm_eps, angles.data_ptr(), bf16)
        weakref.finalize(self, self._library.ratchet_decoder_free, self._decoder)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy in weights named as `Decoder.named_parameters` names them. Rows in flight keep their cache."""
        for name, weight in weights.items():
            layer, _, kind = name.removeprefix("layers.").rpartition(".")
            if name == "untied_head":
                kind = "head"
            self._load(kind, int(layer or 0), weight)
        if self.shape.tied and "embedding" in weights:
            self._load("head", 0, weights["embedding"])

    def _load(self, kind: str, layer: int, weight: Tensor) -> None:
        plain = weight.detach().to("cpu", torch.float32).contiguous()
        threads = torch.get_num_threads()
        self._library.ratchet_decoder_load(self._decoder, _SLOTS.index(kind), layer, plain.data_ptr(), threads)

    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        """Run each distinct prompt once and open `copies[i]` rows that continue it, each with `room` new tokens.

        Returns the row numbers per prompt, and the (len(prompts), V) float32 logits after each prompt.
        """
        lengths = [len(prompt) for prompt in prompts]
        if not all(0 < n < self.shape.context for n in lengths):
            raise ValueError(f"prompts must have 1 to {self.shape.context - 1} tokens")
        logits = torch.empty(len(prompts), self.shape.vocab)
        if not prompts:
            return [], logits
        start = np.zeros(len(prompts) + 1, dtype=np.int64)
        np.cumsum(lengths, out=start[1:])
        tokens = np.concatenate(prompts).astype(np.int64)
        many = np.array(copies, dtype=np.int64)
        rows = np.empty(int(many.sum()), dtype=np.int64)
        wrong = self._library.ratchet_decoder_prefill(
            self._decoder, *map(_ptr, (tokens, start)), len(prompts), *map(_ptr, (many, rows)), logits.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        if wrong >= 0:
            raise ValueError(f"token {tokens[wrong]} is not in the vocabulary of {self.shape.vocab}")
        return [part.tolist() for part in np.split(rows, np.cumsum(many)[:-1])], logits

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Append one token to each row and return the (B, V) float32 logits after it. Shapes: tokens (B,) int64.

        Rows that share a prompt are fastest next to each other; the order changes no result.
        """
        assert len(rows) == len(tokens)
        logits = torch.empty(len(rows), self.shape.vocab)
        numbers = np.array(rows, dtype=np.int64)
        tokens = tokens.to("cpu", torch.int64).contiguous()
        wrong = self._library.ratchet_decoder_step(
            self._decoder, _ptr(numbers), tokens.data_ptr(), len(numbers), logits.data_ptr(), torch.get_num_threads()
        )
        if wrong >= 0:
            raise ValueError(
                f"row {rows[wrong]} cannot take token {int(tokens[wrong])}: the row is not open, its context of "
                f"{self.shape.context} is full, or the token is not in the vocabulary of {self.shape.vocab}"
            )
        return logits

    def release(self, rows: Sequence[int]) -> None:
        """Forget rows; the next rows use their memory."""
        numbers = np.array(rows, dtype=np.int64)
        wrong = self._library.ratchet_decoder_release(self._decoder, _ptr(numbers), len(numbers))
        if wrong >= 0:
            raise ValueError(f"row {rows[wrong]} is not open")

    def trim(self) -> None:
        """Return the cache's memory to the system, if no row is open."""
        self._library.ratchet_decoder_trim(self._decoder)


def _ptr(array: NDArray[np.int64]) -> int:
    return array.ctypes.data
