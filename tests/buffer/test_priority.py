"""What replay prefers, by hand, and what a user's own function may and may not say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from builders import group, rollout, turn
from experiences import made
from hypothesis import given
from hypothesis import strategies as st

from ratchet.buffer.facts import oldest_version, samplers
from ratchet.buffer.priority import advantage, freshness, priority_from
from ratchet.config.schema import BufferSection
from ratchet.core.errors import ConfigError


def test_freshness_is_the_version_less_a_penalty_per_use() -> None:
    assert freshness(7, 0, reuse_penalty=0.5) == 7
    assert freshness(7, 3, reuse_penalty=0.5) == 5.5


def test_advantage_is_the_mean_distance_from_the_mean_less_a_penalty_per_use() -> None:
    # mean 1; distances 1, 0, 0, 1
    one = made(0, 0, rewards=(0, 1, 1, 2))
    assert advantage(one, 0, reuse_penalty=1) == 0.5
    assert advantage(one, 2, reuse_penalty=0.25) == 0.0


def test_failed_rollouts_do_not_count_and_a_group_without_a_score_has_no_advantage() -> None:
    answer = turn([1], [2])
    assert advantage(group([rollout(0, answer), rollout(None, answer), rollout(2, answer)]), 0, reuse_penalty=1) == 1
    assert advantage(group([rollout(None, answer)]), 1, reuse_penalty=1) == -1


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=9), st.floats(-50, 50))
def test_advantage_is_never_negative_and_forgets_what_all_rewards_share(rewards: list[float], shift: float) -> None:
    plain = advantage(made(0, 0, rewards=tuple(rewards)), 0, reuse_penalty=1)
    moved = advantage(made(0, 0, rewards=tuple(r + shift for r in rewards)), 0, reuse_penalty=1)
    assert plain >= 0
    assert math.isclose(plain, moved, abs_tol=1e-9)


def test_the_config_names_the_priority() -> None:
    one = made(5, 0, version=3, rewards=(0, 4))
    assert priority_from(BufferSection(reuse_penalty=2))(one, 1) == 1
    assert priority_from(BufferSection(priority="advantage", reuse_penalty=0.5))(one, 1) == 1.5


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'"freshnes" is not known. Did you mean "freshness"\?'):
        priority_from(BufferSection(priority="freshnes"))


@pytest.fixture
def user(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "def shortest(group, uses): return -sum(r.output_tokens for r in group.rollouts) - 10 * uses\n"
        "def numpy(group, uses): return np.float32(1.5)\n"
        "def nothing(group, uses): return None\n"
        "def infinite(group, uses): return float('inf')\n"
        "def broken(group, uses): return 1 / 0\n"
        "number = 3\n"
    )
    return str(file)


def test_a_users_function_decides(user: str) -> None:
    assert priority_from(BufferSection(priority=f"{user}:shortest"))(made(0, 0), 2) == -24
    assert type(priority_from(BufferSection(priority=f"{user}:numpy"))(made(0, 0), 2)) is float


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("nothing", "about group 4 of step 3 after 1 uses, returned None, which is not a finite number"),
        ("infinite", "returned inf"),
        ("broken", r"raised ZeroDivisionError: division by zero \(mine.py, line 6\)"),
    ],
)
def test_a_users_function_that_says_no_number_is_told_so(user: str, function: str, told: str) -> None:
    ask = priority_from(BufferSection(priority=f"{user}:{function}"))
    with pytest.raises(ConfigError, match=told):
        ask(made(3, 4), 1)


@pytest.mark.parametrize(
    ("name", "told"), [("number", "is a int; name a function"), ("missing", 'does not define "missing"')]
)
def test_a_path_that_leads_to_no_function_is_refused_at_once(user: str, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        priority_from(BufferSection(priority=f"{user}:{name}"))


def test_the_oldest_version_is_that_of_the_oldest_first_token() -> None:
    late = turn([1], [2, 3], version=4, last_version=6, switches=((1, 6),), fingerprint="f6")
    assert oldest_version(group([rollout(1, turn([1], [2], version=5)), rollout(1, late)])) == 4
    assert oldest_version(group([rollout(None)], step=8)) == 8


def test_the_weights_of_a_group_are_all_that_sampled_a_token() -> None:
    late = turn([1], [2, 3, 4], version=4, last_version=6, switches=((1, 5), (2, 6)), fingerprint="f6")
    both = group([rollout(1, turn([1], [2], version=5, fingerprint="f5")), rollout(1, late)])
    assert samplers(both) == {4: "", 5: "f5", 6: "f6"}
