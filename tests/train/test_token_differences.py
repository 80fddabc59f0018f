"""How far the trainer was from the sampler, token by token, as a step's report tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from builders import group, random_groups, rollout, tiny_policy, turn

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.core.rollout import Differences, Group
from ratchet.policy.policy import Policy
from ratchet.train.trainer import Trainer


def trainer(policy: Policy, algorithm: str = "grpo", *, by_token: bool = True, **config: Any) -> Trainer:
    method, settings = AlgorithmSection(lr=1e-2), TrainSection(**config)
    return Trainer(policy, build_algorithm(algorithm, {}), method, settings, seed=0, by_token=by_token)


def told(made: Trainer, groups: Sequence[Group]) -> Differences:
    found = made.step(groups, 0).differences
    assert found is not None
    return found


def expected(policy: Policy, one: Group, attempt: int) -> list[float]:
    """Return what a pass over one rollout alone says: trainer minus sampler at each token it sampled."""
    (chosen,) = (r for r in one.rollouts if r.attempt == attempt)
    ours, theirs = trainer(policy).logprobs([group([chosen])])
    return (ours - theirs).tolist()


@pytest.mark.parametrize("micro_batch_tokens", [12, 4096])
def test_each_tokens_difference_stands_with_its_rollout_however_the_passes_are_cut(micro_batch_tokens: int) -> None:
    groups = random_groups(3, groups=4, equal=(1,))  # a group of equal rewards is measured and not learned from
    wanted = {(g.step, g.index, r.attempt): expected(tiny_policy(), g, r.attempt) for g in groups for r in g.rollouts}
    found = told(trainer(tiny_policy(), micro_batch_tokens=micro_batch_tokens), groups)
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key].dtype == np.float16
        assert found[key].tolist() == pytest.approx(values, rel=1e-3, abs=1e-6)


def test_the_turns_of_a_rollout_follow_one_another_whether_they_are_one_sample_or_two() -> None:
    whole = (turn([7, 8], [9, 10]), turn([7, 8, 9, 10, 11], [12]))  # the second goes on from the first
    apart = (turn([7, 8], [9]), turn([20], [21, 22, 23]))  # the second begins anew
    one = group([rollout(1.0, *whole), rollout(0.0, *apart, attempt=1)])
    wanted = [expected(tiny_policy(), one, a) for a in (0, 1)]
    found = told(trainer(tiny_policy()), [one])
    assert [len(found[0, 0, a]) for a in (0, 1)] == [3, 4]
    for a in (0, 1):
        assert found[0, 0, a].tolist() == pytest.approx(wanted[a], rel=1e-3, abs=1e-6)


def test_an_attempt_without_a_score_has_no_difference_and_one_left_out_has_none_to_tell() -> None:
    mixed = group([rollout(1.0, turn([7], [8])), rollout(0.0, turn([7], [9]), attempt=1), rollout(None, attempt=2)])
    equal = group([rollout(1.0, turn([7], [8])), rollout(1.0, turn([7], [9]), attempt=1)], index=1)
    found = told(trainer(tiny_policy(), "dapo"), [mixed, equal])  # DAPO leaves out groups of equal rewards
    assert {key: bool(np.isnan(values).all()) for key, values in found.items()} == {
        (0, 0, 0): False,
        (0, 0, 1): False,
        (0, 1, 0): True,
        (0, 1, 1): True,
    }


def test_what_is_infinitely_far_is_told_as_the_largest_number_there_is() -> None:
    one = group([rollout(1.0, turn([7], [8], logprobs=[-1e6])), rollout(0.0, turn([7], [9]), attempt=1)])
    assert told(trainer(tiny_policy()), [one])[0, 0, 0].tolist() == [65504.0]


def test_nothing_is_told_unasked_or_of_demonstrations() -> None:
    groups = random_groups(0)
    assert trainer(tiny_policy(), by_token=False).step(groups, 0).differences is None
    assert trainer(tiny_policy(), "sft").step(groups, 0).differences is None


def test_telling_it_changes_no_weight_and_runs_no_further_pass() -> None:
    reports, weights = [], []
    for by_token in (False, True):
        policy = tiny_policy()
        reports.append(trainer(policy, by_token=by_token, updates_per_batch=2).step(random_groups(1), 0))
        weights.append(policy.fingerprint())
    assert reports[0].flops == reports[1].flops
    assert weights[0] == weights[1]
