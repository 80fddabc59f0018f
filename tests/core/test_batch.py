"""The batch: sums over samples and groups, and any selection of samples, against plain loops."""

from __future__ import annotations

import pytest
import torch
from builders import batch
from hypothesis import given
from hypothesis import strategies as st

from ratchet.core.batch import Batch


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    groups = draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    numbers = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    rewards = draw(st.lists(st.floats(-9, 9), min_size=len(lengths), max_size=len(lengths)))
    behaviour = [float(-i) for i in range(sum(lengths))]
    return batch(lengths, [numbers[g] for g in groups], rewards, behaviour=behaviour)


@given(batches())
def test_sums_over_samples_and_groups_equal_plain_loops(b: Batch) -> None:
    tokens, samples, groups = b.sample.tolist(), range(b.num_samples), b.group.tolist()
    per_sample = [sum(float(x) for x, s in zip(b.logp_behaviour, tokens, strict=True) if s == i) for i in samples]
    assert b.per_sample(b.logp_behaviour).tolist() == pytest.approx(per_sample)
    assert b.lengths.tolist() == [tokens.count(i) for i in samples]
    assert b.group_size.tolist() == [groups.count(g) for g in groups]
    sums = [sum(float(r) for r, g in zip(b.reward, groups, strict=True) if g == mine) for mine in groups]
    assert b.group_sum(b.reward).tolist() == pytest.approx(sums, abs=1e-9)
    means = [s / groups.count(g) for s, g in zip(sums, groups, strict=True)]
    assert b.group_mean(b.reward).tolist() == pytest.approx(means, abs=1e-9)


@given(batches())
def test_a_sample_column_reaches_each_of_its_tokens_and_a_token_column_passes(b: Batch) -> None:
    assert b.per_token(b.reward).tolist() == [float(b.reward[s]) for s in b.sample.tolist()]
    assert torch.equal(b.per_token(b.logp_behaviour), b.logp_behaviour)


@given(batches(), st.randoms(use_true_random=False))
def test_a_selection_holds_the_facts_of_the_chosen_samples_in_the_order_asked(b: Batch, rng) -> None:
    chosen = rng.sample(range(b.num_samples), rng.randint(1, b.num_samples))
    part = b.select(torch.tensor(chosen))
    places = [i for s in chosen for i, owner in enumerate(b.sample.tolist()) if owner == s]
    assert b.tokens_of(torch.tensor(chosen)).tolist() == places
    assert part.logp_behaviour.tolist() == [float(b.logp_behaviour[i]) for i in places]
    assert part.reward.tolist() == [float(b.reward[s]) for s in chosen]
    assert part.group.tolist() == [int(b.group[s]) for s in chosen]
    assert part.lengths.tolist() == [float(b.lengths[s]) for s in chosen]
    assert part.sample.tolist() == sorted(part.sample.tolist())


def test_an_optional_column_is_selected_with_the_rest() -> None:
    b = batch([2, 3], [0, 0], [0.0, 1.0])
    with_reference = Batch(
        b.sample,
        b.group,
        b.reward,
        b.version,
        b.logp_behaviour,
        logp_teacher=torch.arange(5.0),
        greedy_reward=torch.tensor([7.0, 8.0]),
    )
    part = with_reference.select(torch.tensor([1]))
    assert part.logp_teacher is not None
    assert part.logp_teacher.tolist() == [2.0, 3.0, 4.0]
    assert part.greedy_reward is not None
    assert part.greedy_reward.tolist() == [8.0]
    assert part.value is None


def test_selecting_nothing_leaves_an_empty_batch() -> None:
    part = batch([2, 3], [0, 0], [0.0, 1.0]).select(torch.tensor([], dtype=torch.int64))
    assert (part.num_samples, part.num_groups, len(part.logp_behaviour)) == (0, 0, 0)
