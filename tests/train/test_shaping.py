"""From scores to what is trained on: by hand, over steps, and through a checkpoint."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import group, rollout, tiny_policy, turn

from ratchet.algorithms.shaping import budget_of, is_limited, k1_5_length, overlong, toggled, weighted
from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, RewardSection, TrainSection
from ratchet.core.errors import ConfigError
from ratchet.core.rollout import Group, Score
from ratchet.core.task import Message, Task
from ratchet.train.shaping import Shaper
from ratchet.train.trainer import Trainer


def made(*attempts: tuple[float, int], name: str = "1+1", parts: dict[str, float] | None = None) -> Group:
    """A group of attempts with these scores and lengths."""
    rollouts = [rollout(score, turn([1, 2], [3 + i] * length), attempt=i) for i, (score, length) in enumerate(attempts)]
    if parts is not None:
        rollouts = [replace(r, score=Score(r.score.value, parts)) for r in rollouts if r.score is not None]
    return replace(group(rollouts), task=Task("test", (Message("user", name),)))


def values(groups: list[Group]) -> list[float]:
    return [r.score.value for g in groups for r in g.usable if r.score is not None]


def test_parts_are_weighted_and_missing_ones_count_nothing() -> None:
    assert weighted({"perf": 1.0, "finish": 0.5}, {"perf": 1.0, "finish": 2.5, "parallel": 9.0}) == 2.25


def test_the_k1_5_length_term_by_hand() -> None:
    # lengths 10, 20, 30: 0.5, 0, -0.5; the wrong answer at 10 keeps min(0, 0.5) = 0
    assert k1_5_length([False, True, True], [10, 20, 30]) == [0.0, 0.0, -0.5]
    assert k1_5_length([True, False, False], [10, 20, 30]) == [0.5, 0.0, -0.5]
    assert k1_5_length([True, False], [7, 7]) == [0.0, 0.0]


def test_the_overlong_penalty_falls_over_its_buffer() -> None:
    assert [overlong(n, limit=20, buffer=8) for n in (0, 12, 14, 16, 20, 99)] == [0, 0, -0.25, -0.5, -1, -1]


def test_a_budget_is_a_percentile_of_right_answers() -> None:
    right, lengths = [True, False, True, True], [10, 999, 30, 20]
    assert budget_of(right, lengths, percentile=50) == 20
    assert budget_of(right, lengths, percentile=25) == 15
    assert budget_of(right, lengths, percentile=100) == 30
    assert budget_of([False], [5], percentile=50) is None


def test_toggle_takes_the_reward_of_long_answers_to_problems_that_are_solved_often() -> None:
    assert toggled([1, 1, 0, 1], [5, 50, 5, 10], 10, solved=0.5) == [1, 0, 0, 1]
    assert toggled([1, 0, 0, 0], [50, 1, 1, 1], 10, solved=0.5) == [1, 0, 0, 0], "not solved often: nothing is taken"
    assert [is_limited(k, period=3) for k in range(9)] == [True] * 3 + [False] * 3 + [True] * 3


def test_weights_are_schedules_over_steps() -> None:
    lam = {"kind": "linear", "start": 2.0, "end": 0.0, "steps": 4}
    shaper = Shaper(RewardSection.model_validate({"weights": {"perf": 1.0, "finish": lam}}))
    groups = [made((1.0, 3), (1.0, 5), parts={"perf": 1.0, "finish": 0.5})]
    assert [values(shaper.shaped(groups, k))[0] for k in (0, 2, 4, 9)] == [2.0, 1.5, 1.0, 1.0]
    assert values(groups) == [1.0, 1.0], "scores are facts"


def test_a_weight_of_an_unknown_part_names_the_known_ones() -> None:
    shaper = Shaper(RewardSection.model_validate({"weights": {"perfs": 1.0}}))
    with pytest.raises(ConfigError, match=r"reward.weights.perfs.*Did you mean .perf.*They have: finish, perf"):
        shaper.shaped([made((1.0, 3), parts={"perf": 1.0, "finish": 0.5})], 0)


def test_terms_on_length_compare_within_the_group_or_with_the_limit() -> None:
    k1_5 = Shaper(RewardSection(length="k1_5", length_weight=0.5))
    assert values(k1_5.shaped([made((1, 10), (1, 30), (0, 10), (0, 30))], 0)) == [1.25, 0.75, 0.0, -0.25]
    soft = Shaper(RewardSection(length="overlong", overlong_length=20, overlong_buffer=8))
    assert values(soft.shaped([made((1, 16), (1, 3))], 0)) == [0.5, 1.0]


def test_a_budget_is_fixed_when_its_problem_is_first_solved() -> None:
    shaper = Shaper(RewardSection(toggle_period=1, toggle_solved=0.5))
    assert values(shaper.shaped([made((0, 4), (0, 9))], 0)) == [0, 0]
    assert values(shaper.shaped([made((1, 4), (1, 8))], 1)) == [1, 1], "not a limiting step, but 6 is the budget now"
    assert values(shaper.shaped([made((1, 6), (1, 7))], 2)) == [1, 0]
    assert values(shaper.shaped([made((1, 6), (1, 7), name="other")], 2)) == [1, 0], "another problem, its own: 6.5"
    again = Shaper(RewardSection(toggle_period=1, toggle_solved=0.5))
    again.restore(shaper.state())
    assert values(again.shaped([made((1, 6), (1, 7))], 4)) == [1, 0]


def test_what_toggle_did_is_charted() -> None:
    shaper = Shaper(RewardSection(toggle_period=1, toggle_solved=0.5))
    groups = [made((1, 6), (1, 7))]
    facts = shaper.metrics(groups, shaper.shaped(groups, 0), 0)
    assert facts["reward/toggle/limited"] == 1
    assert facts["reward/toggle/lost_frac"] == 0.5
    assert facts["reward/trained/mean"] == 0.5
    assert Shaper(RewardSection()).metrics(groups, groups, 0) == {}


def test_the_trainer_trains_on_shaped_rewards_and_keeps_budgets_in_its_state() -> None:
    def trainer(reward: RewardSection | None) -> Trainer:
        method = AlgorithmSection(lr=1e-2)
        return Trainer(tiny_policy(), build_algorithm("grpo", {}), method, TrainSection(), seed=0, reward=reward)

    groups = [made((1.0, 3), (1.0, 5), (1.0, 7))]
    plain, shaped = trainer(None), trainer(RewardSection(length="k1_5"))
    start = plain.policy.decoder.head.detach().clone()
    plain.step(groups, 0)
    shaped.step(groups, 0)
    assert torch.equal(plain.policy.decoder.head, start), "equal scores teach nothing"
    assert not torch.equal(shaped.policy.decoder.head, start), "but lengths differ"
    toggle = trainer(RewardSection(toggle_period=1))
    toggle.step(groups, 0)
    other = trainer(RewardSection(toggle_period=1))
    other.restore(toggle.state())
    assert torch.equal(other.state()["reward/budgets"], toggle.state()["reward/budgets"])
    assert len(other.state()["reward/budgets"]) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"length": "overlong"},
        {"overlong_length": 5, "overlong_buffer": 2},
        {"length": "overlong", "overlong_length": 5, "overlong_buffer": 6},
        {"length": "overlong", "overlong_length": 5},
    ],
)
def test_settings_of_the_length_penalty_that_do_not_fit_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="overlong"):
        RewardSection.model_validate(settings)
