"""Every rule finds what it looks for and stays silent where that is nearly, but not really, there."""

from __future__ import annotations

import numpy as np
import pytest
from doctor_series import HAS, NEAR, Run, made, step_at, well

from ratchet.doctor.diagnose import diagnose
from ratchet.doctor.evidence import Evidence, evidence_of_rows
from ratchet.doctor.finding import Finding, Severity
from ratchet.doctor.table import RULES

STEPS = 240
LOOK = {rule.name: rule.look for rule in RULES}


def evidence(run: Run, framework: str = "trl") -> Evidence:
    raw = {name: (name, at.astype(np.int64), values) for name, (at, values) in run.series.items()}
    return Evidence(raw, framework)


def run_of(kind: str, rule: str) -> Run:
    return made(kind, rule, np.random.default_rng(17), STEPS)


def ask(rule: str, run: Run) -> list[Finding]:
    return [f for f in LOOK[rule](evidence(run)) if isinstance(f, Finding)]


def test_every_rule_has_a_case_and_a_near_miss() -> None:
    assert set(HAS) == set(NEAR) == set(LOOK)


@pytest.mark.parametrize("rule", HAS)
def test_a_rule_finds_what_it_looks_for(rule: str) -> None:
    findings = ask(rule, run_of("has", rule))
    assert [f.rule for f in findings] == [rule]
    finding = findings[0]
    assert finding.severity in next(r.severities for r in RULES if r.name == rule)
    assert 0 <= finding.first <= finding.last < STEPS
    assert finding.sentence.endswith(".")
    if finding.severity > Severity.INFO:
        assert finding.change
        assert finding.sources


@pytest.mark.parametrize("rule", NEAR)
def test_a_rule_is_silent_where_that_is_only_nearly_there(rule: str) -> None:
    assert ask(rule, run_of("near", rule)) == []


def with_reward(values: np.ndarray) -> Evidence:
    return Evidence({"reward/mean": ("reward", np.arange(len(values)), values)}, "trl")


def names(found: Evidence) -> set[str]:
    return {f.rule for f in diagnose(found)}


def test_a_dip_inside_the_noise_is_no_finding() -> None:
    rng = np.random.default_rng(3)
    t = np.linspace(0, 1, 200)
    dip = 0.05 * np.exp(-0.5 * ((t - 0.5) / 0.04) ** 2)
    rise = 0.2 + 0.4 * (1 - np.exp(-t / 0.1))
    assert "drop_then_recovery" not in names(with_reward(rise - dip + rng.normal(0, 0.06, 200)))
    deep = with_reward(rise - 6 * dip + rng.normal(0, 0.03, 200))
    assert "drop_then_recovery" in names(deep)


@pytest.mark.parametrize(("factor", "shift"), [(0.01, 0.0), (100.0, 0.0), (1.0, -2.0)])
def test_findings_do_not_depend_on_the_scale_of_the_reward(factor: float, shift: float) -> None:
    run = run_of("has", "reward_collapse")
    plain = {"reward/mean": ("r", *run.series["reward/mean"])}
    steps, values = run.series["reward/mean"]
    other = {"reward/mean": ("r", steps, factor * values + shift * (np.ptp(values)))}
    assert names(Evidence(plain)) >= {"reward_collapse"}
    assert names(Evidence(other)) >= {"reward_collapse"}


def test_the_strongest_evidence_comes_first_and_usual_causes_have_none() -> None:
    run = run_of("has", "reward_collapse")
    at, values = run.series["entropy"]
    onset = ask("reward_collapse", run)[0].first
    run.series["entropy"] = (at, values * np.exp(np.log(12) * step_at(at, onset, 4)))
    causes = ask("reward_collapse", run)[0].causes
    told = [c for c in causes if c.evidence]
    assert "certainty" in told[0].text
    assert "entropy rose from" in told[0].evidence[0]
    assert causes[: len(told)] == tuple(told)


def test_a_flat_reward_is_told_to_be_flat_because_rewards_timed_out() -> None:
    run = run_of("has", "no_learning")
    run.put("drop/reward_timeout", np.full(STEPS, 0.38 * 256))
    finding = ask("no_learning", run)[0]
    assert "because 38% of the rollouts were lost to reward timeout" in finding.sentence


def test_falling_entropy_that_bought_reward_is_no_warning() -> None:
    run = well(np.random.default_rng(5), STEPS)
    at, values = run.series["entropy"]
    run.series["entropy"] = (at, values * np.exp(-3 * run.t))
    assert [f.severity for f in ask("entropy_collapse", run)] == [Severity.INFO]
    flat = np.full(STEPS, 0.3)
    run.reward(flat)
    assert [f.severity for f in ask("entropy_collapse", run)] == [Severity.WARNING]


