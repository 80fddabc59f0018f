"""The decoder: one forward pass of the Llama form, used for sampling, log-probabilities and training alike.

Weights are kept fused (query-key-value in one matrix, gate-up in one) because small matrix products cost more than
their arithmetic; `policy.checkpoint` splits and joins them when it reads and writes Hugging Face files.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ratchet.core.shape import ModelShape
from ratchet.kernels.layout import Layout
from ratchet.kernels.reference import OPS, Heads, Ops


def rope_table(shape: ModelShape, positions: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the (positions, D) table of cosines (first half) and sines of the rotary embedding."""
    half = torch.arange(0, shape.head_size, 2, dtype=torch.float32) / shape.head_size
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), 1.0 / shape.rope_base**half)
    return torch.cat([angle.cos(), angle.sin()], dim=1).to(device)


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
        self.mlp_norm = nn.Parameter(torch.ones(shape.hidden))
        self.gate_up = nn.Parameter(torch.empty(2 * shape.intermediate, shape.hidden))
        self.down = nn.Parameter(torch.empty(shape.hidden, shape.intermediate))


class Decoder(nn.Module):
    """Embedding, layers, final norm, head. `forward` returns hidden states; logits are made where they are needed."""

    cos_sin: Tensor

    def __init__(self, shape: ModelShape, ops: Ops = OPS) -> None:
        super().__init__()
        self.shape, self.ops = shape, ops
        self.heads = Heads(shape.query_heads, shape.key_heads, shape.head_size)
        self.embedding = nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_norm = nn.Parameter(torch.ones(shape.hidden))
        self.untied_head = None if shape.tied else nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        # Built here and not lazily: a table cached under inference_mode could not be used under autograd.
        self.register_buffer("cos_sin", rope_table(shape, shape.context), persistent=False)

    @property
    def head(self) -> Tensor:
        """(V, C) output projection: the embedding itself when tied."""
        return self.embedding if self.untied_head is None else self.untied_head

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Return the final hidden states of packed tokens. Shapes: tokens (T,), result (T, C)."""
        ops, eps = self.ops, self.shape.norm_eps
        x = torch.nn.functional.embedding(tokens, self.embedding)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            qkv = ops.linear(ops.rms_norm(x, layer.attn_norm, eps), layer.qkv, layer.qkv_bias)
            mixed = ops.attention(qkv, self.heads, layer.q_norm, layer.k_norm, self.cos_sin, eps, layout)
            x = x + ops.linear(mixed, layer.out, None)
            gate_up = ops.linear(ops.rms_norm(x, layer.mlp_norm, eps), layer.gate_up, None)
            x = x + ops.linear(ops.swiglu(gate_up), layer.down, None)
        return ops.rms_norm(x, self.final_norm, eps)

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
