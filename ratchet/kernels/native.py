"""The C++ kernels as torch functions: finds the library for this CPU, and wraps it for autograd.

Without a library (`available()` is False, `why_not()` says why) `kernels.choose` gives the reference instead. Both
compute the same numbers up to the order of additions. The environment variable ``RATCHET_NATIVE`` names one library
to use (``x86_64_v3``), or is ``off``.

Results do not depend on the number of threads, nor a row's result on which other rows are computed with it.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ratchet.kernels import reference
from ratchet.kernels.layout import Layout
from ratchet.kernels.reference import Heads, Ops, TokenStats

FOLDER = Path(__file__).with_name("native")
_V3 = frozenset(["avx2", "bmi1", "bmi2", "fma", "f16c", "movbe", "abm"])
_V4 = _V3 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])
NEEDS: dict[str, frozenset[str]] = {
    "x86_64_v4_bf16": _V4 | {"avx512_bf16"},
    "x86_64_v4": _V4,
    "x86_64_v3": _V3,
    "generic": frozenset(),
}
"""Libraries, best first, and the CPU flags each one needs (as Linux names them)."""


@dataclass(frozen=True, slots=True)
class _Found:
    library: ctypes.CDLL | None
    reason: str


@cache
def _find() -> _Found:
    wanted = os.environ.get("RATCHET_NATIVE", "")
    if wanted == "off":
        return _Found(None, "RATCHET_NATIVE is off")
    flags = _cpu_flags()
    reason = f"no compiled kernels in {FOLDER} (python hatch_build.py compiles them)"
    for name, needs in NEEDS.items():
        path = FOLDER / f"ratchet_{name}.so"
        if (wanted and name != wanted) or not path.exists():
            continue
        if not needs <= flags:
            reason = f"this CPU lacks {', '.join(sorted(needs - flags))}"
            continue
        try:
            library = ctypes.CDLL(str(path))
        except OSError as problem:
            reason = str(problem)
            continue
        _declare(library)
        return _Found(library, "")
    return _Found(None, reason)


def _cpu_flags() -> frozenset[str]:
    """Return the CPU's capabilities as ``/proc/cpuinfo`` lists them; empty where there is no such file."""
    path = Path("/proc/cpuinfo")
    if platform.machine().lower() not in ("x86_64", "amd64") or not path.exists():
        return frozenset()
    for line in path.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, list[Any]] = {
    "ratchet_linear": [_P] * 4 + [_I] * 5,
    "ratchet_linear_input_grad": [_P] * 3 + [_I] * 5,
    "ratchet_linear_weight_grad": [_P] * 3 + [_I] * 6,
    "ratchet_rms_norm": [_P] * 4 + [_I, _I, _F, _I],
    "ratchet_rms_norm_grad": [_P] * 6 + [_I] * 3,
    "ratchet_swiglu": [_P] * 2 + [_I] * 3,
    "ratchet_swiglu_grad": [_P] * 3 + [_I] * 3,
    "ratchet_attention": [_P] * 7 + [_I] * 4 + [_F, _P, _P, _I],
    "ratchet_attention_grad": [_P] * 7 + [_I] * 4 + [_F] + [_P] * 5 + [_I],
    "ratchet_stats": [_P] * 3 + [_F] + [_P] * 3 + [_I] * 3,
    "ratchet_stats_grad": [_P] * 3 + [_F] + [_P] * 3 + [_I] * 3,
    "ratchet_set_runtime": [_P],
    "ratchet_decoder_new": [_P, _F, _P, _I],
    "ratchet_decoder_free": [_P],
    "ratchet_decoder_load": [_P, _I, _I, _P, _I],
    "ratchet_decoder_prefill": [_P] * 3 + [_I] + [_P] * 3 + [_I],
    "ratchet_decoder_step": [_P] * 3 + [_I, _P, _I],
    "ratchet_decoder_release": [_P, _P, _I],
    "ratchet_decoder_trim": [_P],
}
_RESULTS = {
    "ratchet_decoder_new": _P,
    "ratchet_decoder_prefill": _I,
    "ratchet_decoder_step": _I,
    "ratchet_decoder_release": _I,
}


