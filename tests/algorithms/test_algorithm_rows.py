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
from ratchet.algorithms.selection import balanced
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
# Tokens with their log-ratios, log-probabilities and centred advantages, for the rows that sum over tokens.
_LOG = [math.log(r) for r in (1.5, 0.5, 0.5, 1.1, 2.0, 1.0)]
_A = [0.5, 0.5, -0.5, 1.0, -1.0, -1.0]
# The deviation of 1/2, -1/2, 1, -1 over the whole batch is sqrt(2.5 / 4).
_B = 1 / (0.625**0.5 + 1e-8)


def by_weight(weights: Sequence[float], advantage: Sequence[float], per: float) -> tuple[float, list[float]]:
    """Loss and gradient of ``-(1/per) sum w A log p``."""
    terms = [w * a for w, a in zip(weights, advantage, strict=True)]
    return -sum(x * (lr - 1) for x, lr in zip(terms, _LOG, strict=True)) / per, [-x / per for x in terms]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


_STD = [_S0, _S0, -_S0, _S1, -_S1, -_S1]
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
    # As grpo over 6 tokens, but the upper bound is 1.28; both groups are mixed.
    "dapo": (
        {},
        -(_S0 * (1.28 + 0.5 - 0.8) + _S1 * (1.1 - 3.0)) / 6,
        [0.0, -0.5 * _S0 / 6, 0.0, -1.1 * _S1 / 6, 2.0 * _S1 / 6, 1.0 * _S1 / 6],
    ),
    # Geometric means sqrt 0.75, 0.5, 1.1, sqrt 2. Samples 1 (A < 0, below 0.9997) and 2 (A > 0, above 1.0004) are cut.
    "gspo": (
        {},
        -(_S0 * (0.75**0.5 - 0.9997) + _S1 * (1.0004 - 2**0.5)) / 4,
        [-_S0 * 0.75**0.5 / 8, -_S0 * 0.75**0.5 / 8, 0.0, 0.0, _S1 * 2**0.5 / 8, _S1 * 2**0.5 / 8],
    ),
    # log 1.5 = 0.405 is cut to 0.4 (A > 0), log 0.5 to -0.4 (A < 0); log 2 stays (A < 0).
    "gmpo": (
        {},
        -(_S0 * (math.exp(0.2) * 0.5**0.5 - math.exp(-0.4)) + _S1 * (1.1 - 2**0.5)) / 4,
        [0.0, -_S0 * math.exp(0.2) * 0.5**0.5 / 8, 0.0, -1.1 * _S1 / 4, _S1 * 2**0.5 / 8, _S1 * 2**0.5 / 8],
    ),
    # Ratios capped at 1.28, detached.
    "cispo": ({}, *by_weight([1.28, 0.5, 0.5, 1.1, 1.28, 1.0], _STD, 6)),
    # Gates g(rho) = 4 sigmoid(t (rho - 1)) / t, t = 1 for samples 0 and 2, 1.05 for 1 and 3. Sample 0: g(1.5) + g(0.5)
    # is 4; sample 3: g(1) = 2 / 1.05. The slope of g is 4 s (1 - s), at rho = 1 it is 1.
    "sapo": (
        {},
        -(_S0 * (2 - 4 * sigmoid(-0.525) / 1.05) + _S1 * (4 * sigmoid(0.1) - (4 * sigmoid(1.05) + 2) / (2 * 1.05))) / 4,
        [
            -_S0 * 1.5 * 4 * sigmoid(0.5) * sigmoid(-0.5) / 8,
            -_S0 * 0.5 * 4 * sigmoid(0.5) * sigmoid(-0.5) / 8,
            _S0 * 0.5 * 4 * sigmoid(0.525) * sigmoid(-0.525) / 4,
            -_S1 * 1.1 * 4 * sigmoid(0.1) * sigmoid(-0.1) / 4,
            _S1 * 2.0 * 4 * sigmoid(1.05) * sigmoid(-1.05) / 8,
            _S1 / 8,
        ],
    ),
    # In a group of two the others' mean is the other's reward: A = 1, -1, 2, -2. Token sums over 4 samples.
    "rloo": ({}, *by_weight([1] * 6, [1, 1, -1, 2, -2, -2], 4)),
    "reinforce_pp": (
        {},
        -_B * (0.5 * (1.2 + 0.5) - 0.5 * 0.8 + 1.1 - 3.0) / 6,
        [0.0, -0.25 * _B / 6, 0.0, -1.1 * _B / 6, 2.0 * _B / 6, _B / 6],
    ),
    # Cut: token 0 (A > 0, 1.5 > 1.2) and token 2 (A < 0, 0.5 < 0.8).
    "rec_one_side": ({}, *by_weight([0, 1, 0, 1, 1, 1], _A, 6)),
    # Only 1.1 and 1 lie within 0.8 .. 1.2; with importance they weigh 1.1 and 1.
    "rec_two_side": ({"importance": True}, *by_weight([0, 0, 0, 1.1, 0, 1], _A, 6)),
    # Besides, token 1 (A > 0, 0.5 <= 0.55) and token 4 (A < 0, 2 >= 1.9).
    "rec_ring": ({"outer_low": 0.45, "outer_high": 0.9}, *by_weight([0, 1, 0, 1, 1, 1], _A, 6)),
    # One positive and one negative in each group: nothing to drop. Dropping has a test of its own below.
    "red_drop": ({}, *by_weight([1] * 6, _A, 6)),
    "red_weight": ({"temperature": 2.0}, *by_weight([math.exp(a / 2) for a in _A], _A, 6)),
    # A > 0 counts 1; sample 1 its ratio 0.5, sample 3 the least of 1 and 2 * 1.
    "topr": ({}, *by_weight([1, 1, 0.5, 1, 1, 1], _A, 6)),
    "asymre": ({}, *by_weight([1] * 6, [a + 0.1 for a in _A], 6)),
    # The slope of 0.1 x^2 is 0.2 x.
    "opmd_kimi": (
        {},
        by_weight([1] * 6, _A, 6)[0] + sum(0.1 * x * x for x in _LOG) / 6,
        [(0.2 * x - a) / 6 for x, a in zip(_LOG, _A, strict=True)],
    ),
    # Squares of the four advantages, 1/4 + 1/4 + 1 + 1, over 6 tokens; tau / max(1, tau) = 1/2.
    "opmd_pairwise": ({"tau": 0.5}, 2.5 / 6, [-2 * 0.5 * a / 6 for a in _A]),
    "min_opmd": ({"tau": 3.0}, *by_weight([0.25] * 6, _A, 6)),
    # Log-ratios of samples: log 0.75, log 0.5, log 1.1, log 2; the slope of 0.05 x^2 is 0.1 x.
    "k1_5": (
        {},
        by_weight([1] * 6, _A, 4)[0] + sum(0.05 * math.log(x) ** 2 for x in (0.75, 0.5, 1.1, 2.0)) / 4,
        [(0.1 * math.log(x) - a) / 4 for x, a in zip((0.75, 0.75, 0.5, 1.1, 2.0, 2.0), _A, strict=True)],
    ),
    # Ratios cut to e^-0.2 .. e^0.2 but for 1.1 and 1; the penalty holds everywhere.
    "k2_5": (
        {},
        -(0.5 * math.exp(0.2) + 0.5 * math.exp(-0.2) - 0.5 * math.exp(-0.2) + 1.1 - math.exp(0.2) - 1) / 6
        + sum(0.1 * x * x for x in _LOG) / 6,
        [(0.2 * x + cut) / 6 for x, cut in zip(_LOG, (0, 0, 0, -1.1, 0, 1), strict=True)],
    ),
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
    members = {g: [r for r, h in zip(rewards, groups, strict=True) if h == g] for g in groups}
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    places = [range(end - n, end) for n, end in zip(lengths, ends, strict=True)]
    if row == "dapo":
        kept = [i for i in range(len(groups)) if len(set(members[groups[i]])) > 1]
    else:
        kept = list(range(len(groups)))
    tokens = sum(lengths[i] for i in kept)
    centres = [rewards[i] - sum(members[groups[i]]) / len(members[groups[i]]) for i in kept]
    total = torch.zeros((), dtype=torch.float64)
    for i in kept:
        change = [logp[t] - b.logp_behaviour[t] for t in places[i]]
        advantage = naive_advantage(row, options, rewards[i], members[groups[i]], centres)
        if row == "red_drop":  # which ones stay is drawn; the draw has tests of its own
            stay = balanced(b).tolist()
            theirs = [r for r, g, s in zip(rewards, groups, stay, strict=True) if s and g == groups[i]]
            advantage = (rewards[i] - sum(theirs) / len(theirs)) * stay[i]
        values = naive_tokens(row, options, advantage, [logp[t] for t in places[i]], change)
        if row in ("grpo", "gspo", "gmpo", "sapo"):
            per = len(kept) * lengths[i]
        elif row in ("rloo", "k1_5"):
            per = len(kept)
        else:
            per = len(kept) * int(options.get("length", 1024)) if row == "dr_grpo" else tokens
        total = total + sum(values, torch.zeros((), dtype=torch.float64)) / per
    return total


