"""The decoder's arithmetic in plain torch: the definition that every other version must equal. Any device.

Shapes: T packed tokens, D size of a head, H query heads, G key/value heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ratchet.kernels.layout import Layout, Rectangle


@dataclass(frozen=True, slots=True)
class Heads:
    """How the channels of a fused query-key-value projection divide: (H + 2G) heads of D channels."""

    query: int
    key: int
    size: int
    window: int = 0
    """Newest tokens that a query sees, its own included; 0 for all."""


@dataclass(frozen=True, slots=True)
class Ops:
    """The functions a decoder calls. All take and return float32 unless their docstring says otherwise."""

    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    swiglu: Callable[[Tensor], Tensor]
    attention: Callable[..., Tensor]
    token_stats: Callable[..., TokenStats]


@dataclass(frozen=True, slots=True)
class TokenStats:
    """What the trainer needs to know of each predicted token."""

    logprob: Tensor
    """(N,) log-probability of the target."""
    entropy: Tensor
    """(N,) entropy of the whole distribution, in nats."""
    kl: Tensor
    """(N,) exact KL divergence to the reference distribution, in nats; zeros without a reference."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T (+ bias). Shapes: x (T, K), weight (O, K), result (T, O)."""
    return F.linear(x, weight, bias)


def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the product computed on bfloat16 copies of x and weight, as float32; gradients likewise.

    Weights stay float32 (the master copy); only the matrix product is rounded.
    """
    y = F.linear(x.bfloat16(), weight.bfloat16()).float()
    return y if bias is None else y + bias


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / rms(x) * weight over the last dimension. Source: Zhang & Sennrich 2019 (arXiv 1910.07467)."""
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up for a fused (T, 2I) projection. Source: Shazeer 2020 (arXiv 2002.05202)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rotate(x: Tensor, cos_sin: Tensor) -> Tensor:
    """Return x with rotary positions applied, halves convention (as in Llama checkpoints).

    Shapes: x (T, heads, D); cos_sin (T, D), the first half cosines, the second sines.
    Source: Su et al. 2021 (arXiv 2104.09864).
    """
    cos, sin = cos_sin[:, None].chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def normed_and_rotated(
    qkv: Tensor, heads: Heads, q_norm: Tensor | None, k_norm: Tensor | None, cos_sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Split a fused (T, (H+2G)*D) projection; normalise (where weights are given) and rotate queries and keys.

    Shapes: cos_sin (T, D), already gathered for each token. Returns q (T, H, D), k (T, G, D), v (T, G, D).
    """
    q, k, v = qkv.view(len(qkv), heads.query + 2 * heads.key, heads.size).split([heads.query, heads.key, heads.key], 1)
    if q_norm is not None:
        q = rms_norm(q, q_norm, eps)
    if k_norm is not None:
        k = rms_norm(k, k_norm, eps)
    return rotate(q, cos_sin), rotate(k, cos_sin), v


def attention(
    qkv: Tensor,
    heads: Heads,
    q_norm: Tensor | None,
    k_norm: Tensor | None,
    cos_sin: Tensor,
    eps: float,
    layout: Layout,
    *,
    bf16: bool = False,
    work: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Return causal attention of packed segments, each seeing its parent's tokens and its own past.

    `bf16` computes it on bfloat16 copies of queries, keys and values, as a GPU's sampler holds them; the result is
    float32. `work` is what computes it, `attend` if None.

    Shapes: qkv (T, (H+2G)*D) raw projection; cos_sin (positions, D) whole table; result (T, H*D).
    """
    q, k, v = normed_and_rotated(qkv, heads, q_norm, k_norm, cos_sin[layout.position], eps)
    if bf16:
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    mixed = (work or attend)(q, k, v, layout, heads.window)
    return mixed.float() if bf16 else mixed


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int = 0) -> Tensor:
    """Return causal attention of packed segments, over the newest `window` tokens unless it is 0.

    Shapes: q (T, H, D), k and v (T, G, D), result (T, H*D).
    """
    width, groups = q.shape[1] * q.shape[2], q.shape[1] // k.shape[1]
    if groups > 1 and q.is_cuda:
        # No fused kernel for GPUs is sure to take a mask and shared keys: torch would hold every score, in float32.
        k, v, groups = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), 1
    out = q.new_zeros(len(q), width)
    for block in layout.rectangles:
        attended = F.scaled_dot_product_attention(
            q[block.query].transpose(1, 2),
            k[block.key].transpose(1, 2),
            v[block.key].transpose(1, 2),
            attn_mask=_seen(block, layout, window) if window else block.visible,
            enable_gqa=groups > 1,
        )
        rows = attended.transpose(1, 2).reshape(-1, width)
        out = out.index_copy(0, block.token, rows[block.flat])
    return out


