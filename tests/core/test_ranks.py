"""Trends by ranks give what SciPy gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, theilslopes

from ratchet.core.ranks import mann_kendall, theil_sen


@pytest.mark.parametrize("seed", range(60))
def test_they_give_what_scipy_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 70))
    values = rng.normal(size=n) + rng.choice([0.0, 0.05, 0.5, -3.0]) * np.arange(n)
    if seed % 3 == 0:
        values = np.round(values)  # ties
    steps = np.cumsum(rng.integers(1, 5, size=n)).astype(float)
    expected = kendalltau(np.arange(n), values)
    assert mann_kendall(values) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    slope = theilslopes(values, steps, 0.95)
    assert theil_sen(steps, values) == pytest.approx((slope[0], slope[2], slope[3]), rel=1e-9)


def test_what_never_moves_has_no_trend() -> None:
    assert mann_kendall(np.ones(9)) == (0.0, 1.0)
    assert theil_sen(np.arange(9.0), np.ones(9)) == (0.0, 0.0, 0.0)
