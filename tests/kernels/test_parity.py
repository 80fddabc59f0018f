"""Sampler and trainer share one arithmetic: decoding adds up in the trainer's order, so logits are equal bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ratchet.core.protocols import Request, Sampling
from ratchet.core.shape import ModelShape
from ratchet.engines.local import LocalEngine, generate_all
from ratchet.engines.native_runner import NativeRunner
from ratchet.kernels import native
from ratchet.kernels.layout import layout_of, pack
from ratchet.policy.decoder import Decoder
from ratchet.policy.tokenizer import tiny_tokenizer

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")
CPU = torch.device("cpu")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("query_heads", "key_heads", "size"), [(4, 4, 16), (4, 2, 32), (2, 1, 64)])
def test_logits_while_sampling_are_the_trainers_bit_for_bit(
    query_heads: int, key_heads: int, size: int, threads: int
) -> None:
    tokenizer = tiny_tokenizer(["<think>"], "abcdefghijklmnopqrstuvwxyz0123456789")
    shape = ModelShape(
        "qwen3", tokenizer.vocab_size, 64, 2, query_heads, key_heads, size, 96, 256, 1e4, 1e-6, False, True, False
    )
    decoder = Decoder(shape, native.ops(False))
    decoder.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert decoder.untied_head is not None
        decoder.untied_head.mul_(40.0)  # confident, so that rounding would show
    rng = np.random.default_rng(0)
    prompts = [rng.integers(7, shape.vocab, n).astype(np.int32) for n in (3, 31, 32, 33, 70)]
    requests = [Request(p, Sampling(max_tokens=90), seed=i * 9 + j) for i, p in enumerate(prompts) for j in range(6)]
    engine = LocalEngine(NativeRunner(shape, "float32"), tokenizer, context=256, max_rows=20, device=CPU)
    engine.load({name: w.detach() for name, w in decoder.named_parameters()}, 0, "")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        done = generate_all(engine, requests)
        for i, prompt in enumerate(prompts):
            answers = done[6 * i : 6 * i + 6]
            layout = layout_of([len(prompt), *(len(a.output) - 1 for a in answers)], [-1, *[0] * 6], CPU)
            with torch.no_grad():
                hidden = decoder(pack([prompt, *(a.output[:-1] for a in answers)], CPU), layout)
                logp = native.ops(False).linear(hidden, decoder.head, None).log_softmax(-1)
            for segment, answer in enumerate(answers, start=1):
                at = [len(prompt) - 1, *range(int(layout.start[segment]), int(layout.start[segment + 1]))]
                ours = logp[at, torch.from_numpy(answer.output.astype(np.int64))].numpy()
                np.testing.assert_array_equal(ours, answer.logprobs)
    finally:
        torch.set_num_threads(before)
