"""Losses and gradients of the rows that TRL has too, against TRL's own code on the same numbers.

TRL's loss is a method of its trainer; it is called on a stand-in that carries the attributes it reads, so that no model
is built. Advantages are handed over: only their deviation's epsilon differs. Skipped where TRL is not installed.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from builders import batch
from torch import Tensor

from ratchet.algorithms.table import build_algorithm
from ratchet.core.batch import Batch

LENGTHS = [4, 1, 3, 2, 5, 2]
SAMPLES, LONGEST = len(LENGTHS), max(LENGTHS)

TheirLoss = Callable[[SimpleNamespace, object, Mapping[str, Tensor]], Tensor]


@pytest.fixture(scope="module")
def their_loss() -> TheirLoss:
    return pytest.importorskip("trl").GRPOTrainer._compute_loss


@pytest.fixture(scope="module")
def their_gmpo_loss() -> TheirLoss:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL announces that what is experimental may change
        return pytest.importorskip("trl.experimental.gmpo").GMPOTrainer._compute_loss


def stand_in(logp: Tensor, **settings: object) -> SimpleNamespace:
    """What TRL's loss reads of its trainer: one process, one accumulation step, no penalty, no correction."""
    defaults = {
        "loss_type": "grpo",
        "importance_sampling_level": "token",
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "max_completion_length": 7,
    }
    return SimpleNamespace(
        **{**defaults, **settings},
        _get_per_token_logps_and_entropies=lambda *args, **options: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        beta=0.0,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        args=SimpleNamespace(
            delta=None,
            use_bias_correction_kl=False,
            steps_per_generation=1,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
        ),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        _metrics={"train": defaultdict(list)},
    )


def rectangle(x: Tensor) -> Tensor:
    """Lay a (N,) column out as (samples, longest), padded with zeros at the end."""
    return torch.nn.utils.rnn.pad_sequence(x.split(LENGTHS), batch_first=True)


def numbers(seed: int) -> tuple[Batch, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    behaviour = -1 - torch.rand(sum(LENGTHS), generator=generator, dtype=torch.float64)
    b = batch(LENGTHS, [0, 0, 0, 1, 1, 1], [1.0, 0.0, 0.5, 2.0, -1.0, 0.25], behaviour=behaviour.tolist())
    return b, behaviour + 0.3 * torch.randn(sum(LENGTHS), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("row", "options", "settings"),
    [
        ("grpo", {}, {}),
        ("grpo", {"clip_low": 0.1, "clip_high": 0.3}, {"epsilon_low": 0.1, "epsilon_high": 0.3}),
        ("dr_grpo", {"length": 7}, {"loss_type": "dr_grpo"}),
        ("dapo", {}, {"loss_type": "dapo", "epsilon_high": 0.28}),
        ("gspo", {}, {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}),
        (
            "gspo",
            {"clip_low": 0.2, "clip_high": 0.3},
            {"importance_sampling_level": "sequence", "epsilon_low": 0.2, "epsilon_high": 0.3},
        ),
        ("cispo", {}, {"loss_type": "cispo", "epsilon_high": 1.28}),
        ("sapo", {}, {"loss_type": "sapo"}),
    ],
)
def test_loss_and_gradient_are_those_of_trl(
    row: str, options: Mapping[str, object], settings: Mapping[str, object], seed: int, their_loss: TheirLoss
) -> None:
    compare(row, options, settings, seed, their_loss)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("low", "high"), [(0.4, 0.4), (0.1, 0.2)])
def test_gmpo_is_that_of_trl(low: float, high: float, seed: int, their_gmpo_loss: TheirLoss) -> None:
    options = {"log_clip_low": low, "log_clip_high": high}
    compare("gmpo", options, {"epsilon_low": low, "epsilon_high": high}, seed, their_gmpo_loss)


def test_dapos_length_penalty_is_that_of_trl() -> None:
    penalty = pytest.importorskip("trl.rewards").get_soft_overlong_punishment(5, 3)
    b, _ = numbers(0)
    shaped = replace(b, reward=b.reward + torch.tensor(penalty([[0] * n for n in LENGTHS]), dtype=torch.float64))
    ours = build_algorithm("dapo", {"overlong_length": 5, "overlong_buffer": 3}).advantage(b)
    assert torch.allclose(ours, build_algorithm("dapo", {}).advantage(shaped), rtol=0, atol=1e-14)


def compare(
    row: str, options: Mapping[str, object], settings: Mapping[str, object], seed: int, their_loss: TheirLoss
) -> None:
    """Assert that loss and gradient of a row are TRL's."""
    algorithm = build_algorithm(row, options)
    b, logp = numbers(seed)
    credit = algorithm.advantage(b)
    coef = algorithm.reduce(b, algorithm.weight(b, credit))

    mine = logp.clone().requires_grad_(True)
    ours = (coef * algorithm.loss(mine, b, b.per_token(credit)).value).sum()

    yours = logp.clone().requires_grad_(True)
    mask = rectangle(torch.ones_like(logp))
    inputs = {
        "prompt_ids": torch.zeros(SAMPLES, 1),
        "prompt_mask": torch.ones(SAMPLES, 1),
        "completion_ids": torch.zeros(SAMPLES, LONGEST),
        "completion_mask": mask,
        "advantages": credit,
        "old_per_token_logps": rectangle(b.logp_behaviour),
        "num_items_in_batch": mask.sum(),
    }
    theirs = their_loss(stand_in(rectangle(yours), **settings), None, inputs)

    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-7)
    (our_gradient,) = torch.autograd.grad(ours, mine)
    (their_gradient,) = torch.autograd.grad(theirs, yours)
    assert bool((our_gradient != 0).any())
    assert torch.allclose(our_gradient, their_gradient, rtol=0, atol=1e-7)