def _declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the argument types, and the library which threads to use."""
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _RESULTS.get(name)
    # torch loads its OpenMP runtime with global visibility; sharing it means one pool of threads, not two.
    try:
        entry = ctypes.cast(ctypes.CDLL(None).GOMP_parallel, _P)
    except AttributeError:
        return
    library.ratchet_set_runtime(entry)


def available() -> bool:
    """Whether the C++ kernels can be used here."""
    return _find().library is not None


def why_not() -> str:
    """Why the C++ kernels cannot be used, in one line; empty if they can."""
    return _find().reason


def library() -> ctypes.CDLL:
    """The loaded library. Call only where `available()`."""
    found = _find().library
    assert found is not None, _find().reason
    return found


def runs_heads_of(size: int) -> bool:
    """Whether the attention kernels take heads of this many channels."""
    return size % 16 == 0 and 16 <= size <= 128


@cache
def ops(bf16: bool) -> Ops:
    """Return the native operations; with `bf16`, matrix products take their operands rounded to bfloat16."""
    library()
    linear = _linear_bf16 if bf16 else _linear
    if bf16 and _has_matrix_unit():
        # AMX does bfloat16 products several times faster than vectors can; torch's oneDNN uses it.
        linear = reference.linear_bf16

    def stats(hidden: Tensor, head: Tensor, target: Tensor, **options: Any) -> TokenStats:
        return token_stats(hidden, head, target, bf16=bf16, **options)

    return Ops(linear, rms_norm, swiglu, attention, stats)


def _has_matrix_unit() -> bool:
    return "amx_bf16" in _cpu_flags()


def ptr(tensor: Tensor | None) -> int | None:
    """The address of a contiguous tensor's data; None for None."""
    return None if tensor is None else tensor.data_ptr()