def _seen(block: Rectangle, layout: Layout, window: int) -> Tensor:
    """Return (R, 1, Q, K) bool: the visible keys that are not too old."""
    query, key = layout.position[block.query], layout.position[block.key]
    return block.visible & (key[:, None, None, :] > query[:, None, :, None] - window)


def token_stats(
    hidden: Tensor,
    head: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    reference: tuple[Tensor, Tensor] | None = None,
    max_logits: int = 1 << 22,
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = linear,
) -> TokenStats:
    """Return log-probability of the target, entropy, and KL to a reference for each row of `hidden`.

    Never holds more than `max_logits` logits at once, forward or backward: logits are recomputed in backward. All
    three results carry gradients to `hidden` and `head`.

    Shapes: hidden (N, C), head (V, C), target (N,); reference is (hidden (N, C'), head (V, C')) of a frozen policy.
    """
    ref_hidden, ref_head = reference if reference is not None else (hidden.new_zeros(0), head.new_zeros(0))
    rows = max(1, max_logits // head.shape[0])
    stats = _TokenStats.apply(  # type: ignore[no-untyped-call]
        hidden, head, target, temperature, ref_hidden, ref_head, rows, product
    )
    return TokenStats(*stats)


class _TokenStats(torch.autograd.Function):
    """Chunked log-softmax with hand-written gradients.

    With z = logits / temperature, p = softmax(z), l = log p, H = -sum p l, D = sum p (l - l_ref):
    d l[y]/dz = onehot(y) - p;   dH/dz = -p (l + H);   dD/dz = p ((l - l_ref) - D).
    """

    @staticmethod
    def forward(ctx, hidden, head, target, temperature, ref_hidden, ref_head, rows, product):  # type: ignore[no-untyped-def]
        logprob, entropy, kl = [], [], []
        whole, ref_whole = _rounded(head, product), _rounded(ref_head, product)
        for a in range(0, len(hidden), rows):
            logp = _log_softmax(hidden[a : a + rows], whole, temperature, product)
            p = logp.exp()
            logprob.append(logp.gather(1, target[a : a + rows, None])[:, 0])
            entropy.append(-(p * logp).sum(-1))
            if len(ref_hidden):
                ref = _log_softmax(ref_hidden[a : a + rows], ref_whole, temperature, product)
                kl.append((p * (logp - ref)).sum(-1))
            else:
                kl.append(torch.zeros_like(entropy[-1]))
        ctx.save_for_backward(hidden, head, target, ref_hidden, ref_head)
        ctx.args = (temperature, rows, product)
        ctx.set_materialize_grads(False)
        empty = hidden.new_zeros(0, dtype=torch.float32)
        return tuple(torch.cat(x) if x else empty for x in (logprob, entropy, kl))

    @staticmethod
    def backward(ctx, g_logprob, g_entropy, g_kl):  # type: ignore[no-untyped-def]
        hidden, head, target, ref_hidden, ref_head = ctx.saved_tensors
        temperature, rows, product = ctx.args
        g_hidden, g_head = torch.empty_like(hidden), torch.zeros_like(head)
        whole, ref_whole = _rounded(head, product), _rounded(ref_head, product)
        for a in range(0, len(hidden), rows):
            at = slice(a, a + rows)
            logp = _log_softmax(hidden[at], whole, temperature, product)
            p = logp.exp()
            g = torch.zeros_like(p)
            if g_logprob is not None:
                g = p * -g_logprob[at, None]
                g.scatter_add_(1, target[at, None], g_logprob[at, None])
            if g_entropy is not None:
                h = -(p * logp).sum(-1, keepdim=True)
                g = g - g_entropy[at, None] * p * (logp + h)
            if g_kl is not None and len(ref_hidden):
                diff = logp - _log_softmax(ref_hidden[at], ref_whole, temperature, product)
                g = g + g_kl[at, None] * p * (diff - (p * diff).sum(-1, keepdim=True))
            g = g.div_(temperature)
            g_hidden[at] = product(g.to(hidden.dtype), whole.t(), None)
            g_head += product(g.t().to(hidden.dtype), hidden[at].t(), None)
        return g_hidden, g_head, None, None, None, None, None, None


def _rounded(head: Tensor, product: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Tensor:
    """Return a head as products take it: rounded once, where each would round it again."""
    return head.bfloat16() if product is linear_bf16 else head


def _log_softmax(hidden: Tensor, head: Tensor, temperature: float, product) -> Tensor:  # type: ignore[no-untyped-def]
    logits = product(hidden, head, None)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)


OPS = Ops(linear, rms_norm, swiglu, attention, token_stats)
OPS_BF16 = Ops(linear_bf16, rms_norm, swiglu, attention, token_stats)
