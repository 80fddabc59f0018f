import math
import random

import pytest

from ratchet.charts.analysis import change, is_clear, level, phases, round_values, slope
from ratchet.charts.relations import relation, strength
from ratchet.charts.remark import Remark
from ratchet.charts.series import Series
from ratchet.charts.strokes import MOST_POINTS, stroke, thinned, trend
from ratchet.charts.versus import parting


def series(values: list[float], name: str = "m") -> Series:
    return Series(name, tuple(range(len(values))), tuple(values), 0)


def noise(seed: int, steps: int, size: float, carry: float = 0.0) -> list[float]:
    """Return noise of which each step keeps a share of the one before."""
    draw, values, last = random.Random(seed), list[float](), 0.0
    for _ in range(steps):
        last = carry * last + draw.gauss(0, size)
        values.append(last)
    return values


def test_a_move_inside_the_noise_is_not_clear_even_if_the_noise_carries_over() -> None:
    runs = [series(noise(seed, 100, 0.1, carry=0.5)) for seed in range(40)]
    assert sum(is_clear(s) for s in runs) <= 2


def test_a_rise_has_a_band_around_it_and_a_slope() -> None:
    s = series([0.01 * k + e for k, e in enumerate(noise(1, 100, 0.05))])
    band, found = change(s), slope(s)
    assert band is not None
    assert found is not None
    assert band.low < 0.95 < band.high  # from means of steps 0 to 4 and 95 to 99: 0.02 and 0.97
    assert found.low < 0.01 < found.high
    assert is_clear(s)


def test_short_series_have_no_band() -> None:
    assert change(series([1.0, 2.0, 3.0])) is None
    assert slope(series([1.0, 2.0, 3.0])) is None
    assert phases(series([1.0, 2.0, 3.0])) == []
    assert level(series([1.0, 3.0]), 10).value == 2.0


def test_rise_plateau_and_cliff_are_three_phases() -> None:
    values = [min(1.0, k / 30) - (0.5 if k >= 100 else 0) + e for k, e in enumerate(noise(2, 120, 0.01))]
    found = phases(series(values))
    assert [p.direction for p in found][:2] == ["rising", "flat"]
    assert "falling" in [p.direction for p in found]
    falling = next(p for p in found if p.direction == "falling")
    assert falling.first <= 101
    assert falling.last >= 99
    assert [p.direction for p in phases(series(noise(3, 120, 0.1)))] == ["flat"]


def test_the_table_has_round_steps_and_means_around_them() -> None:
    rows = round_values(series([float(k) for k in range(81)]))
    assert [step for step, _, _ in rows] == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert rows[1][1] == 10.0
    assert rows[0][1] == 1.0  # steps 0, 1, 2


def test_two_rising_series_are_not_said_to_be_joined_but_by_their_ripples() -> None:
    shared = noise(5, 200, 0.1)
    reward = series([k / 100 + e for k, e in enumerate(shared)], "reward")
    alone = relation(reward, series([k / 50 + e for k, e in enumerate(noise(6, 200, 0.1))], "length"))
    joined = relation(reward, series([k / 50 + 2 * e for k, e in enumerate(shared)], "length"))
    assert alone is not None
    assert joined is not None
    assert alone.values.value > 0.9  # both drift
    assert not alone.ripples.is_clear
    assert joined.ripples.low > 0.9
    assert strength(joined.ripples.value) == "strong"


def test_a_lead_is_found_and_chance_is_not_one() -> None:
    early = noise(7, 400, 0.1, carry=0.6)
    late = [0.0] * 6 + early[:-6]
    found = relation(series(early, "a"), series([v + e for v, e in zip(late, noise(8, 400, 0.03), strict=True)], "b"))
    assert found is not None
    assert found.lead is not None
    assert found.lead.steps == 6
    leads = [relation(series(noise(s, 200, 1.0)), series(noise(s + 100, 200, 1.0))) for s in range(20)]
    assert sum(r is not None and r.lead is not None for r in leads) <= 2


def test_where_reward_falls_while_length_rises_they_part() -> None:
    reward = series([1.0 - max(0, k - 60) / 60 + e for k, e in enumerate(noise(9, 120, 0.01))], "reward")
    length = series([50.0 + max(0, k - 60) + e for k, e in enumerate(noise(10, 120, 0.1))], "length")
    found = relation(reward, length)
    assert found is not None
    (apart,) = found.apart
    assert (apart.rising, apart.falling) == ("length", "reward")
    assert 50 <= apart.first <= 70
    assert apart.last == 119


def test_curves_part_where_they_stay_apart() -> None:
    common = [k / 100 for k in range(100)]
    high = series([v + e for v, e in zip(common, noise(11, 100, 0.02), strict=True)])
    low = series(
        [v - (0.5 if k >= 60 else 0) + e for k, (v, e) in enumerate(zip(common, noise(12, 100, 0.02), strict=True))]
    )
    step = parting(high, low)
    assert step is not None
    assert 57 <= step <= 61  # smoothed over five steps
    assert parting(high, series([v + e for v, e in zip(common, noise(13, 100, 0.02), strict=True)])) is None


def test_thinning_keeps_ends_and_every_spike_and_no_more_than_it_may() -> None:
    values = [math.sin(k / 100) for k in range(50_000)]
    values[31_415] = 40.0
    kept = thinned(range(50_000), values)
    assert {0, 31_415, 49_999} <= set(kept)
    assert len(kept) <= MOST_POINTS + 2
    assert thinned(range(5), [1.0] * 5) == [0, 1, 2, 3, 4]


def test_a_smooth_curve_lies_in_its_points_and_says_how_it_was_made() -> None:
    values = [k / 100 + e for k, e in enumerate(noise(14, 300, 0.1))]
    made = trend([float(k) for k in range(300)], values)
    middle = made.y[len(made.y) // 2]
    assert middle == pytest.approx(1.5, abs=0.1)
    assert "cubic smoothing spline" in " ".join(made.told)
    assert trend([1.0, 2.0], [3.0, 4.0]).y == [3.0, 4.0]
    assert trend([1.0] * 20, [float(k) for k in range(20)]).y == [9.5]
    assert stroke([1.0], [2.0]).y == [2.0]


def test_a_remark_says_where_it_is() -> None:
    assert Remark("t", "error", "s", 3, 3).where == "step 3"
    assert Remark("t", "error", "s").where == ""
    assert Remark("t", "odd", "s").rank < Remark("t", "info", "s").rank
