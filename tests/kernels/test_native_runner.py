"""The C++ runner gives the logits of the decoder's own forward pass, whichever rows share its steps.

Tolerances: in float32, sums of some hundred terms in another order through a few layers, relative to the largest
logit: 2e-5. In bfloat16 the cache is rounded too: 3e-2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from ratchet.engines.native_runner import NativeRunner
from ratchet.kernels import native
from ratchet.kernels.layout import layout_of, pack
from ratchet.kernels.reference import OPS
from ratchet.policy.decoder import Decoder
from ratchet.policy.shape import ModelShape

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")

CPU = torch.device("cpu")
QWEN3 = ModelShape(
    family="qwen3", vocab=61, hidden=48, layers=3, query_heads=4, key_heads=2, head_size=16, intermediate=72,
    context=512, rope_base=10000.0, norm_eps=1e-6, tied=True, qk_norm=True, qkv_bias=False,
)  # fmt: skip
SHAPES = {
    "qwen3": QWEN3,
    "qwen2": replace(QWEN3, family="qwen2", qk_norm=False, qkv_bias=True, head_size=48, key_heads=1),
    "llama": replace(QWEN3, family="llama", qk_norm=False, tied=False, key_heads=4, head_size=32),
}
Dtype = Literal["float32", "bfloat16"]


def decoder_of(shape: ModelShape) -> Decoder:
    generator = torch.Generator().manual_seed(1)
    decoder = Decoder(shape, OPS)
    decoder.initialise(generator)
    with torch.no_grad():
        for weight in decoder.parameters():
            if weight.dim() == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return decoder


def runner_of(decoder: Decoder, dtype: Dtype = "float32") -> NativeRunner:
    runner = NativeRunner(decoder.shape, dtype)
    runner.load(dict(decoder.named_parameters()))
    return runner


def random_tokens(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, QWEN3.vocab, count).astype(np.int32)


@torch.no_grad()
def logits_after(decoder: Decoder, sequence: np.ndarray) -> Tensor:
    """The decoder's own logits after the last token of a sequence."""
    hidden = decoder(pack([sequence], CPU), layout_of([len(sequence)], [-1], CPU))
    return hidden[-1] @ decoder.head.t()


def assert_close(ours: Tensor, theirs: Tensor, dtype: Dtype) -> None:
    tolerance = 2e-5 if dtype == "float32" else 3e-2
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", SHAPES)
def test_logits_equal_the_decoders_while_rows_come_and_go(family: str, dtype: Dtype) -> None:
    decoder = decoder_of(SHAPES[family])
    runner = runner_of(decoder, dtype)
    sequences: dict[int, np.ndarray] = {}

    def join(lengths: list[int], copies: list[int], seed: int) -> None:
        prompts = [random_tokens(n, seed + i) for i, n in enumerate(lengths)]
        rows, logits = runner.prefill(prompts, copies, room=100)
        assert [len(r) for r in rows] == copies
        for prompt, mine, row_logits in zip(prompts, rows, logits, strict=True):
            assert_close(row_logits, logits_after(decoder, prompt), dtype)
            sequences.update(dict.fromkeys(mine, prompt))

    def advance(times: int, seed: int) -> None:
        for t in range(times):
            rows = list(sequences)
            tokens = random_tokens(len(rows), 100 * seed + t)
            logits = runner.step(rows, torch.from_numpy(tokens.astype(np.int64)))
            for i, row in enumerate(rows):
                sequences[row] = np.append(sequences[row], tokens[i])
                if t % 7 == 0 or t == times - 1:
                    assert_close(logits[i], logits_after(decoder, sequences[row]), dtype)

    join([1, 33, 300, 7], [3, 9, 2, 1], seed=0)
    advance(35, seed=1)
    gone = list(sequences)[1::2]
    runner.release(gone)
    for row in gone:
        del sequences[row]
    join([32, 5], [1, 4], seed=7)
    advance(34, seed=2)
    runner.release(list(sequences))
    runner.trim()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_gives_the_same_bits_alone_and_in_any_company(dtype: Dtype) -> None:
    decoder = decoder_of(QWEN3)
    prompts = [random_tokens(n, n) for n in (40, 3, 21, 65)]
    copies = [5, 1, 8, 2]
    tokens = torch.from_numpy(random_tokens(16 * 40, 5).astype(np.int64)).view(40, 16)

    together = runner_of(decoder, dtype)
    rows, first = together.prefill(prompts, copies, room=40)
    flat = [row for part in rows for row in part]
    steps = [together.step(flat, tokens[t]) for t in range(40)]

    at = 0
    for i, prompt in enumerate(prompts):
        alone = runner_of(decoder, dtype)
        (own,), logits = alone.prefill([prompt], [1], room=40)
        assert torch.equal(logits[0], first[i])
        for t in range(40):
            assert torch.equal(alone.step(own, tokens[t, at : at + 1])[0], steps[t][at])
        at += copies[i]


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    decoder, before = decoder_of(QWEN3), torch.get_num_threads()
    results = []
    try:
        for n in (1, threads):
            torch.set_num_threads(n)
            runner = runner_of(decoder)
            rows, logits = runner.prefill([random_tokens(n, n) for n in (40, 300, 9)], [3, 3, 3], room=5)
            flat = [row for part in rows for row in part]
            results.append(torch.cat([logits, runner.step(flat, torch.arange(9)), runner.step(flat, torch.arange(9))]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_new_weights_take_effect_at_the_next_step() -> None:
    old, new = decoder_of(QWEN3), decoder_of(QWEN3)
    with torch.no_grad():
        for weight in new.parameters():
            weight.mul_(1.1)
    runner = runner_of(old)
    runner.load(dict(new.named_parameters()))
    prompt = random_tokens(12, 0)
    _, logits = runner.prefill([prompt], [1], room=1)
    assert_close(logits[0], logits_after(new, prompt), "float32")


def test_what_cannot_be_done_is_refused_and_changes_nothing() -> None:
    decoder = decoder_of(replace(QWEN3, context=8))
    runner = runner_of(decoder)
    with pytest.raises(ValueError, match="1 to 7 tokens"):
        runner.prefill([random_tokens(8, 0)], [1], room=1)
    with pytest.raises(ValueError, match="vocabulary"):
        runner.prefill([np.array([61], dtype=np.int32)], [1], room=1)
    ((row,),), _ = runner.prefill([random_tokens(7, 0)], [1], room=1)
    with pytest.raises(ValueError, match="vocabulary"):
        runner.step([row], torch.tensor([-1]))
    runner.step([row], torch.tensor([1]))
    with pytest.raises(ValueError, match="context"):
        runner.step([row], torch.tensor([1]))
    runner.release([row])
    with pytest.raises(ValueError, match="not open"):
        runner.release([row])
