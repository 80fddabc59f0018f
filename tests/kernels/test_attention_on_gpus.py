"""What a GPU's training takes for attention equals the reference: FlexAttention, bfloat16, and keys of their own for
every query head. On a CPU FlexAttention has no backward pass, and its forward pass is not fused; the last tests need a
GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from layouts import LAYOUTS
from torch import Tensor

from ratchet.kernels import flex, reference
from ratchet.kernels.choose import Attention, ops_for
from ratchet.kernels.layout import Layout, layout_of
from ratchet.kernels.reference import Heads

CPU = torch.device("cpu")
HEADS = [Heads(4, 4, 32), Heads(4, 2, 16), Heads(6, 1, 16, window=7)]
FLEX_UNFUSED = "ignore:flex_attention called without torch.compile"


def table_for(size: int) -> Tensor:
    angle = torch.outer(torch.arange(256.0), 0.1 ** torch.arange(size // 2))
    return torch.cat([angle.cos(), angle.sin()], 1)


def results(
    attention: Callable[..., Tensor],
    layout: Layout,
    heads: Heads,
    dtype: torch.dtype,
    device: torch.device,
    *,
    backward: bool = True,
) -> list[Tensor]:
    """Return what attention makes of random input, and its gradients."""
    draw = torch.Generator().manual_seed(layout.num_tokens)
    width = (heads.query + 2 * heads.key) * heads.size
    qkv = torch.randn(layout.num_tokens, width, generator=draw, dtype=torch.float64)
    norms = [1 + 0.2 * torch.randn(heads.size, generator=draw, dtype=torch.float64) for _ in range(2)]
    inputs = [x.to(device, dtype).requires_grad_(backward) for x in (qkv, *norms)]
    x, q_norm, k_norm = inputs
    out = attention(x, heads, q_norm, k_norm, table_for(heads.size).to(device, dtype), 1e-6, layout)
    if not backward:
        return [out]
    out.mul(torch.randn(out.shape, generator=draw, dtype=torch.float64).to(device, dtype)).sum().backward()
    return [out.detach(), *(one.grad for one in inputs if one.grad is not None)]


def worst(ours: list[Tensor], wanted: list[Tensor]) -> float:
    """Return the largest difference, relative to the largest number of each result."""
    pairs = zip(ours, wanted, strict=True)
    return max(float((a.cpu().double() - b).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs)


@pytest.mark.filterwarnings(FLEX_UNFUSED)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_flex_attention_equals_the_reference(layout: str, heads: Heads) -> None:
    packed = layout_of(*LAYOUTS[layout], CPU)
    ours = results(partial(reference.attention, work=flex.attend), packed, heads, torch.float64, CPU, backward=False)
    assert worst(ours, results(reference.attention, packed, heads, torch.float64, CPU, backward=False)) < 1e-12


@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_attention_in_bfloat16_is_that_of_rounded_queries_keys_and_values(heads: Heads) -> None:
    packed = layout_of(*LAYOUTS["shared prompts"], CPU)
    ours = results(partial(reference.attention, bf16=True), packed, heads, torch.float32, CPU)
    assert all(one.dtype == torch.float32 for one in ours)
    exact = results(reference.attention, packed, heads, torch.float64, CPU)
    assert 1e-4 < worst(ours, exact) < 3e-2


@pytest.mark.filterwarnings(FLEX_UNFUSED)
@pytest.mark.parametrize("attention", ["sdpa", "flex"])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_what_is_chosen_for_a_gpu_is_attention(attention: Attention, dtype: str, most: float) -> None:
    chosen = ops_for(torch.device("cuda"), dtype, attention).attention  # type: ignore[arg-type]
    packed = layout_of(*LAYOUTS["shared prompts"], CPU)
    ours = results(chosen, packed, HEADS[1], torch.float32, CPU, backward=attention == "sdpa")
    wanted = results(reference.attention, packed, HEADS[1], torch.float64, CPU, backward=attention == "sdpa")
    assert worst(ours, wanted) < most


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flex"])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-2), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_attention_on_a_gpu_is_that_of_the_reference(
    attention: Attention, dtype: str, most: float, heads: Heads
) -> None:
    device = torch.device("cuda")
    work = ops_for(device, dtype, attention).attention  # type: ignore[arg-type]
    for lengths, parents in LAYOUTS.values():
        ours = results(work, layout_of(lengths, parents, device), heads, torch.float32, device)
        exact = results(reference.attention, layout_of(lengths, parents, CPU), heads, torch.float64, CPU)
        assert worst(ours, exact) < most


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flex"])
def test_attention_on_a_gpu_never_holds_all_scores(attention: Attention) -> None:
    device, heads, length = torch.device("cuda"), Heads(16, 8, 128), 4096
    layout = layout_of([length] * 4, [-1] * 4, device)
    work = ops_for(device, "bfloat16", attention).attention
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results(work, layout, heads, torch.float32, device)
    scores = 4 * heads.query * length * length * 4
    assert torch.cuda.max_memory_allocated() - before < scores
