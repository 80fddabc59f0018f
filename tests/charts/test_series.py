import math
import random

import pytest

from ratchet.charts.series import Series, metric_series, move, noise, refreshes, smoothed, smoothing_window


def series(values: list[float]) -> Series:
    return Series("m", tuple(range(len(values))), tuple(values), 0)


def test_noise_is_not_called_a_change() -> None:
    draw = random.Random(0)
    runs = [series([draw.gauss(1.0, 0.1) for _ in range(70)]) for _ in range(300)]
    # Three standard errors leave 0.3 % of normal noise; a noise estimate from 69 differences adds a little.
    assert sum(move(s).is_clear for s in runs) <= 9


def test_a_rise_above_the_noise_is_a_change() -> None:
    draw = random.Random(0)
    assert move(series([0.01 * k + draw.gauss(0, 0.1) for k in range(70)])).is_clear


def test_a_trend_does_not_inflate_the_noise() -> None:
    draw = random.Random(0)
    values = [draw.gauss(0, 0.1) for _ in range(2000)]
    assert noise(values) == pytest.approx(0.1, rel=0.1)
    assert noise([v + k for k, v in enumerate(values)]) == pytest.approx(0.1, rel=0.1)


def test_a_value_that_hardly_ever_differs_from_zero_has_noise_all_the_same() -> None:
    values = [0.0] * 30
    values[2] = 1.0
    assert noise(values) > 0
    assert not move(series(values)).is_clear


def test_start_and_end_are_means_of_five_steps() -> None:
    m = move(series([float(k) for k in range(20)]))
    assert (m.start, m.end, m.num_steps) == (2.0, 17.0, 5)
    assert (m.highest, m.lowest) == ((19, 19.0), (0, 0.0))


def test_a_constant_does_not_move_and_three_steps_say_nothing() -> None:
    assert not move(series([1.0] * 10)).is_clear
    assert math.isnan(move(series([1.0, 2.0, 3.0])).standard_error)


def test_rounding_is_not_called_a_change() -> None:
    assert not move(series([1e-13 * (k + 1) for k in range(70)])).is_clear


def test_smoothing_keeps_ends_and_length() -> None:
    # Windows 1, 3, 3, 1.
    assert smoothed([0.0, 3.0, 6.0, 0.0], 3) == [1.5, 3.0, 3.0, 3.0]


def test_short_and_quiet_series_are_not_smoothed() -> None:
    draw = random.Random(0)
    noisy = [draw.gauss(0, 1) for _ in range(70)]
    assert smoothing_window(noisy[:30]) == 1
    assert smoothing_window([k / 70 for k in range(70)]) == 1
    assert smoothing_window(noisy) == 3


def test_a_refresh_counts_only_after_a_step_without(make_row) -> None:
    # Versions 0 1 2 2 2 5 6: the sampler skipped two refreshes before step 5.
    rows = [make_row(k, **{"stale.max": k - v}) for k, v in enumerate([0, 1, 2, 2, 2, 5, 6])]
    assert refreshes(rows) == [5]


def test_a_constant_lag_is_no_refresh(make_row) -> None:
    assert refreshes([make_row(k, **{"stale.max": min(k, 1)}) for k in range(10)]) == []


def test_values_that_are_not_finite_are_counted_as_missing(make_run, make_row) -> None:
    store = make_run(rows=[make_row(0, entropy=math.nan), make_row(1, entropy=0.5)])
    found = metric_series(store, store.metrics(), "entropy")
    assert (found.steps, found.values, found.num_missing) == ((1,), (0.5,), 1)


def test_evaluations_are_series_too(make_run) -> None:
    store = make_run(steps=3)
    store.append_event("eval", 3, split="test", **{"pass@1": 0.8})
    assert metric_series(store, store.metrics(), "eval/test/pass@1").values == (0.8,)
