"""The decoder: one forward pass of the Llama form, used for sampling, log-probabilities and training alike.

Weights are kept fused (query-key-value in one matrix, gate-up in one) because small matrix products cost more than
their arithmetic; `policy.checkpoint` splits and joins them when it reads and writes Hugging Face files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ratchet.core.shape import ModelShape
from ratchet.kernels.layout import Layout
from ratchet.kernels.reference import OPS, Heads, Ops
from ratchet.policy.rope import rope_table, upright_table


class Layer(nn.Module):
    """Weights of one layer: attention, then feed-forward, each behind its norm."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        wide = (shape.query_heads + 2 * shape.key_heads) * shape.head_size
        self.attn_norm = nn.Parameter(torch.ones(shape.hidden))
        self.qkv = nn.Parameter(torch.empty(wide, shape.hidden))
        self.qkv_bias = nn.Parameter(torch.zeros(wide)) if shape.qkv_bias else None
        self.q_norm = nn.Parameter(torch.ones(shape.head_size)) if shape.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(shape.head_size)) if shape.qk_norm else None
        self.out = nn.Parameter(torch.empty(shape.hidden, shape.query_heads * shape.head_size))
        self.out_bias = nn.Parameter(torch.zeros(shape.hidden)) if shape.out_bias else None
        self.mlp_norm = nn.Parameter(torch.ones(shape.hidden))
        self.gate_up = nn.Parameter(torch.empty(2 * shape.intermediate, shape.hidden))
        self.gate_up_bias = nn.Parameter(torch.zeros(2 * shape.intermediate)) if shape.mlp_bias else None
        self.down = nn.Parameter(torch.empty(shape.hidden, shape.intermediate))
        self.down_bias = nn.Parameter(torch.zeros(shape.hidden)) if shape.mlp_bias else None

    def forward(self, x: Tensor, through: Callable[[Layer, Tensor], Tensor]) -> Tensor:
        """Return ``through(self, x)``. Only a call of a module tells FSDP2 that the module's weights are needed."""
        return through(self, x)


def after_attention(ops: Ops, layer: Layer, x: Tensor, mixed: Tensor, eps: float) -> Tensor:
    """Return the residual stream after a layer whose attention gave `mixed`. Shapes: x (T, C), mixed (T, H*D)."""
    x = x + ops.linear(mixed, layer.out, layer.out_bias)
    gate_up = ops.linear(ops.rms_norm(x, layer.mlp_norm, eps), layer.gate_up, layer.gate_up_bias)
    return x + ops.linear(ops.swiglu(gate_up), layer.down, layer.down_bias)


class Decoder(nn.Module):
    """Embedding, layers, final norm, head. `forward` returns hidden states; logits are made where they are needed."""

    cos_sin: Tensor
    upright: Tensor
    checkpointing: bool = False
    """Whether a layer's activations are computed again for its backward pass instead of kept."""

    def __init__(self, shape: ModelShape, ops: Ops = OPS) -> None:
        super().__init__()
        self.shape, self.ops = shape, ops
        self.heads = Heads(shape.query_heads, shape.key_heads, shape.head_size, shape.window)
        self.embedding = nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_norm = nn.Parameter(torch.ones(shape.hidden))
        self.untied_head = None if shape.tied else nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        # Built here and not lazily: a table cached under inference_mode could not be used under autograd.
        self.register_buffer("cos_sin", rope_table(shape, shape.context), persistent=False)
        self.register_buffer("upright", upright_table(shape, shape.context if shape.unrotated else 0), persistent=False)

    @property
    def head(self) -> Tensor:
        """(V, C) output projection: the embedding itself when tied."""
        return self.embedding if self.untied_head is None else self.untied_head

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Return the final hidden states of packed tokens. Shapes: tokens (T,), result (T, C)."""
        x = torch.nn.functional.embedding(tokens, self.embedding)
        again = self.checkpointing and torch.is_grad_enabled()
        for i, layer in enumerate(self.layers):
            through = partial(self._through, self.turns(i), layout)
            x = checkpoint(layer, x, through, use_reentrant=False) if again else layer(x, through)
        return self.ops.rms_norm(x, self.final_norm, self.shape.norm_eps)

    def turns(self, layer: int) -> Tensor:
        """Return the rotary table of a layer."""
        return self.upright if layer in self.shape.unrotated else self.cos_sin

    def _through(self, table: Tensor, layout: Layout, layer: Layer, x: Tensor) -> Tensor:
        ops, eps = self.ops, self.shape.norm_eps
        qkv = ops.linear(ops.rms_norm(x, layer.attn_norm, eps), layer.qkv, layer.qkv_bias)
        mixed = ops.attention(qkv, self.heads, layer.q_norm, layer.k_norm, table, eps, layout)
        return after_attention(ops, layer, x, mixed, eps)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw random weights: each matrix keeps the variance of its input, residual writers scaled by depth."""
        depth = 1.0 / math.sqrt(2 * self.shape.layers)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.dim() < 2:
                    continue
                std = 1.0 / math.sqrt(weight.shape[1])
                if name.endswith((".out", ".down")):
                    std *= depth
                elif name == "untied_head":
                    std = 0.02
                elif name == "embedding":
                    std = 0.2 if self.untied_head is not None else 0.05
                weight.normal_(0.0, std, generator=generator)
