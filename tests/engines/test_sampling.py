"""Drawing from a large vocabulary: block by block, and still from the same distribution."""

from __future__ import annotations

import pytest
import torch

from ratchet.engines.sampling import BLOCK, SMALL, draw, draw_plain


@pytest.mark.parametrize("vocab", [50, SMALL, SMALL + 1, 9000, 16 * BLOCK])
def test_plain_draws_are_those_of_the_general_way(vocab: int) -> None:
    generator = torch.Generator().manual_seed(vocab)
    logits = 3.0 * torch.randn(64, vocab, generator=generator)
    uniform = torch.rand(64, dtype=torch.float64, generator=generator)
    ones, none = torch.ones(64), torch.zeros(64, dtype=torch.int64)
    token, logprob = draw_plain(logits, uniform)
    expected, expected_logprob, _ = draw(logits, uniform, ones, ones, none)
    assert token.tolist() == expected.tolist()
    torch.testing.assert_close(logprob, expected_logprob, atol=2e-5, rtol=0)


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-53])
def test_a_token_of_probability_zero_is_never_drawn(uniform: float) -> None:
    logits = torch.full((3, SMALL + 1000), -torch.inf)
    for row, places in enumerate([[5000], [BLOCK - 1, BLOCK], [0, SMALL + 999]]):
        logits[row, places] = 0.0
    token, logprob = draw_plain(logits, torch.full((3,), uniform, dtype=torch.float64))
    assert token.tolist() == ([5000, BLOCK - 1, 0] if uniform == 0 else [5000, BLOCK, SMALL + 999])
    torch.testing.assert_close(logprob, -torch.tensor([1.0, 2.0, 2.0]).log())