def naive_advantage(
    row: str, options: Mapping[str, object], reward: float, mine: Sequence[float], centres: Sequence[float]
) -> float:
    mean = sum(mine) / len(mine)
    advantage = reward - mean
    if options.get("std", row in ("grpo", "dapo", "gspo", "gmpo", "cispo", "sapo")):
        variance = sum((r - mean) ** 2 for r in mine) / max(1, len(mine) - 1)
        advantage /= math.sqrt(variance) + 1e-6
    if row == "rloo":
        return reward - (sum(mine) - reward) / (len(mine) - 1) if len(mine) > 1 else 0.0
    if row == "reinforce_pp":
        advantage /= math.sqrt(sum(c * c for c in centres) / len(centres)) + 1e-8
    if row == "asymre":
        advantage = reward - (mean + float(options.get("baseline_shift", -0.1)))
    if row == "min_opmd" and options.get("soft_baseline"):
        tau = float(options.get("tau", 1.0))
        advantage = reward - tau * (math.log(sum(math.exp(r / tau) for r in mine)) - math.log(len(mine)))
    return advantage


def naive_tokens(
    row: str, options: Mapping[str, object], a: float, logp: Sequence[Tensor], change: Sequence[Tensor]
) -> list[Tensor]:
    """Return the loss of each token of one sample: log-probabilities and log-ratios in, scalars out."""

    def option(name: str, default: float) -> float:
        return float(options.get(name, default))

    def least(x: Tensor, y: Tensor) -> Tensor:
        # Where both agree both carry the same gradient or the bound is met exactly, which random numbers do not do.
        return x if float(x.detach()) <= float(y.detach()) else y

    def within(x: Tensor, low: float, high: float) -> Tensor:
        return x if low <= float(x.detach()) <= high else x.new_tensor(low if float(x.detach()) < low else high)

    n = len(logp)
    rho = [x.exp() for x in change]
    if row == "sft":
        return [-x for x in logp]
    if row in ("grpo", "dr_grpo", "dapo", "reinforce_pp"):
        low, high = 1 - option("clip_low", 0.2), 1 + option("clip_high", 0.28 if row == "dapo" else 0.2)
        return [-least(r * a, within(r, low, high) * a) for r in rho]
    if row == "gspo":
        s = (sum(change[1:], change[0]) / n).exp()
        return [-least(s * a, within(s, 1 - option("clip_low", 3e-4), 1 + option("clip_high", 4e-4)) * a)] * n
    if row == "gmpo":
        low, high = math.exp(-option("log_clip_low", 0.4)), math.exp(option("log_clip_high", 0.4))
        product = torch.ones((), dtype=torch.float64)
        for r in rho:
            product = product * least(r * a, within(r, low, high) * a).abs()
        return [-math.copysign(1, a) * product ** (1 / n)] * n if a else [0 * x for x in logp]
    if row == "cispo":
        return [
            -within(r, option("cap_low", 0), option("cap_high", 1.28)).detach() * a * x
            for r, x in zip(rho, logp, strict=True)
        ]
    if row == "sapo":
        tau = option("gate_positive", 1.0) if a > 0 else option("gate_negative", 1.05)
        return [-4 / tau * a / (1 + (tau * (1 - r)).exp()) for r in rho]
    if row.startswith("rec_"):
        low, high = 1 - option("clip_low", 0.2), 1 + option("clip_high", 0.2)
        values = []
        for r, x in zip((float(r.detach()) for r in rho), logp, strict=True):
            inside = low <= r <= high
            if row == "rec_one_side":
                inside = (a >= 0 and r <= high) or (a <= 0 and r >= low)
            if row == "rec_ring":
                near, far = 1 - option("outer_low", 0.6), 1 + option("outer_high", 2.0)
                inside = inside or (a >= 0 and r <= near) or (a <= 0 and r >= far)
            values.append(-(r if options.get("importance") else 1.0) * a * inside * x)
        return values
    if row == "red_weight":
        return [-math.exp(a / option("temperature", 1.0)) * a * x for x in logp]
    if row == "topr":
        whole = math.prod(float(r.detach()) for r in rho)
        each = [whole] * n if options.get("sequence", True) else [float(r.detach()) for r in rho]
        return [-(1.0 if a > 0 else min(1.0, w)) * a * x for w, x in zip(each, logp, strict=True)]
    if row == "opmd_kimi":
        return [-a * x + option("penalty", 0.1) * c**2 for x, c in zip(logp, change, strict=True)]
    if row == "opmd_pairwise":
        tau = option("tau", 1.0)
        drift = sum(x - x.detach() for x in logp)
        return [(a - tau * drift) ** 2 / max(1, tau) / n] * n
    if row == "min_opmd":
        return [-a * x / (1 + option("tau", 1.0)) for x in logp]
    if row == "k1_5":
        return [-a * x + option("tau", 0.1) / 2 * sum(change) ** 2 / n for x in logp]
    if row == "k2_5":
        low, high = math.exp(-option("log_clip_low", 0.2)), math.exp(option("log_clip_high", 0.2))
        return [-within(r, low, high) * a + option("tau", 0.1) * c**2 for r, c in zip(rho, change, strict=True)]
    return [-a * x for x in logp]


