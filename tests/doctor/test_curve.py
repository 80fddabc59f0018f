"""Noise, trends and change points are found in series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from ratchet.doctor.curve import MAX_BINS, curve_of, spread


def ar(rng: np.random.Generator, n: int, rho: float, sigma: float) -> np.ndarray:
    x = np.zeros(n)
    for i in range(1, n):
        x[i] = rho * x[i - 1] + rng.standard_normal() * np.sqrt(1 - rho**2)
    return sigma * x


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.7])
def test_noise_and_its_correlation_are_estimated_under_a_trend_a_jump_and_spikes(rho: float) -> None:
    t, found = np.linspace(0, 1, 400), []
    for seed in range(8):
        y = 5 * t + 3 * (t > 0.7) + ar(np.random.default_rng(seed), 400, rho, 0.2)
        y[[50, 120, 333]] += 40
        found.append(curve_of("x", "x", np.arange(400), y).noise)
    sigma, correlation = np.mean(found, axis=0)
    assert sigma == pytest.approx(0.2, rel=0.2)
    assert correlation == pytest.approx(rho, abs=0.1)


def test_a_long_series_is_averaged_to_blocks_that_know_their_steps() -> None:
    steps = np.arange(0, 200_000, 2)
    curve = curve_of("x", "x", steps, np.ones(100_000))
    assert len(curve) == MAX_BINS
    assert curve.first_step(0) == 0
    assert curve.last_step(MAX_BINS - 1) == 199_998
    assert curve.at(100_000) == MAX_BINS // 2


def test_a_jump_is_dated_to_its_step() -> None:
    rng = np.random.default_rng(2)
    y = np.where(np.arange(300) < 180, 1.0, 0.2) + rng.normal(0, 0.1, 300)
    curve = curve_of("x", "x", np.arange(300), y)
    assert abs(curve.onset(100, 299, -1) - 180) <= 2


def test_noise_alone_has_a_trend_no_oftener_than_the_test_says() -> None:
    rng = np.random.default_rng(4)
    trends = [curve_of("x", "x", np.arange(120), ar(rng, 120, 0.5, 1.0)).trend() for _ in range(60)]
    assert sum(t.p < 0.01 for t in trends) <= 4


def test_a_single_spike_does_not_move_the_smoothed_series() -> None:
    y = np.ones(50)
    y[25] = 100
    assert np.allclose(curve_of("x", "x", np.arange(50), y).s, 1.0)


def test_a_logarithm_takes_the_smallest_positive_value_for_what_is_not_positive() -> None:
    curve = curve_of("x", "x", np.arange(4), np.array([0.0, 0.5, 1.0, 2.0]), log=True)
    assert curve.y[0] == pytest.approx(np.log(0.5))
    assert curve.real(curve.y[3]) == pytest.approx(2.0)


def test_spread_is_that_of_normal_noise_and_never_nothing_for_rare_values() -> None:
    assert spread(np.random.default_rng(0).normal(0, 2, 4000)) == pytest.approx(2, rel=0.1)
    assert spread(np.array([0.0] * 9 + [1.0])) > 0
