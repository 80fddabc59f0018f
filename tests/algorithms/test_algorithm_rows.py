"""What holds for every row of the table: a naive reference, and invariance to cuts, order and extremes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from builders import batch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_rows import naive
from row_cases import CASES, OPTIONS, ROWS, SEEDS, as_expected, gradient_of, in_dtype, loss_of, random_batch
from torch import Tensor

from ratchet.algorithms.table import ALGORITHMS, build_algorithm


def test_every_row_is_tried_with_its_defaults() -> None:
    assert all({} in options for options in OPTIONS.values())
    assert set(OPTIONS) == set(ALGORITHMS)


@pytest.mark.parametrize(("row", "options"), CASES)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_loss_and_gradient_equal_a_naive_reference(row: str, options: Mapping[str, object], seed: int) -> None:
    algorithm = build_algorithm(row, options)
    b, logp = random_batch(seed, 0.3)
    assert float(loss_of(algorithm, logp, b)) == pytest.approx(float(naive(row, options, logp, b)), abs=1e-10)
    ours = gradient_of(lambda x: loss_of(algorithm, x, b), logp)
    theirs = gradient_of(lambda x: naive(row, options, x, b), logp)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("row", "options"), CASES)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, rng=st.randoms(use_true_random=False))
def test_cutting_a_batch_into_parts_changes_no_gradient(
    row: str, options: Mapping[str, object], seed: int, rng
) -> None:
    algorithm = build_algorithm(row, options)
    b, logp = random_batch(seed, 0.3)
    kept = algorithm.keep(b).nonzero()[:, 0]
    b, logp = b.select(kept), logp[b.tokens_of(kept)]
    order = list(range(b.num_samples))
    rng.shuffle(order)
    cuts = sorted({0, len(order), *(rng.randint(0, len(order)) for _ in range(3))})
    parts = [torch.tensor(order[x:y]) for x, y in pairwise(cuts)]

    def in_parts(leaf: Tensor) -> Tensor:
        credit = algorithm.advantage(b)
        coef = algorithm.reduce(b, algorithm.weight(b, credit))
        losses = []
        for part in parts:
            at = b.tokens_of(part)
            losses.append((coef[at] * algorithm.loss(leaf[at], b.select(part), b.per_token(credit)[at]).value).sum())
        return torch.stack(losses).sum()

    whole = gradient_of(lambda x: loss_of(algorithm, x, b), logp)
    assert torch.allclose(gradient_of(in_parts, logp), whole, rtol=0, atol=1e-12)
    assert float(in_parts(logp)) == pytest.approx(float(loss_of(algorithm, logp, b)), abs=1e-12)


@pytest.mark.parametrize(("row", "options"), CASES)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, rng=st.randoms(use_true_random=False))
def test_the_order_of_samples_changes_no_gradient(row: str, options: Mapping[str, object], seed: int, rng) -> None:
    algorithm = build_algorithm(row, options)
    b, logp = random_batch(seed, 0.3)
    order = list(range(b.num_samples))
    rng.shuffle(order)
    at = b.tokens_of(torch.tensor(order))
    before = gradient_of(lambda x: loss_of(algorithm, x, b), logp)
    after = gradient_of(lambda x: loss_of(algorithm, x, b.select(torch.tensor(order))), logp[at])
    assert torch.allclose(after, before[at], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("row", "options"), CASES)
def test_loss_and_gradient_are_finite_where_probabilities_vanish(
    row: str, options: Mapping[str, object], dtype: torch.dtype
) -> None:
    b = replace(
        batch([1, 1, 1, 1], [0, 0, 0, 0], [2.0, -1.0, 2.0, -1.0], behaviour=[-50.0, -50.0, 0.0, 0.0]),
        greedy_reward=torch.tensor([1e3, -1e3, 0.0, 0.0]),
        value=torch.tensor([-1e3, 1e3, 0.0, 0.0]),
        logp_teacher=torch.tensor([0.0, -50.0, 0.0, -50.0]),
    )
    b = in_dtype(b, dtype)
    algorithm = build_algorithm(row, options)
    logp = torch.tensor([0.0, 0.0, -50.0, -50.0], dtype=dtype)
    assert bool(loss_of(algorithm, logp, b).isfinite())
    assert bool(gradient_of(lambda x: loss_of(algorithm, x, b), logp).isfinite().all())


@pytest.mark.parametrize(("row", "options"), CASES)
def test_an_update_of_one_token_is_finite(row: str, options: Mapping[str, object]) -> None:
    one = torch.tensor([0.5], dtype=torch.float64)
    b = replace(batch([1], [0], [1.0]), greedy_reward=one, value=one, logp_teacher=-one)
    algorithm = build_algorithm(row, options)
    assert bool(gradient_of(lambda x: loss_of(algorithm, x, b), b.logp_behaviour).isfinite().all())


@pytest.mark.parametrize(("row", "options"), CASES)
def test_a_sample_of_zero_advantage_has_no_gradient_exactly_where_the_row_says_so(
    row: str, options: Mapping[str, object]
) -> None:
    algorithm = build_algorithm(row, options)
    b, logp = random_batch(5, 0.3)
    found = gradient_of(lambda x: algorithm.loss(x, b, torch.zeros_like(x)).value.sum(), logp)
    assert bool((found == 0).all()) == algorithm.silent_at_zero


@pytest.mark.parametrize(("row", "options"), CASES)
def test_rewards_that_were_expected_give_no_gradient_but_where_something_else_is_learned(
    row: str, options: Mapping[str, object]
) -> None:
    learns_else = row in ("sft", "opmd_kimi", "k1_5", "k2_5") or options.get("overlong_length") or False
    learns_else = learns_else or (row == "asymre" and options.get("baseline_shift", -0.1) != 0)
    learns_else = learns_else or (row == "ppo" and options.get("gamma", 1.0) != 1)
    algorithm = build_algorithm(row, options)
    b, logp = random_batch(5, 0.3)
    b = as_expected(b, 0.75)
    silent = bool((gradient_of(lambda x: loss_of(algorithm, x, b), logp) == 0).all())
    assert silent != bool(learns_else and row != "dapo")  # dapo leaves such groups out, whatever their lengths


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ("asymre", "sft")])
@pytest.mark.parametrize("reward", [0.1, 1.1, -0.3, 1e6 + 0.1])
def test_rewards_that_were_expected_get_exact_zeros_in_float32(row: str, reward: float) -> None:
    b = in_dtype(as_expected(batch([1] * 7 + [3] * 3, [0] * 7 + [1] * 3, [reward] * 10), reward), torch.float32)
    assert not bool(build_algorithm(row, {}).advantage(b).any())


@pytest.mark.parametrize("row", ROWS)
def test_a_row_reads_no_column_that_it_does_not_declare(row: str) -> None:
    algorithm = build_algorithm(row, {})
    b, logp = random_batch(3, 0.3)
    bare = replace(
        b,
        greedy_reward=b.greedy_reward if "greedy" in algorithm.needs else None,
        value=b.value if algorithm.critic else None,
        logp_teacher=b.logp_teacher if "teacher" in algorithm.needs else None,
    )
    assert float(loss_of(algorithm, logp, bare)) == float(loss_of(algorithm, logp, b))
