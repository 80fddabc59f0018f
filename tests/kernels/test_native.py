"""The C++ operations equal the reference, forward and backward.

Tolerances are relative to the largest number of the reference's result. Both sides add float32 numbers in different
orders: 2e-5 covers sums of some hundred terms. In bfloat16 mode both round the same operands, and the reference also
rounds each result, to 8 bits: 1e-2.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from layouts import LAYOUTS
from torch import Tensor

from ratchet.kernels import native, reference
from ratchet.kernels.choose import ops_for
from ratchet.kernels.layout import Layout, layout_of
from ratchet.kernels.reference import OPS, OPS_BF16, Heads

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")

CPU = torch.device("cpu")
FLOAT32 = 2e-5
BFLOAT16 = 1e-2


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape
    scale = theirs.abs().max().clamp(min=0.1)  # the inputs are of size 1; what cancels to 0 leaves their rounding
    assert (ours - theirs).abs().max() <= tolerance * scale


def compare(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: list[Tensor | None], tolerance: float
) -> None:
    """Assert equal results and equal gradients of both functions with respect to all inputs."""
    outcomes = []
    for function in (ours, theirs):
        leaves = [None if x is None else x.clone().requires_grad_() for x in inputs]
        result = function(*leaves)
        result.backward(noise(*result.shape, seed=9))
        outcomes.append([result.detach(), *(x.grad for x in leaves if x is not None)])
    for mine, expected in zip(*outcomes, strict=True):
        assert_close(mine, expected, tolerance)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 16, 16), (37, 33, 41), (300, 128, 384), (129, 352, 70), (7, 64, 1)])
def test_linear_equals_the_reference(shape: tuple[int, int, int], bias: bool) -> None:
    tokens, inner, outer = shape
    inputs = [noise(tokens, inner), noise(outer, inner, seed=1), noise(outer, seed=2) if bias else None]
    compare(native.ops(False).linear, OPS.linear, inputs, FLOAT32)
    compare(native.ops(True).linear, OPS_BF16.linear, inputs, BFLOAT16)


@pytest.mark.parametrize("shape", [(1, 16), (70, 33), (200, 384)])
def test_rms_norm_equals_the_reference(shape: tuple[int, int]) -> None:
    inputs = [noise(*shape), noise(shape[1], seed=1)]
    compare(lambda x, w: native.rms_norm(x, w, 1e-6), lambda x, w: reference.rms_norm(x, w, 1e-6), inputs, FLOAT32)


@pytest.mark.parametrize("shape", [(1, 32), (70, 66), (200, 704)])
def test_swiglu_equals_the_reference(shape: tuple[int, int]) -> None:
    compare(native.swiglu, reference.swiglu, [5 * noise(*shape)], FLOAT32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "heads", [Heads(4, 4, 32), Heads(4, 2, 16), Heads(6, 1, 48), Heads(2, 2, 64), Heads(3, 1, 128)], ids=str
)
@pytest.mark.parametrize("normed", [True, False])
def test_attention_equals_the_reference(layout: str, heads: Heads, normed: bool) -> None:
    packed = layout_of(*LAYOUTS[layout], CPU)
    compare_attention(packed, heads, normed)


def test_attention_of_a_head_size_without_kernel_uses_the_reference() -> None:
    compare_attention(layout_of([5, 3], [-1, 0], CPU), Heads(2, 1, 24), True)


def compare_attention(layout: Layout, heads: Heads, normed: bool) -> None:
    width = (heads.query + 2 * heads.key) * heads.size
    angle = torch.outer(torch.arange(256.0), 0.1 ** torch.arange(heads.size // 2))
    table = torch.cat([angle.cos(), angle.sin()], 1)
    norms = [1 + 0.2 * noise(heads.size, seed=s) if normed else None for s in (1, 2)]
    inputs = [noise(layout.num_tokens, width), *norms]
    # Attention gradients are differences of nearly equal sums; one more factor of four.
    compare(
        lambda x, q, k: native.attention(x, heads, q, k, table, 1e-6, layout),
        lambda x, q, k: reference.attention(x, heads, q, k, table, 1e-6, layout),
        inputs,
        4 * FLOAT32,
    )


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocab", [256, 61])
def test_token_stats_equal_the_reference(vocab: int, temperature: float, with_reference: bool) -> None:
    target = torch.randint(vocab, (90,), generator=torch.Generator().manual_seed(3))
    other = (noise(90, 24, seed=5), noise(vocab, 24, seed=6)) if with_reference else None

    def stats(function: Callable[..., reference.TokenStats]) -> Callable[[Tensor, Tensor], Tensor]:
        def all_three(hidden: Tensor, head: Tensor) -> Tensor:
            options = {"temperature": temperature, "reference": other, "max_logits": 40 * vocab}
            result = function(hidden, head, target, **options)
            return torch.stack([result.logprob, result.entropy, result.kl])

        return all_three

    inputs = [noise(90, 32), noise(vocab, 32, seed=1)]
    compare(stats(native.ops(False).token_stats), stats(reference.token_stats), inputs, 2 * FLOAT32)
    # bfloat16 products change logits by about 2^-8 of their size, which is a few units here.
    compare(stats(native.ops(True).token_stats), stats(reference.token_stats), inputs, 0.1)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    heads, layout = Heads(4, 2, 32), layout_of([10, 7, 1, 33, 40, 3, 32], [-1, 0, 0, 0, -1, 4, 4], CPU)
    angle = torch.outer(torch.arange(256.0), 0.1 ** torch.arange(16))
    table = torch.cat([angle.cos(), angle.sin()], 1)
    ops = native.ops(False)

    def run() -> list[Tensor]:
        x = noise(layout.num_tokens, 64).requires_grad_()
        weights = [noise(*s).requires_grad_() for s in ((64,), (256, 64), (32,), (32,), (50, 64), (50, 25))]
        qkv = ops.linear(ops.rms_norm(x, weights[0], 1e-6), weights[1], None)
        mixed = ops.attention(qkv, heads, weights[2], weights[3], table, 1e-6, layout)
        hidden = ops.swiglu(ops.linear(mixed[:, :64].contiguous(), weights[4], None))
        target = torch.zeros(len(hidden), dtype=torch.int64)
        ops.token_stats(hidden, weights[5], target, max_logits=40 * 50).logprob.sum().backward()
        return [x.grad, *(w.grad for w in weights)]

    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_row_of_a_product_does_not_depend_on_the_other_rows() -> None:
    x, weight = noise(100, 96), noise(70, 96)
    for ops in (native.ops(False), native.ops(True)):
        together = ops.linear(x, weight, None)
        apart = torch.cat([ops.linear(part, weight, None) for part in x.split([1, 5, 40, 54])])
        assert torch.equal(together, apart)


def test_a_cpu_gets_the_native_operations() -> None:
    assert ops_for(CPU, "float32") is native.ops(False)
    assert ops_for(CPU, "bfloat16") is native.ops(True)
