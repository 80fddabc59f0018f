"""The numbers that define a decoder, and what its arithmetic costs. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched to longer contexts than a model was first trained for."""

    kind: str
    """``linear``, ``llama3`` or ``yarn``."""
    factor: float
    original: int = 0
    """Positions of the first training; llama3 and yarn."""
    low: float = 1.0
    """llama3: frequencies that turn less often than this over `original` are divided by the factor."""
    high: float = 4.0
    """llama3: those that turn more often than this stay."""
    beta_fast: float = 32.0
    """yarn: turns over `original` from which on a frequency stays."""
    beta_slow: float = 1.0
    """yarn: turns up to which it is divided by the factor."""
    attention: float = 1.0
    """yarn: what cosines and sines are multiplied by."""
    truncate: bool = True
    """yarn: whether the bounds between channels are rounded."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers that define a decoder of the Llama form, or, with `counted`, what is known of another one."""

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
    out_bias: bool = False
    """The attention's output projection has a bias."""
    mlp_bias: bool = False
    """The feed-forward projections have biases."""
    window: int = 0
    """Newest tokens that each token attends to, itself included; 0 for all."""
    unrotated: tuple[int, ...] = ()
    """Layers without rotary positions (SmolLM3)."""
    scaling: RopeScaling | None = None
    counted: int = 0
    """Number of weights of a decoder of another form, counted; 0 for the Llama form, where it follows."""

    @property
    def is_plain(self) -> bool:
        """Whether it has nothing but what the C++ decoder computes."""
        return not (self.out_bias or self.mlp_bias or self.window or self.unrotated or self.counted)

    @property
    def num_parameters(self) -> int:
        """Exact number of weights."""
        if self.counted:
            return self.counted
        wide = (self.query_heads + 2 * self.key_heads) * self.head_size
        layer = self.hidden * wide + self.query_heads * self.head_size * self.hidden
        layer += 3 * self.hidden * self.intermediate + 2 * self.hidden
        layer += wide if self.qkv_bias else 0
        layer += 2 * self.head_size if self.qk_norm else 0
        layer += self.hidden if self.out_bias else 0
        layer += 2 * self.intermediate + self.hidden if self.mlp_bias else 0
        return self.layers * layer + self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def kv_floats_per_token(self) -> int:
        """Numbers a key-value cache holds for one token."""
        return 2 * self.layers * self.key_heads * self.head_size

    @property
    def matrix_weights(self) -> int:
        """Weights of one layer stack that take part in a matrix product for every token; the head is apart.

        Of a decoder of another form, all but embedding and head: too many for a mixture of experts.
        """
        if self.counted:
            return max(0, self.counted - self.vocab * self.hidden * (1 if self.tied else 2))
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