OPTIONS: Mapping[str, Sequence[Mapping[str, object]]] = {
    "grpo": [{}, {"std": False, "clip_low": 0.1, "clip_high": 0.28}],
    "dr_grpo": [{}, {"length": 7, "clip_high": 0.4}],
    "reinforce": [{}, {"std": True}],
    "sft": [{}],
    "dapo": [{}, {"clip_low": 0.1, "clip_high": 0.3}],
    "gspo": [{}, {"clip_low": 0.1, "clip_high": 0.2}],
    "gmpo": [{}, {"log_clip_low": 0.1, "log_clip_high": 0.2}],
    "cispo": [{}, {"cap_low": 0.9, "cap_high": 1.1}],
    "sapo": [{}, {"gate_positive": 3.0, "gate_negative": 0.5}],
    "rloo": [{}],
    "reinforce_pp": [{}, {"clip_low": 0.1, "clip_high": 0.3}],
    "rec_one_side": [{}, {"importance": True, "clip_low": 0.6, "clip_high": 2.0}],
    "rec_two_side": [{}, {"importance": True, "clip_low": 0.3}],
    "rec_ring": [{}, {"importance": True, "clip_low": 0.1, "clip_high": 0.1, "outer_low": 0.3, "outer_high": 0.3}],
    "red_drop": [{}],
    "red_weight": [{}, {"temperature": 0.3}],
    "topr": [{}, {"sequence": False}],
    "asymre": [{}, {"baseline_shift": 0.5}, {"baseline_shift": 0.0}],
    "opmd_kimi": [{}, {"penalty": 2.0}],
    "opmd_pairwise": [{}, {"tau": 4.0}],
    "min_opmd": [{}, {"tau": 0.3, "soft_baseline": True}],
    "k1_5": [{}, {"tau": 2.0}],
    "k2_5": [{}, {"log_clip_low": 0.5, "log_clip_high": 0.1, "tau": 1.0}],
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
        ("cispo", {"cap_high": 0.9}, "algorithm.cap_high = 0.9"),
        ("cispo", {"cap_low": -0.1}, "algorithm.cap_low = -0.1"),
        ("gmpo", {"log_clip_low": 21.0}, "algorithm.log_clip_low = 21.0"),
        ("sapo", {"gate_positive": 0.0}, "algorithm.gate_positive = 0.0"),
        ("red_weight", {"temperature": 0.0}, "algorithm.temperature = 0.0"),
        ("red_weight", {"temperature": float("inf")}, "algorithm.temperature = inf"),
        ("asymre", {"baseline_shift": float("nan")}, "algorithm.baseline_shift = nan"),
        ("opmd_kimi", {"penalty": -0.1}, "algorithm.penalty = -0.1"),
        ("k1_5", {"tau": 0.0}, "algorithm.tau = 0.0"),
        ("k2_5", {"log_clip_high": 0.0}, "algorithm.log_clip_high = 0.0"),
        ("rec_one_side", {"outer_low": 0.6}, "algorithm.outer_low: rec_one_side has no such option"),
        ("rec_ring", {"outer_low": 0.1}, "algorithm.outer_low = 0.1 lies inside algorithm.clip_low = 0.2: set"),
        ("rec_ring", {"clip_high": 3.0}, "algorithm.outer_high = 2 lies inside algorithm.clip_high = 3: set"),
        ("topr", {"sequence": 2}, "algorithm.sequence = 2"),
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


# --- What single rows promise.


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ("asymre", "sft")])
@pytest.mark.parametrize("reward", [0.1, 1.1, -0.3, 1e6 + 0.1])
def test_groups_whose_rewards_agree_get_exact_zeros_in_float32(row: str, reward: float) -> None:
    b = batch([1] * 10, [0] * 7 + [1] * 3, [reward] * 10)
    b = Batch(b.sample, b.group, b.reward.float(), b.version, b.logp_behaviour.float())
    assert build_algorithm(row, {}).advantage(b).tolist() == [0.0] * 10