@pytest.mark.parametrize("seed", range(8))
def test_a_dip_and_surge_of_the_parallelism_is_seen_in_a_short_run(seed: int) -> None:
    """There the valley is no longer than its noise seems to be."""
    run = made("has", "parallel_dip_surge", np.random.default_rng(seed), 44)
    assert [f.rule for f in ask("parallel_dip_surge", run)] == ["parallel_dip_surge"]


def test_remedies_name_the_frameworks_own_options() -> None:
    run = run_of("has", "reward_collapse")
    for framework, option in (("trl", "learning_rate"), ("verl", "actor_rollout_ref.actor.optim.lr"),
                              ("openrlhf", "--actor.adam.lr"), ("ratchet", "algorithm.lr")):  # fmt: skip
        finding = next(f for f in diagnose(evidence(run, framework)) if f.rule == "reward_collapse")
        assert option in " ".join(finding.change)


def test_a_setting_of_our_run_is_told_with_its_value() -> None:
    run = run_of("has", "reward_collapse")
    asked = Evidence(evidence(run).raw, "ratchet", {"algorithm.lr": 0.001})
    finding = next(f for f in diagnose(asked) if f.rule == "reward_collapse")
    assert any("algorithm.lr is 0.001" in change for change in finding.change)


def test_an_offline_run_is_not_told_that_its_weights_do_not_arrive() -> None:
    run = run_of("has", "weights_not_delivered")
    run.put("stale/max", np.arange(STEPS, dtype=float))
    asked = Evidence(evidence(run).raw, "ratchet", {"sync.offline": True})
    assert "weights_not_delivered" not in {f.rule for f in diagnose(asked)}


def test_evidence_ends_where_a_prefix_ends_and_only_online_rules_look_at_it() -> None:
    run = run_of("has", "reward_collapse")
    whole = evidence(run)
    fell = next(f for f in diagnose(whole) if f.rule == "reward_collapse").first
    before = whole.prefix(fell - 5)
    assert before.span[1] == fell - 5
    assert "reward_collapse" not in names(before)
    online = {rule.name for rule in RULES if rule.online}
    assert names(whole.prefix(STEPS)) <= online
    assert "reward_collapse" in names(whole.prefix(STEPS))


def test_rows_of_a_run_that_goes_on_are_evidence_too() -> None:
    run = run_of("has", "reward_collapse")
    reward = run.get("reward/mean").tolist()
    rows = [{"step": k, "reward/mean": value} for k, value in enumerate(reward)]
    assert "reward_collapse" in names(evidence_of_rows(rows))


def test_seven_points_are_too_few_to_say_anything() -> None:
    assert diagnose(with_reward(np.array([0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1]))) == []


def test_a_series_of_constants_is_no_finding_but_the_lack_of_learning() -> None:
    assert names(with_reward(np.full(100, 0.5))) == {"no_learning"}


def test_what_a_spike_in_the_newest_step_did_is_not_known_yet() -> None:
    rng = np.random.default_rng(4)
    rows = [
        {"step": i, "reward/mean": 0.5 + rng.normal(0, 0.02), "kl/ref": 0.02 + rng.normal(0, 0.001)} for i in range(40)
    ]
    rows[-1]["kl/ref"] = 3.0
    (newest,) = LOOK["kl_spikes"](evidence_of_rows(rows))
    assert newest.sentence.endswith("there is no reward before and after to tell what it did.")
    later = [{**row, "step": 40 + i} for i, row in enumerate(rows[:10])]
    (known,) = LOOK["kl_spikes"](evidence_of_rows([*rows, *later]))
    assert known.sentence.endswith("the reward went on as before.")


def test_a_pause_that_a_person_asked_for_is_not_idle_time() -> None:
    rows = [{"step": i, "reward/mean": 0.5, "time/step": 1.0, "wait/trainer_for_groups": 0.1} for i in range(40)]
    paused = [{**row, "wait/trainer_for_pause": 5.0} for row in rows]
    assert list(LOOK["idle_time"](evidence_of_rows(paused))) == []
    waited = [{**row, "wait/trainer_for_groups": 0.9} for row in rows]
    assert [f.rule for f in LOOK["idle_time"](evidence_of_rows(waited))] == ["idle_time"]


def test_growth_without_any_noise_is_told_as_such() -> None:
    (found,) = [f for f in diagnose(with_reward(np.linspace(0, 1, 60))) if f.rule == "healthy_growth"]
    assert found.sentence.endswith(", without any noise.")
