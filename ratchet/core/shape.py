"""The numbers that define a decoder, and what its arithmetic costs. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers that define a decoder of the Llama form."""

    family: str
    vocab: int
    hidden: int
    layers: int
    query_heads: int
    key_heads: int
    head_size: int
    intermediate: int
    context: int
    """Most positions the model was made for."""
    rope_base: float
    norm_eps: float
    tied: bool
    """Whether the output head is the embedding."""
    qk_norm: bool
    """Queries and keys are normalised per head (Qwen3)."""
    qkv_bias: bool
    """The query, key and value projections have biases (Qwen2)."""

    @property
    def num_parameters(self) -> int:
        """Exact number of weights."""
        wide = (self.query_heads + 2 * self.key_heads) * self.head_size
        layer = self.hidden * wide + self.query_heads * self.head_size * self.hidden
        layer += 3 * self.hidden * self.intermediate + 2 * self.hidden
        layer += wide if self.qkv_bias else 0
        layer += 2 * self.head_size if self.qk_norm else 0
        return self.layers * layer + self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def kv_floats_per_token(self) -> int:
        """Numbers a key-value cache holds for one token."""
        return 2 * self.layers * self.key_heads * self.head_size

    @property
    def matrix_weights(self) -> int:
        """Weights of one layer stack that take part in a matrix product for every token; the head is apart."""
        wide = (self.query_heads + 2 * self.key_heads) * self.head_size
        return self.layers * (
            self.hidden * wide + self.query_heads * self.head_size * self.hidden + 3 * self.hidden * self.intermediate
        )

    def forward_flops(self, tokens: int, pairs: int, logits: int) -> int:
        """Return the floating-point operations of a forward pass, matrix products and attention only.

        `tokens` run through the layers, `pairs` is the sum over tokens of the tokens each attends to (itself
        included), `logits` is how many rows of logits are made. A multiply-add counts as two operations. A backward
        pass costs twice the forward.
        """
        attention = 4 * self.layers * self.query_heads * self.head_size * pairs
        return 2 * self.matrix_weights * tokens + attention + 2 * self.vocab * self.hidden * logits
