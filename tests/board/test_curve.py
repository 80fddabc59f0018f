"""What is drawn: thinned without losing an extreme, smoothed and told as the printed charts are."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ratchet.board.curve import Curve, auto_window, caption, finite, noise, numbers, smooth, thin
from ratchet.board.follow import Columns, Follower
from ratchet.charts import series as printed
from ratchet.charts.lines import told_series


def test_thinning_keeps_the_ends_and_every_extreme_in_order() -> None:
    y = np.random.default_rng(0).normal(size=100_000)
    y[41_234], y[77_777] = 90.0, -90.0
    x = np.arange(100_000, dtype=np.float64)
    tx, ty = thin(x, y, 1000)
    assert len(tx) <= 1000
    assert (tx[0], tx[-1]) == (0.0, 99_999.0)
    assert 41_234.0 in tx
    assert 77_777.0 in tx
    assert (np.diff(tx) > 0).all()
    assert (ty == y[tx.astype(int)]).all()


def test_a_short_series_is_drawn_as_it_is() -> None:
    x, y = np.arange(5.0), np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    assert [a.tolist() for a in thin(x, y, 100)] == [x.tolist(), y.tolist()]


@pytest.mark.parametrize("window", [1, 3, 7, 51])
def test_smoothing_is_that_of_the_printed_charts(window: int) -> None:
    values = np.random.default_rng(1).normal(size=40)
    assert smooth(values, window) == pytest.approx(printed.smoothed(values.tolist(), window))


def test_the_window_and_the_noise_are_those_of_the_printed_charts() -> None:
    rng = np.random.default_rng(2)
    for values in (rng.normal(size=20), rng.normal(size=400), np.arange(400.0), np.zeros(50), rng.normal(size=3000)):
        assert noise(values) == pytest.approx(printed.noise(values.tolist()))
        assert auto_window(values) == printed.smoothing_window(values.tolist())


def test_a_caption_is_the_printed_charts_sentence_and_a_long_series_has_one_too() -> None:
    values = np.linspace(0.0, 1.0, 20)
    short = Curve("reward/mean", np.arange(20), values)
    same = printed.Series("reward/mean", tuple(range(20)), tuple(values.tolist()), 0)
    assert caption(short, "Reward", "") == told_series("Reward", "", same)
    long = Curve("reward/mean", np.arange(50_000), np.linspace(0.0, 1.0, 50_000))
    assert "highest 1 at step 49999" in caption(long, "Reward", "")
    assert "not recorded" in caption(Curve("x", np.arange(0), np.zeros(0)), "x", "")


def test_numbers_are_what_json_has() -> None:
    sent = numbers(np.array([0.0, 1 / 3, -123456.789, 1e-300, 1e300, math.nan, math.inf]))
    assert sent[0] == 0.0
    assert sent[1] == pytest.approx(1 / 3, rel=1e-6)
    assert sent[2] == pytest.approx(-123456.789, rel=1e-6)
    assert sent[3] == pytest.approx(1e-300)
    assert sent[4] == pytest.approx(1e300)
    assert sent[5:] == [None, None]
    assert json.loads(json.dumps(sent, allow_nan=False)) == sent
    rng = np.random.default_rng(0)
    values = rng.normal(size=500) * 10.0 ** rng.integers(-12, 15, 500)
    short = numbers(values)
    assert short == pytest.approx(values.tolist(), rel=6e-7)
    assert short == [float(f"{v:.7g}") for v in short if v is not None]  # so that each takes few letters


def test_a_curve_has_no_point_where_a_step_has_no_value_and_counts_what_is_not_finite() -> None:
    curve = finite("x", np.arange(4), np.array([1.0, math.nan, math.inf, 2.0]), absent=True)
    assert (curve.steps.tolist(), curve.values.tolist(), curve.num_missing) == ([0, 3], [1.0, 2.0], 1)


def test_a_file_is_followed_line_by_line_and_a_half_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    follower = Follower(path)
    assert follower.fresh() == ([], False)
    path.write_bytes(b'{"step": 0}\n{"st')
    assert follower.fresh() == ([{"step": 0}], True)
    with path.open("ab") as file:
        file.write('ep": 1, "é": 2}\nnot json\n[1]\n'.encode())
    assert follower.fresh() == ([{"step": 1, "é": 2}], False)
    assert follower.num_unreadable == 2
    path.write_bytes(b'{"step": 5}\n')
    assert follower.fresh() == ([{"step": 5}], True)


def test_rows_of_a_resumed_run_replace_what_came_after_them_and_views_given_out_stay() -> None:
    columns = Columns()
    columns.extend([{"step": k, "a": float(k)} for k in range(1000)])
    before = columns.column("a")
    columns.extend([{"step": 500, "b": 1.0}, {"step": 501, "a": -1.0, "name": "x", "yes": True}, {"a": 3.0}])
    assert columns.steps.tolist() == [*range(500), 500, 501]
    assert math.isnan(columns.column("a")[500])
    assert columns.column("a")[501] == -1.0
    assert before[999] == 999.0
    assert sorted(columns.names()) == ["a", "b"]


def test_a_run_that_was_turned_back_is_drawn_without_what_no_longer_counts() -> None:
    columns = Columns()
    columns.extend([{"step": k, "a": float(k)} for k in range(6)])
    columns.extend([{"rewound": 3}])
    assert columns.steps.tolist() == [0, 1, 2]
    columns.extend([{"step": 3, "a": 30.0}])
    assert columns.column("a").tolist() == [0.0, 1.0, 2.0, 30.0]