def test_dapo_trains_only_on_groups_whose_rewards_differ() -> None:
    b = batch([1] * 6, [0, 1, 2, 0, 1, 2], [1.0, 0.1, 0.0, 1.0, 0.2, 0.0])
    assert build_algorithm("dapo", {}).keep(b).tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("row", "low", "high"),
    [
        ("rec_one_side", [2], [0]),
        ("rec_two_side", [1, 2], [0, 4]),
        ("rec_ring", [1, 2], [0, 4]),
        ("dapo", [2], [0]),
        ("gspo", [2], [3]),
        ("gmpo", [2], [0]),
        ("cispo", [], [0, 4]),
        ("k2_5", [1, 2], [0, 4]),
        ("sapo", [], []),
        ("topr", [], []),
    ],
)
def test_each_row_reports_the_tokens_it_cuts(row: str, low: Sequence[int], high: Sequence[int]) -> None:
    algorithm = build_algorithm(row, {})
    loss = algorithm.loss(HAND_LOGP, HAND, HAND.per_token(algorithm.advantage(HAND)))
    assert loss.clipped_low.nonzero()[:, 0].tolist() == low
    assert loss.clipped_high.nonzero()[:, 0].tolist() == high


def test_ring_keeps_far_tokens_that_are_pulled_back_and_no_others() -> None:
    ratio = torch.tensor([0.3, 0.5, 3.5, 0.3, 2.5, 3.5], dtype=torch.float64)
    b = batch([3, 3], [0, 0], [1.0, 0.0])
    found = gradient_of(lambda x: loss_of(build_algorithm("rec_ring", {}), x, b), ratio.log() - 1)
    assert (found != 0).tolist() == [True, False, False, False, False, True]


