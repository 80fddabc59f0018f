import math

import pytest

from ratchet.charts.text import duration, flops, number, percent, quantity, relative_change, size, sparkline


def test_a_sparkline_reaches_from_the_lowest_bar_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], width=8) == "▁▂▃▄▅▆▇█"


def test_a_long_series_is_averaged_down_to_the_width() -> None:
    # The halves average to 0 and 1.
    assert sparkline([0.0] * 50 + [1.0] * 50, width=2) == "▁█"


def test_a_series_that_does_not_move_is_flat_and_not_noise() -> None:
    assert sparkline([0.1 + 0.2, 0.3], width=10) == "▄▄"


def test_values_that_are_not_finite_leave_a_gap() -> None:
    assert sparkline([0.0, math.nan, 1.0], width=10) == "▁ █"
    assert sparkline([math.nan], width=10) == " "
    assert sparkline([], width=10) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.8734, "1.87"), (24310.4, "24,310"), (0.04123, "0.0412"), (6.1e-7, "6.1e-07"), (512.0, "512"),
     (-0.5, "-0.500"), (math.nan, "not finite")],
)  # fmt: skip
def test_numbers_have_about_three_figures(value: float, text: str) -> None:
    assert number(value) == text


def test_units_come_in_handy_multiples() -> None:
    assert quantity(0.869, "share") == "86.9 %"
    assert quantity(35.24, "tokens") == "35.2 tokens"
    assert quantity(4.12e8, "bytes") == "412 MB"
    assert flops(1.9234e12) == "1.92 TFLOP"
    assert size(999_999) == "1 MB"
    assert percent(0.00031) == "0.031 %"


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (0.384, 12.34, 125, 4020)] == ["0.38 s", "12.3 s", "2 min 05 s", "1 h 07 min"]


def test_large_growth_is_told_as_a_multiple() -> None:
    assert relative_change(0.124) == "+12.4 %"
    assert relative_change(19.6) == "20.6 times"
    assert relative_change(-1e-6) == "0.0 %"
