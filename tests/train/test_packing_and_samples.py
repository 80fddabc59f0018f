"""From groups to samples to forward passes: nothing lost, nothing twice, prompts shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import group, rollout, tiny_policy, turn
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.core.rollout import Rollout, Score, Status, Trajectory
from ratchet.kernels.layout import layout_of
from ratchet.train.experience import Sample, batch_of, flatten
from ratchet.train.packing import cut, packed

CPU = torch.device("cpu")


def sample(prompt: list[int], tokens: list[int], trained: list[bool] | None = None, number: int = 0) -> Sample:
    n = len(tokens)
    return Sample(
        group=number, reward=0.0, version=0,
        prompt=np.array(prompt, dtype=np.int32), tokens=np.array(tokens, dtype=np.int32),
        trained=np.array(trained if trained is not None else [True] * n), logprobs=np.arange(n, dtype=np.float32),
        log_kept=np.zeros(n, dtype=np.float32),
    )  # fmt: skip


def test_turns_that_go_on_from_each_other_are_one_sample_with_the_inserted_tokens_left_out() -> None:
    first = turn([1, 2], [3, 4], logprobs=[-0.1, -0.2])
    second = turn([1, 2, 3, 4, 9, 9], [5], logprobs=[-0.3], log_kept=np.array([-0.5], dtype=np.float32), version=2)
    (one,) = flatten([group([rollout(1.5, first, second)])])
    assert one.prompt.tolist() == [1, 2]
    assert one.tokens.tolist() == [3, 4, 9, 9, 5]
    assert one.trained.tolist() == [True, True, False, False, True]
    assert one.logprobs[one.trained].tolist() == pytest.approx([-0.1, -0.2, -0.3])
    assert one.log_kept[one.trained].tolist() == [0.0, 0.0, -0.5]
    assert (one.reward, one.version, one.num_trained) == (1.5, 0, 3)


def test_a_turn_that_rewrites_the_past_begins_a_new_sample() -> None:
    samples = flatten([group([rollout(1.0, turn([1, 2], [3, 4]), turn([1, 2, 3, 7], [5]))])])
    assert [(s.prompt.tolist(), s.tokens.tolist(), s.reward) for s in samples] == [
        ([1, 2], [3, 4], 1.0),
        ([1, 2, 3, 7], [5], 1.0),
    ]


def test_failed_rollouts_frozen_agents_and_empty_turns_are_left_out() -> None:
    frozen = Rollout(
        "t", 0, (Trajectory((turn([1], [2]),), trainable=False), Trajectory((turn([1], [3]),))), Status.OK, Score(1.0)
    )
    samples = flatten([group([rollout(None, turn([1], [4])), frozen, rollout(1.0, turn([1], []), turn([1], [6]))])])
    assert [s.tokens.tolist() for s in samples] == [[3], [6]]


def test_the_columns_of_a_batch_hold_trained_tokens_only_and_number_groups_from_zero() -> None:
    b = batch_of([sample([1], [2, 3, 4], [True, False, True], number=7), sample([1], [5], number=3)], CPU)
    assert b.sample.tolist() == [0, 0, 1]
    assert b.group.tolist() == [0, 1]
    assert b.logp_behaviour.tolist() == [0.0, 2.0, 0.0]


@st.composite
def many_samples(draw: st.DrawFn) -> list[Sample]:
    token = st.integers(7, 30)
    prompts = draw(st.lists(st.lists(token, min_size=1, max_size=6), min_size=1, max_size=3))
    made = []
    for _ in range(draw(st.integers(1, 7))):
        tokens = draw(st.lists(token, min_size=1, max_size=7))
        trained = [*draw(st.lists(st.booleans(), min_size=len(tokens) - 1, max_size=len(tokens) - 1)), True]
        number = draw(st.integers(0, len(prompts) - 1))
        made.append(sample(prompts[number], tokens, trained, number))
    return made


@settings(max_examples=40)
@given(many_samples(), st.integers(1, 40))
def test_every_sample_is_in_one_forward_pass_which_keeps_its_budget_or_holds_it_alone(
    samples: list[Sample], budget: int
) -> None:
    sets = list(cut(samples, range(len(samples)), budget))
    assert sorted(i for members in sets for i in members) == list(range(len(samples)))
    for members in sets:
        assert len(packed(samples, members, CPU).tokens) <= budget or len(members) == 1


@given(many_samples())
def test_a_prompt_shared_by_samples_is_computed_once(samples: list[Sample]) -> None:
    (members,) = cut(samples, range(len(samples)), 10_000)
    prompts = {s.prompt.tobytes(): len(s.prompt) for s in samples}
    one = packed(samples, members, CPU)
    assert len(one.tokens) == sum(prompts.values()) + sum(len(s.tokens) - 1 for s in samples)
    assert one.target.tolist() == [t for i in members for t in samples[i].tokens[samples[i].trained].tolist()]


POLICY = tiny_policy()


@settings(max_examples=40)
@given(many_samples(), st.integers(1, 40))
@torch.no_grad()
def test_packing_changes_no_hidden_state(samples: list[Sample], budget: int) -> None:
    for members in cut(samples, range(len(samples)), budget):
        one = packed(samples, members, CPU)
        together = POLICY.decoder(one.tokens, one.layout)[one.predictor]
        alone = []
        for i in members:
            s = samples[i]
            tokens = np.concatenate([s.prompt, s.tokens[:-1]]).astype(np.int64)
            hidden = POLICY.decoder(torch.from_numpy(tokens), layout_of([len(tokens)], [-1], CPU))
            alone.append(hidden[len(s.prompt) - 1 :][torch.from_numpy(s.trained)])
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_only_the_chosen_samples_are_cut() -> None:
    samples = [sample([1], [2]), sample([1], [3]), sample([4], [5])]
    assert sorted(i for members in cut(samples, [2, 0], 100) for i in members) == [0, 2]
    assert list(cut(samples, [], 100)) == []
