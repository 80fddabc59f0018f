"""The recorded runs of the studies: what broke is found, and what went well raises no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.doctor.diagnose import diagnose
from ratchet.doctor.evidence import evidence_of
from ratchet.doctor.finding import Severity
from ratchet.logs.read import read_log

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_late_collapse_of_the_judge_is_found_at_the_refresh_that_showed_it(seed: int) -> None:
    found = {f.rule: f for f in diagnose(read_log(RECIPES / f"judge/reference/collapse/seed{seed}.jsonl"))}
    assert found["reward_collapse"].severity is Severity.ERROR
    assert 58 <= found["reward_collapse"].first <= 62
    assert found["reward_collapse"].causes[0].evidence


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_alarm_is_raised_while_the_judge_that_will_collapse_still_learns(seed: int) -> None:
    """Its reward saturates within a few steps, with entropy and accuracy: too few to be certain, enough to be seen."""
    asked = evidence_of(read_log(RECIPES / f"judge/reference/collapse/seed{seed}.jsonl"))
    for step in range(10, 41):
        found = diagnose(asked.prefix(step))
        assert [f.sentence for f in found if f.severity > Severity.INFO] == [], step


@pytest.mark.parametrize("name", ["judge/reference/config", "stale/reference/grpo-1", "stale/reference/red_weight-1"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_that_went_well_raises_no_alarm(name: str, seed: int) -> None:
    found = diagnose(read_log(RECIPES / name / f"seed{seed}.jsonl"))
    assert [f.rule for f in found if f.severity > Severity.INFO] == []
    assert "healthy_growth" in {f.rule for f in found}


def test_a_sampler_that_was_never_refreshed_is_found() -> None:
    found = diagnose(read_log(RECIPES / "stale/reference/grpo-offline/seed0.jsonl"))
    assert found[0].rule == "weights_not_delivered"


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_a_kl_that_ran_away_in_the_first_steps_is_found(seed: int) -> None:
    """There any KL grows from nothing; that it came to several nats a token is what is wrong."""
    found = {f.rule: f for f in diagnose(read_log(RECIPES / f"stale/reference/reinforce-20/seed{seed}.jsonl"))}
    assert found["kl_blow_up"].severity is Severity.ERROR
    assert found["kl_blow_up"].first < 21
