"""Statistics over seeds and steps against numbers worked out by hand, and against SciPy."""

import numpy as np
import pytest
from scipy import stats

from ratchet.charts.statistics import (
    at_index,
    bootstrap_band,
    collapse,
    crossing,
    edge,
    improvement,
    improvement_interval,
    interval,
    iqm,
    iqm_of,
    mean_curve,
    spread,
)


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end() -> None:
    # Eight runs: two are cut on either side, (3 + 4 + 5 + 6) / 4 stays.
    assert iqm_of([100, 3, 4, 5, 6, 1, 2, -50]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm_of([0.0, 1.0, 2.0, 90.0]) == 1.5


def test_the_interquartile_mean_of_three_runs_is_their_mean() -> None:
    assert iqm_of([1.0, 2.0, 6.0]) == 3.0


def test_with_three_runs_the_interval_spans_them_because_one_resample_in_27_is_the_lowest_alone() -> None:
    assert interval([0.2, 0.5, 0.9]) == pytest.approx((0.2, 0.9))


def test_one_run_has_no_interval() -> None:
    assert interval([0.7]) is None
    assert improvement_interval([0.7], [0.1, 0.2]) is None


def test_the_interval_of_many_runs_is_scipys_percentile_bootstrap() -> None:
    runs = np.random.default_rng(5).normal(0.7, 0.1, size=20)
    low, high = interval(runs.tolist())
    theirs = stats.bootstrap((runs,), iqm, method="percentile", n_resamples=20000).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_the_same_runs_give_the_same_interval() -> None:
    runs = [0.1, 0.4, 0.2, 0.9, 0.5]
    assert interval(runs) == interval(runs)


def test_a_band_resamples_whole_runs_step_by_step_as_an_interval_does() -> None:
    curves = np.random.default_rng(1).normal(size=(5, 150))  # more steps than are resampled at once
    low, high = bootstrap_band(curves)
    assert low.shape == high.shape == (150,)
    assert (low <= curves.mean(axis=0)).all()
    assert (curves.mean(axis=0) <= high).all()
    alone = bootstrap_band(curves[:, 100:101])
    assert (low[100], high[100]) == pytest.approx((alone[0][0], alone[1][0]))


def test_the_probability_of_improvement_counts_pairs_and_half_of_ties() -> None:
    # Pairs: 3>1 3>2 2>1 win, 2=2 is half, of four.
    assert improvement([3, 2], [1, 2]) == 3.5 / 4
    assert improvement([1], [2]) == 0
    ours, theirs = [0.3, 0.9, 0.5, 0.7], [0.4, 0.2, 0.6]
    u = stats.mannwhitneyu(ours, theirs).statistic
    assert improvement(ours, theirs) == pytest.approx(u / 12)


def test_the_interval_of_the_probability_of_improvement_lies_around_it() -> None:
    low, high = improvement_interval([3, 2, 5], [1, 4, 2])
    assert 0 <= low < improvement([3, 2, 5], [1, 4, 2]) < high <= 1


def test_a_reward_that_stays_below_half_of_its_best_has_collapsed_from_there() -> None:
    # The centred mean of five is 0.8 at index 10 (four ones, one 0), then 0.6, 0.4: below half of 1 from 12 on.
    values = [1.0] * 12 + [0.0] * 10
    # index 10: ones at 8..11 and a zero; index 11: three ones; index 12: two ones.
    assert collapse(values) == 12


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 30,
        [0.1 * k for k in range(20)],
        [1.0] * 10 + [0.0] * 10 + [0.9] * 10,  # recovers
        [1.0] * 20 + [0.6] * 20,  # loses less than half
        [1.0] * 20 + [0.0] * 3,  # too short to tell
        [-1.0] * 10 + [-3.0] * 10,  # half of a best below 0 says nothing
        [],
    ],
)
def test_it_has_not_collapsed_otherwise(values: list[float]) -> None:
    assert collapse(values) is None


def test_a_second_fall_counts_if_the_first_was_made_up_for() -> None:
    values = [1.0] * 10 + [0.0] * 10 + [0.9] * 10 + [0.0] * 10
    assert collapse(values) is not None
    assert collapse(values) >= 30


def test_a_level_is_reached_between_two_steps() -> None:
    assert crossing([0.0, 0.4, 0.8], 0.5) == pytest.approx(1.25)
    assert crossing([0.6, 0.4, 0.8], 0.5) == 0.0
    assert crossing([0.1, 0.2], 0.5) is None
    assert at_index([0.0, 1.0, 5.0], 1.25) == 2.0
    assert at_index([0.0, 1.0, 5.0], 2.0) == 5.0


def test_a_mean_over_seeds_goes_on_with_those_that_have_the_step() -> None:
    assert mean_curve([{0: 1.0, 1: 2.0}, {0: 3.0, 1: 4.0, 2: 8.0}]) == {0: 2.0, 1: 3.0, 2: 8.0}


def test_edges_are_means_of_five_steps_or_of_all() -> None:
    assert edge([0, 1, 2, 3, 4, 5, 6], last=False) == 2
    assert edge([0, 1, 2, 3, 4, 5, 6], last=True) == 4
    assert edge([1, 3], last=True) == 2
    assert spread([0.5, 0.2, 0.9]) == pytest.approx(0.7)
