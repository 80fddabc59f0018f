"""Options that cannot be, and rows from outside the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from row_cases import loss_of, random_batch

from ratchet.algorithms.table import build_algorithm
from ratchet.core.errors import ConfigError


@pytest.mark.parametrize(
    ("row", "options", "told"),
    [
        ("grpo", {"clip_lo": 0.2}, 'algorithm.clip_lo: grpo has no such option. Did you mean "clip_low"?'),
        ("grpo", {"length": 3}, "grpo has no such option"),
        ("grpo", {"clip_low": 1.0}, "algorithm.clip_low = 1.0"),
        ("grpo", {"clip_high": 0.0}, "algorithm.clip_high = 0.0"),
        ("grpo", {"clip_high": float("nan")}, "algorithm.clip_high = nan"),
        ("grpo", {"std": "perhaps"}, "algorithm.std = 'perhaps'"),
        ("dr_grpo", {"length": 0}, "algorithm.length = 0"),
        ("dr_grpo", {"length": 2.5}, "algorithm.length = 2.5"),
        ("sft", {"std": True}, "sft has no such option"),
        ("cispo", {"cap_high": 0.9}, "algorithm.cap_high = 0.9"),
        ("cispo", {"cap_low": -0.1}, "algorithm.cap_low = -0.1"),
        ("gmpo", {"log_clip_low": 21.0}, "algorithm.log_clip_low = 21.0"),
        ("sapo", {"gate_positive": 0.0}, "algorithm.gate_positive = 0.0"),
        ("red_weight", {"temperature": 0.0}, "algorithm.temperature = 0.0"),
        ("red_weight", {"temperature": float("inf")}, "algorithm.temperature = inf"),
        ("asymre", {"baseline_shift": float("nan")}, "algorithm.baseline_shift = nan"),
        ("opmd_kimi", {"penalty": -0.1}, "algorithm.penalty = -0.1"),
        ("k1_5", {"tau": 0.0}, "algorithm.tau = 0.0"),
        ("k2_5", {"log_clip_high": 0.0}, "algorithm.log_clip_high = 0.0"),
        ("rec_one_side", {"outer_low": 0.6}, "algorithm.outer_low: rec_one_side has no such option"),
        ("rec_ring", {"outer_low": 0.1}, "algorithm.outer_low = 0.1 lies inside algorithm.clip_low = 0.2: set"),
        ("rec_ring", {"clip_high": 3.0}, "algorithm.outer_high = 2 lies inside algorithm.clip_high = 3: set"),
        ("topr", {"sequence": 2}, "algorithm.sequence = 2"),
        ("dapo", {"overlong_length": 100}, "algorithm.overlong_buffer = 0: set both for a length penalty, or neither"),
        ("dapo", {"overlong_buffer": 10}, "algorithm.overlong_length = 0 and algorithm.overlong_buffer = 10: set both"),
        (
            "dapo",
            {"overlong_length": 10, "overlong_buffer": 11},
            "algorithm.overlong_buffer = 11 is longer than algorithm.overlong_length = 10: set overlong_buffer to at",
        ),
        ("dapo", {"overlong_length": -1, "overlong_buffer": 1}, "algorithm.overlong_length = -1"),
        ("ppo", {"gamma": 0.0}, "algorithm.gamma = 0.0"),
        ("ppo", {"lam": 1.1}, "algorithm.lam = 1.1"),
        ("ppo", {"value_clip": 0.0}, "algorithm.value_clip = 0.0"),
        ("ppo", {"critic_lr": -1e-5}, "algorithm.critic_lr = -1e-05"),
        ("distill", {"reward_coef": -0.1}, "algorithm.reward_coef = -0.1"),
        ("red_adaptive", {"temperature_min": 0.0}, "algorithm.temperature_min = 0.0"),
        ("grpoo", {}, 'algorithm.name = "grpoo" is not known. Did you mean "grpo"?'),
        ("json:dumps", {"obj": 1}, "returned a str, not an Algorithm"),
        ("json:no_such", {}, "algorithm.name"),
        ("json:__name__", {}, "is a str; name a function instead"),
    ],
)
def test_an_option_that_cannot_be_is_a_config_error(row: str, options: Mapping[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_algorithm(row, options)
    assert told in str(caught.value)


def test_a_users_own_builder_is_a_row_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from ratchet.algorithms.table import reinforce_group\n"
        "def doubled(*, std: bool = False):\n    return reinforce_group(std=std)\n"
    )
    b, logp = random_batch(1, 0.3)
    mine, theirs = build_algorithm(f"{file}:doubled", {"std": True}), build_algorithm("reinforce", {"std": True})
    assert float(loss_of(mine, logp, b)) == float(loss_of(theirs, logp, b))