def draws(seed: int, rewards: Sequence[float]) -> Tensor:
    """Which samples of one group stay, for behaviour log-probabilities of a seed."""
    behaviour = -torch.rand(len(rewards), generator=torch.Generator().manual_seed(seed))
    return balanced(batch([1] * len(rewards), [0] * len(rewards), rewards, behaviour=behaviour.tolist()))


def test_red_drop_keeps_as_many_negatives_as_positives_and_centres_on_them() -> None:
    # Mean 0.25: one positive, three negatives, two of which go; over the kept the mean is 1/2. The second group has two
    # positives, one negative: all stay, with their own mean 2/3. The third agrees: all are positive.
    rewards = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.5, 0.5]
    b = batch([1] * 9, [0, 0, 0, 0, 1, 1, 1, 2, 2], rewards, behaviour=[-0.1 * i for i in range(9)])
    credit = build_algorithm("red_drop", {}).advantage(b)
    assert sorted(credit[:4].tolist()) == [-0.5, 0.0, 0.0, 0.5]
    assert credit[4:].tolist() == pytest.approx([1 / 3, 1 / 3, -2 / 3, 0.0, 0.0])


@given(seed=SEEDS)
def test_red_drop_draws_the_same_whatever_the_order_of_samples(seed: int) -> None:
    b, _ = random_batch(seed, 0.3)
    order = torch.randperm(b.num_samples, generator=torch.Generator().manual_seed(seed))
    assert balanced(b.select(order)).tolist() == balanced(b)[order].tolist()


def test_red_drop_draws_every_negative_equally_often() -> None:
    kept = torch.stack([draws(seed, [0.0, 0.0, 1.0, 0.0, 0.0]) for seed in range(2000)]).double().mean(0)
    # One of four negatives stays: 0.25 each, with a standard error of 0.0097 over 2000 draws.
    assert kept.tolist() == pytest.approx([0.25, 0.25, 1.0, 0.25, 0.25], abs=0.04)


def test_a_dropped_sample_keeps_its_tokens_in_the_denominator() -> None:
    b = batch([1, 2, 3], [0, 0, 0], [3.0, 0.0, 0.0], behaviour=[-0.1, -0.2, -0.3, -0.4, -0.5, -0.6])
    found = gradient_of(lambda x: loss_of(build_algorithm("red_drop", {}), x, b), b.logp_behaviour)
    assert float(found[0]) == pytest.approx(-1.5 / 6)
    assert found[1:].abs().sum() in (pytest.approx(1.5 * 2 / 6), pytest.approx(1.5 * 3 / 6))


def test_one_sample_of_huge_reward_cannot_overflow_a_weight() -> None:
    b = batch([1, 1], [0, 0], [1e4, -1e4])
    b = Batch(b.sample, b.group, b.reward.float(), b.version, b.logp_behaviour.float())
    algorithm = build_algorithm("red_weight", {"temperature": 0.01})
    assert bool(algorithm.weight(b, algorithm.advantage(b)).isfinite().all())
