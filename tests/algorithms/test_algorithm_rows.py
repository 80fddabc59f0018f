"""Every row of the table: an example by hand, a naive reference, and the properties that all methods share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from builders import batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.table import ALGORITHMS, build_algorithm
from ratchet.core.batch import Batch
from ratchet.core.errors import ConfigError

ROWS = sorted(ALGORITHMS)


def loss_of(algorithm: Algorithm, logp: Tensor, b: Batch) -> Tensor:
    """Return the loss as the trainer makes it: everything derived once for the whole batch."""
    kept = algorithm.keep(b).nonzero()[:, 0]
    logp, b = logp[b.tokens_of(kept)], b.select(kept)
    credit = algorithm.advantage(b)
    coef = algorithm.reduce(b, algorithm.weight(b, credit))
    return (coef * algorithm.loss(logp, b, b.per_token(credit)).value).sum()


def gradient_of(loss: Callable[[Tensor], Tensor], logp: Tensor) -> Tensor:
    leaf = logp.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    return gradient


# --- By hand. Two groups of two samples; lengths 2, 1 | 1, 2; rewards 1, 0 | 3, 1. Behaviour log-probabilities are -1.
# Ratios e^(logp+1): sample 0: 1.5, 0.5; sample 1: 0.5; sample 2: 1.1; sample 3: 2, 1. So logp = log(ratio) - 1.
HAND = batch([2, 1, 1, 2], [0, 0, 1, 1], [1.0, 0.0, 3.0, 1.0])
HAND_RATIO = torch.tensor([1.5, 0.5, 0.5, 1.1, 2.0, 1.0], dtype=torch.float64)
HAND_LOGP = HAND_RATIO.log() - 1.0

# Centred advantages: 1/2, -1/2 | 1, -1. Sample standard deviations: 1/sqrt 2 and sqrt 2, so standardised they are
# s, -s | s, -s with s = 1/sqrt 2 (the 1e-6 beside the deviation moves them by 1.4e-6 and 0.7e-6 of themselves).
# Clipped ratio at 0.2, min(rho A, clip(rho) A), per unit of |A|:
#   sample 0 (A > 0): min(1.5, 1.2) = 1.2, min(0.5, 0.8) = 0.5;   sample 1 (A < 0): min(-0.5, -0.8) = -0.8
#   sample 2 (A > 0): 1.1;                                         sample 3 (A < 0): min(-2, -1.2) = -2, -1
_S0, _S1 = 0.5 / (2**-0.5 + 1e-6), 1.0 / (2**0.5 + 1e-6)
BY_HAND: Mapping[str, tuple[Mapping[str, object], float, Sequence[float]]] = {
    # Mean over tokens, then over 4 samples: -(1/4) (s (1.2 + 0.5)/2 - 0.8 s + 1.1 s + s (-2 - 1)/2).
    # Gradient for log p is -coef A rho where not cut: tokens 0 and 2 are cut.
    "grpo": (
        {},
        -(0.85 * _S0 - 0.8 * _S0 + 1.1 * _S1 - 1.5 * _S1) / 4,
        [0.0, -0.5 * _S0 / 8, 0.0, -1.1 * _S1 / 4, 2.0 * _S1 / 8, 1.0 * _S1 / 8],
    ),
    # Advantages 1/2, -1/2, 1, -1; token sums over 4 samples times 10:
    # -(1/40) (0.5 * 1.7 - 0.5 * 0.8 + 1.1 - 3).
    "dr_grpo": (
        {"length": 10},
        -(0.85 - 0.4 + 1.1 - 3.0) / 40,
        [0.0, -0.25 / 40, 0.0, -1.1 / 40, 2.0 / 40, 1.0 / 40],
    ),
    # -(1/6) sum A log p; no ratio: 0.5 (log 1.5 + log 0.5 - 2) - 0.5 (log 0.5 - 1) + (log 1.1 - 1) - (log 2 - 2).
    "reinforce": (
        {},
        -(0.5 * (math.log(0.75) - 2) - 0.5 * (math.log(0.5) - 1) + math.log(1.1) - 1 - math.log(2) + 2) / 6,
        [-0.5 / 6, -0.5 / 6, 0.5 / 6, -1 / 6, 1 / 6, 1 / 6],
    ),
    # -(1/6) sum log p = -(1/6) (log(1.5 * 0.5 * 0.5 * 1.1 * 2) - 6); rewards do not matter.
    "sft": ({}, -(math.log(0.825) - 6) / 6, [-1 / 6] * 6),
}


def test_every_row_has_an_example_by_hand() -> None:
    assert set(BY_HAND) == set(ALGORITHMS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_gives_the_loss_and_gradient_worked_out_by_hand(row: str) -> None:
    options, loss, gradient = BY_HAND[row]
    algorithm = build_algorithm(row, options)
    assert float(loss_of(algorithm, HAND_LOGP, HAND)) == pytest.approx(loss, rel=1e-12)
    found = gradient_of(lambda logp: loss_of(algorithm, logp, HAND), HAND_LOGP)
    assert found.tolist() == pytest.approx(gradient, rel=1e-12, abs=1e-15)


def test_the_clip_is_reported_where_the_gradient_is_cut() -> None:
    algorithm = build_algorithm("grpo", {})
    loss = algorithm.loss(HAND_LOGP, HAND, HAND.per_token(algorithm.advantage(HAND)))
    assert loss.clipped_high.tolist() == [True, False, False, False, False, False]
    assert loss.clipped_low.tolist() == [False, False, True, False, False, False]


# --- A reference that knows no tensors but scalars: one sample after the other, from the formula in the docstring.


def naive(row: str, options: Mapping[str, object], logp: Tensor, b: Batch) -> Tensor:
    lengths, groups, rewards = [int(n) for n in b.lengths], b.group.tolist(), b.reward.tolist()
    total, at = torch.zeros((), dtype=torch.float64), 0
    for i, length in enumerate(lengths):
        mine = [r for r, g in zip(rewards, groups, strict=True) if g == groups[i]]
        mean = sum(mine) / len(mine)
        advantage = rewards[i] - mean
        if options.get("std", row == "grpo"):
            variance = sum((r - mean) ** 2 for r in mine) / max(1, len(mine) - 1)
            advantage /= math.sqrt(variance) + 1e-6
        for t in range(at, at + length):
            if row == "sft":
                total = total - logp[t] / sum(lengths)
            elif row == "reinforce":
                total = total - advantage * logp[t] / sum(lengths)
            else:
                ratio = (logp[t] - b.logp_behaviour[t]).exp()
                low, high = 1 - float(options.get("clip_low", 0.2)), 1 + float(options.get("clip_high", 0.2))
                cut = min(max(float(ratio.detach()), low), high) * advantage
                # At equality both branches have one value; torch.minimum shares the gradient, so keep away from it.
                chosen = (
                    ratio * advantage
                    if float(ratio.detach()) * advantage <= cut
                    else torch.tensor(cut, dtype=torch.float64)
                )
                per = len(lengths) * (length if row == "grpo" else int(options.get("length", 1024)))
                total = total - chosen / per
        at += length
    return total


OPTIONS: Mapping[str, Sequence[Mapping[str, object]]] = {
    "grpo": [{}, {"std": False, "clip_low": 0.1, "clip_high": 0.28}],
    "dr_grpo": [{}, {"length": 7, "clip_high": 0.4}],
    "reinforce": [{}, {"std": True}],
    "sft": [{}],
}


def random_batch(seed: int, spread: float) -> tuple[Batch, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randn(n, generator=generator, dtype=torch.float64)  # noqa: E731
    samples = 3 + seed % 7
    lengths = [1 + int(torch.randint(0, 5, (1,), generator=generator)) for _ in range(samples)]
    groups = sorted([0, 0, *(int(torch.randint(0, 3, (1,), generator=generator)) for _ in range(samples - 2))])
    numbers = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    behaviour = -2 + 0.5 * draw(sum(lengths))
    b = batch(lengths, [numbers[g] for g in groups], draw(samples).tolist(), behaviour=behaviour.tolist())
    return b, behaviour + spread * draw(sum(lengths))


CASES = [(row, options) for row in ROWS for options in OPTIONS[row]]
SEEDS = st.integers(0, 10_000)


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
    b = batch([1, 1, 1, 1], [0, 0, 0, 0], [2.0, -1.0, 2.0, -1.0], behaviour=[-50.0, -50.0, 0.0, 0.0])
    b = Batch(b.sample, b.group, b.reward.to(dtype), b.version, b.logp_behaviour.to(dtype))
    algorithm = build_algorithm(row, options)
    logp = torch.tensor([0.0, 0.0, -50.0, -50.0], dtype=dtype)
    assert bool(loss_of(algorithm, logp, b).isfinite())
    assert bool(gradient_of(lambda x: loss_of(algorithm, x, b), logp).isfinite().all())


@pytest.mark.parametrize(("row", "options"), CASES)
def test_equal_rewards_give_no_gradient_exactly_where_the_row_says_so(row: str, options: Mapping[str, object]) -> None:
    algorithm = build_algorithm(row, options)
    b, logp = random_batch(5, 0.3)
    b = Batch(b.sample, b.group, torch.full_like(b.reward, 0.75), b.version, b.logp_behaviour)
    silent = bool((gradient_of(lambda x: loss_of(algorithm, x, b), logp) == 0).all())
    assert silent == algorithm.silent_at_zero


@pytest.mark.parametrize(
    ("row", "options", "told"),
    [
        ("grpo", {"clip_lo": 0.2}, 'algorithm.clip_lo: grpo has no such option. Did you mean "clip_low"?'),
        ("grpo", {"length": 3}, "grpo has no such option"),
        ("grpo", {"clip_low": 1.0}, "algorithm.clip_low = 1.0"),
        ("grpo", {"clip_high": 0.0}, "algorithm.clip_high = 0.0"),
        ("grpo", {"clip_high": float("nan")}, "algorithm.clip_high = nan"),
        ("grpo", {"std": "perhaps"}, "algorithm.std = 'perhaps'"),
        ("dr_grpo", {"length": 0}, "algorithm.length = 0"),
        ("dr_grpo", {"length": 2.5}, "algorithm.length = 2.5"),
        ("sft", {"std": True}, "sft has no such option"),
        ("grpoo", {}, 'algorithm.name = "grpoo" is not known. Did you mean "grpo"?'),
        ("json:dumps", {"obj": 1}, "returned a str, not an Algorithm"),
        ("json:no_such", {}, "algorithm.name"),
        ("json:__name__", {}, "is a str; name a function instead"),
    ],
)
def test_an_option_that_cannot_be_is_a_config_error(row: str, options: Mapping[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_algorithm(row, options)
    assert told in str(caught.value)


def test_a_users_own_builder_is_a_row_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from ratchet.algorithms.table import reinforce_group\n"
        "def doubled(*, std: bool = False):\n    return reinforce_group(std=std)\n"
    )
    mine, theirs = build_algorithm(f"{file}:doubled", {"std": True}), build_algorithm("reinforce", {"std": True})
    assert float(loss_of(mine, HAND_LOGP, HAND)) == float(loss_of(theirs, HAND_LOGP, HAND))
