"""Every row of the table against an example worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from builders import batch
from row_cases import ROWS, gradient_of, loss_of

from ratchet.algorithms.table import ALGORITHMS, build_algorithm

# Two groups of two samples; lengths 2, 1 | 1, 2; rewards 1, 0 | 3, 1. Behaviour log-probabilities are -1.
# Ratios e^(logp+1): sample 0: 1.5, 0.5; sample 1: 0.5; sample 2: 1.1; sample 3: 2, 1. So logp = log(ratio) - 1.
# The greedy answers earned 1/4 and 2. The critic expected 1/2, 1/4 | 1/2 | 2 | 2, 3/2. The teacher's log-probabilities
# exceed the behaviour's by 1/2, -1 | 0 | 1/4 | -1/2, 0.
HAND = replace(
    batch([2, 1, 1, 2], [0, 0, 1, 1], [1.0, 0.0, 3.0, 1.0]),
    greedy_reward=torch.tensor([0.25, 0.25, 2.0, 2.0], dtype=torch.float64),
    value=torch.tensor([0.5, 0.25, 0.5, 2.0, 2.0, 1.5], dtype=torch.float64),
    logp_teacher=torch.tensor([-0.5, -2.0, -1.0, -0.75, -1.5, -1.0], dtype=torch.float64),
)
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
# Rewards of tokens: 1, 1 | 0 | 3 | 1, 1: mean 7/6, squared deviation (4/36 + 49/36 + 121/36) / 6.
_R = 1 / ((174 / 216) ** 0.5 + 1e-8)
# Centred rewards of tokens less their mean -1/12, in twelfths: 7, 7 | -5 | 13 | -11, -11.
_B = 1 / ((534 / 864) ** 0.5 + 1e-8)


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
    # A = 3/4, -1/4, 1, -1.
    "remax": ({}, *by_weight([1] * 6, [0.75, 0.75, -0.25, 1, -1, -1], 4)),
    # In sixths of _R, A is -1, -1 | -7 | 11 | -1, -1. Tokens 1 and 2 (A < 0, 0.5 < 0.8) are cut:
    # -1.5 - 0.8 - 0.8 * 7 + 1.1 * 11 - 2 - 1 = 1.2.
    "reinforce_pp": (
        {},
        -_R * (1.2 / 6) / 6,
        [x * _R / 36 for x in (1.5, 0.0, 0.0, -12.1, 2.0, 1.0)],
    ),
    # Tokens 0 (A > 0, 1.5 > 1.2) and 2 are cut: 1.2 * 7 + 0.5 * 7 - 0.8 * 5 + 1.1 * 13 - 2 * 11 - 11 = -10.8.
    "reinforce_pp_baseline": (
        {},
        _B * (10.8 / 12) / 6,
        [x * _B / 72 for x in (0.0, -3.5, 0.0, -14.3, 22.0, 11.0)],
    ),
    # d = -1/4, 3/4 | -1/2 | 1 | -1/2, -1/2 and A_t = d_t + A_{t+1} / 2: 1/8, 3/4 | -1/2 | 1 | -3/4, -1/2. Tokens 0 and
    # 2 are cut: 1.2 / 8 + 0.5 * 3/4 - 0.8 / 2 + 1.1 - 2 * 3/4 - 1/2 = -0.775.
    "ppo": (
        {"lam": 0.5, "whiten": False},
        0.775 / 6,
        [x / 6 for x in (0.0, -0.375, 0.0, -1.1, 1.5, 0.5)],
    ),
    # A = (1/2, -1, 0, 1/4, -1/2, 0) + (1/2, 1/2, -1/2, 1, -1, -1) / 2; times the ratios:
    # 1.125 - 0.375 - 0.125 + 0.825 - 2 - 0.5 = -1.05.
    "distill": (
        {"reward_coef": 0.5},
        1.05 / 6,
        [-x / 6 for x in (1.125, -0.375, -0.125, 0.825, -2.0, -0.5)],
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
    # Over tokens the advantages sum to 1 - 1/2 + 1 - 2 < 0, weighted at T = 10 to -0.129: T stays at its least.
    "red_adaptive": (
        {"temperature_min": 10.0},
        *by_weight([m * math.exp(a / 10) for m, a in zip([0, 1, 0, 1, 1, 1], _A, strict=True)], _A, 6),
    ),
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
        ("reinforce_pp", [1, 2], []),
        ("red_adaptive", [2], [0]),
        ("distill", [], []),
    ],
)
def test_each_row_reports_the_tokens_it_cuts(row: str, low: Sequence[int], high: Sequence[int]) -> None:
    algorithm = build_algorithm(row, {})
    loss = algorithm.loss(HAND_LOGP, HAND, HAND.per_token(algorithm.advantage(HAND)))
    assert loss.clipped_low.nonzero()[:, 0].tolist() == low
    assert loss.clipped_high.nonzero()[:, 0].tolist() == high