def _float(x: Tensor) -> Tensor:
    return x.contiguous() if x.dtype == torch.float32 else x.float().contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, bf16: bool) -> Tensor:
        x, weight = _float(x), _float(weight)
        y = x.new_empty(len(x), len(weight))
        args = (*x.shape, len(weight), bf16, torch.get_num_threads())
        library().ratchet_linear(ptr(x), ptr(weight), ptr(bias), ptr(y), *args)
        ctx.save_for_backward(x, weight)
        ctx.bf16 = bf16
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g = _float(grads[0])
        x, weight = ctx.saved_tensors
        args = (*x.shape, len(weight))
        rest = (ctx.bf16, torch.get_num_threads())
        gx = gw = gb = None
        if ctx.needs_input_grad[0]:
            gx = torch.empty_like(x)
            library().ratchet_linear_input_grad(ptr(g), ptr(weight), ptr(gx), *args, *rest)
        if ctx.needs_input_grad[1]:
            gw = torch.empty_like(weight)
            library().ratchet_linear_weight_grad(ptr(g), ptr(x), ptr(gw), *args, False, *rest)
        if ctx.needs_input_grad[2]:
            gb = g.sum(0)
        return gx, gw, gb, None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`reference.linear`, in C++."""
    return _Linear.apply(x, weight, bias, False)  # type: ignore[no-untyped-call]


def _linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`reference.linear_bf16`, in C++; the products are added up in float32 and never rounded to bfloat16."""
    return _Linear.apply(x, weight, bias, True)  # type: ignore[no-untyped-call]


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x, weight = _float(x), _float(weight)
        y, inverse = torch.empty_like(x), x.new_empty(len(x))
        library().ratchet_rms_norm(ptr(x), ptr(weight), ptr(y), ptr(inverse), *x.shape, eps, torch.get_num_threads())
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g = _float(grads[0])
        x, weight, inverse = ctx.saved_tensors
        gx, gw = torch.empty_like(x), torch.empty_like(weight)
        library().ratchet_rms_norm_grad(
            ptr(g), ptr(x), ptr(weight), ptr(inverse), ptr(gx), ptr(gw), *x.shape, torch.get_num_threads()
        )
        return gx, gw, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`reference.rms_norm` of a (T, C) tensor, in C++."""
    return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = _float(x)
        channels = x.shape[1] // 2
        y = x.new_empty(len(x), channels)
        library().ratchet_swiglu(ptr(x), ptr(y), len(x), channels, torch.get_num_threads())
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        g = _float(grads[0])
        (x,) = ctx.saved_tensors
        gx = torch.empty_like(x)
        library().ratchet_swiglu_grad(ptr(g), ptr(x), ptr(gx), len(x), x.shape[1] // 2, torch.get_num_threads())
        return gx


def swiglu(gate_up: Tensor) -> Tensor:
    """`reference.swiglu` of a (T, 2I) tensor, in C++."""
    return _Swiglu.apply(gate_up)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        q_norm: Tensor | None,
        k_norm: Tensor | None,
        cos_sin: Tensor,
        heads: Heads,
        eps: float,
        layout: Layout,
    ) -> Tensor:
        qkv = _float(qkv)
        out = qkv.new_empty(len(qkv), heads.query * heads.size)
        lse = qkv.new_empty(len(qkv), heads.query)
        args = (layout.num_segments, heads.query, heads.key, heads.size, eps)
        tensors = (qkv, q_norm, k_norm, cos_sin, layout.position, layout.start, layout.parent)
        library().ratchet_attention(*map(ptr, tensors), *args, ptr(out), ptr(lse), torch.get_num_threads())
        ctx.save_for_backward(qkv, q_norm, k_norm, cos_sin, out, lse)
        ctx.layout, ctx.args = layout, args
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g = _float(grads[0])
        qkv, q_norm, k_norm, cos_sin, out, lse = ctx.saved_tensors
        layout, size = ctx.layout, ctx.args[3]
        g_qkv, g_norms = torch.empty_like(qkv), qkv.new_empty(2, size)
        tensors = (qkv, q_norm, k_norm, cos_sin, layout.position, layout.start, layout.parent)
        results = (out, lse, g, g_qkv, g_norms)
        library().ratchet_attention_grad(*map(ptr, tensors), *ctx.args, *map(ptr, results), torch.get_num_threads())
        g_q = None if q_norm is None else g_norms[0]
        g_k = None if k_norm is None else g_norms[1]
        return g_qkv, g_q, g_k, None, None, None, None


def attention(
    qkv: Tensor,
    heads: Heads,
    q_norm: Tensor | None,
    k_norm: Tensor | None,
    cos_sin: Tensor,
    eps: float,
    layout: Layout,
) -> Tensor:
    """`reference.attention`, in C++, without padding; head sizes and windows the kernels lack go to the reference.

    Source: Dao et al. 2022 (arXiv 2205.14135) for the backward pass from the log-sum-exp alone.
    """
    if heads.window or not runs_heads_of(heads.size):
        return reference.attention(qkv, heads, q_norm, k_norm, cos_sin, eps, layout)
    return _Attention.apply(qkv, q_norm, k_norm, cos_sin, heads, eps, layout)  # type: ignore[no-untyped-call]


def token_stats(
    hidden: Tensor,
    head: Tensor,
    target: Tensor,
    *,
    bf16: bool = False,
    temperature: float = 1.0,
    reference: tuple[Tensor, Tensor] | None = None,
    max_logits: int = 1 << 22,
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = reference.linear,
) -> TokenStats:
    """`reference.token_stats`, in C++. `product` is not used: the precision is that of the record of operations."""
    ref_hidden, ref_head = (_float(x) for x in reference) if reference is not None else (None, None)
    rows = max(1, max_logits // head.shape[0])
    stats = _TokenStats.apply(hidden, head, target.contiguous(), temperature, ref_hidden, ref_head, rows, bf16)  # type: ignore[no-untyped-call]
    return TokenStats(*stats)


def _product(x: Tensor, weight: Tensor, bf16: bool) -> Tensor:
    y = x.new_empty(len(x), len(weight))
    args = (*x.shape, len(weight), bf16, torch.get_num_threads())
    library().ratchet_linear(ptr(x), ptr(weight), None, ptr(y), *args)
    return y


class _TokenStats(torch.autograd.Function):
    """Chunks of logits: made, reduced, dropped; and made again for the gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        target: Tensor,
        temperature: float,
        ref_hidden: Tensor | None,
        ref_head: Tensor | None,
        rows: int,
        bf16: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden, head = _float(hidden), _float(head)
        logprob, entropy, kl = (hidden.new_zeros(len(hidden)) for _ in range(3))
        for a in range(0, len(hidden), rows):
            at = slice(a, a + rows)
            logits = _product(hidden[at], head, bf16)
            ref = None if ref_hidden is None or ref_head is None else _product(ref_hidden[at], ref_head, bf16)
            chunks = (logprob[at], entropy[at], kl[at])
            library().ratchet_stats(
                ptr(logits), ptr(ref), ptr(target[at]), temperature, *map(ptr, chunks), *logits.shape,
                torch.get_num_threads(),
            )  # fmt: skip
        ctx.save_for_backward(hidden, head, target, ref_hidden, ref_head)
        ctx.args = (temperature, rows, bf16)
        ctx.set_materialize_grads(False)
        return logprob, entropy, kl

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, head, target, ref_hidden, ref_head = ctx.saved_tensors
        temperature, rows, bf16 = ctx.args
        g_all = [None if g is None else _float(g) for g in grads]
        g_hidden, g_head = torch.empty_like(hidden), torch.zeros_like(head)
        threads = torch.get_num_threads()
        for a in range(0, len(hidden), rows):
            at = slice(a, a + rows)
            g = _product(hidden[at], head, bf16)
            ref = None
            if grads[2] is not None and ref_hidden is not None:
                ref = _product(ref_hidden[at], ref_head, bf16)
            chunks = [None if x is None else x[at] for x in g_all]
            library().ratchet_stats_grad(
                ptr(g), ptr(ref), ptr(target[at]), temperature, *map(ptr, chunks), *g.shape, threads
            )
            shape = (len(g), head.shape[1], head.shape[0])
            library().ratchet_linear_input_grad(ptr(g), ptr(head), ptr(g_hidden[at]), *shape, bf16, threads)
            library().ratchet_linear_weight_grad(ptr(g), ptr(hidden[at]), ptr(g_head), *shape, True, bf16, threads)
        return g_hidden, g_head, None, None, None, None, None, None
