from ratchet.charts.figure import draw_run
from ratchet.charts.report import report_text, write_report


def test_a_report_says_what_was_trained_and_what_came_of_it(make_run) -> None:
    store = make_run()
    store.append_event("gate", 0, **{"gate/logp_diff_max": 3e-6, "gate/logp_diff_mean": 2e-7})
    store.append_event("finished", 70, seconds=105.0)
    text = write_report(store, draw_run(store)).read_text()
    assert "Finished: 70 of 70 steps in 1 min 45 s." in text
    assert "98,304 weights" in text
    assert "![judge: run judge-001](figures/judge.png)" in text
    assert "| `reward/parts/accuracy` |" in text
    assert "`gate/logp_diff_max` 3e-06 nats" in text
    assert f"$ ratchet resume {store.folder}" in text


def test_start_and_end_of_the_table_are_means_of_five_steps(make_run, make_row) -> None:
    # Rewards 0 .. 19: means 2 and 17, up 15.
    store = make_run(rows=[make_row(k, **{"reward.mean": float(k)}) for k in range(20)])
    text = report_text(store, [])
    assert "start (steps 0 to 4) | end (steps 15 to 19)" in text
    assert "| `reward/mean` | 2 | 17 | up 15 (8.5 times) | 19 (step 19) |" in text


def test_noise_is_no_change_and_zero_is_explained(make_run) -> None:
    text = report_text(make_run(), [])
    entropy = next(line for line in text.splitlines() if line.startswith("| `entropy`") and "change" in line)
    assert "no clear change" in entropy
    assert "`clip/frac` is 0 throughout, up to rounding (0 is normal here because" in text


def test_a_late_fall_is_named_with_the_part_that_fell(make_run, make_row) -> None:
    def fallen(k: int) -> dict[str, float]:
        made = make_row(k)
        cliff = 0.2 if k >= 65 else 0.0
        return made | {name: made[name] - cliff for name in ("reward/mean", "reward/parts/accuracy")}

    text = report_text(make_run(rows=[fallen(k) for k in range(70)]), [])
    assert "**`reward/mean` fell back**" in text
    assert "**`reward/parts/accuracy` fell back**" in text
    assert "**`reward/parts/format` fell back**" not in text
    assert "fell back" not in report_text(make_run("steady"), [])


def test_the_ledger_closes_or_the_report_says_where_it_does_not(make_run, make_row) -> None:
    text = report_text(make_run(steps=10), [])
    assert "| `ledger/trained` | 150 | 93.8 % |" in text
    assert "The ledger closes" in text
    rows = [make_row(0), make_row(1, **{"ledger.trained": 14.0}), make_row(2)]
    broken = report_text(make_run("broken", rows=rows), [])
    assert "does not close on 1 of 3 steps** (1)" in broken


def test_waits_stand_with_their_share_of_the_step(make_run) -> None:
    assert "| `wait/trainer_for_groups` | 10.0 s | 66.7 % |" in report_text(make_run(steps=10), [])


def test_held_out_numbers_have_an_interval_and_stand_beside_training(make_run, make_row) -> None:
    store = make_run(rows=[make_row(k, **{"reward.parts.accuracy": 0.9}) for k in range(10)])
    facts = {"pass@1": 0.8, "pass@1_low": 0.75, "pass@1_high": 0.84, "reward_mean": 1.78}
    store.append_event("eval", 10, split="test", tasks=512.0, samples=1.0, failed=2.0, **facts)
    line = next(line for line in report_text(store, []).splitlines() if line.startswith("| test, after 10 steps"))
    assert "80.0 % (75.0 % to 84.0 %) | 90.0 %" in line
    assert "512 x 1, 2 failed" in line


def test_how_a_run_ended_is_told_at_the_top(make_run) -> None:
    crashed = make_run("crashed", steps=3, asked=10)
    crashed.append_event("crashed", 3, error="MemoryError")
    assert "> **Crashed at step 3, with 3 of 10 steps in 4.50 s done**: MemoryError" in report_text(crashed, [])[:200]
    stopped = make_run("stopped", steps=3, asked=10)
    stopped.append_event("stopped", 3, resume="ratchet resume x")
    assert "Stopped on request" in report_text(stopped, [])[:200]
    killed = make_run("killed", steps=3, asked=10)
    assert "No end is recorded" in report_text(killed, [])[:200]


def test_a_crash_before_a_resume_is_over(make_run) -> None:
    store = make_run(steps=3)
    store.append_event("crashed", 1, error="MemoryError")
    store.append_event("resume", 1, checkpoint="step_000001", environment={"threads": 4})
    store.append_event("finished", 3, seconds=1.0)
    text = report_text(store, [])
    assert "Finished: 3 of 3 steps" in text
    assert "It was resumed once." in text
    assert "The resume at step 1 differs in:" in text


def test_a_run_without_steps_parts_or_evaluation_has_a_report(make_run, make_row) -> None:
    assert "No step is recorded." in report_text(make_run("empty", steps=0, asked=5), [])
    bare = [{"step": k, "time/step": 1.0, "loss/token_nll": 2.0} for k in range(3)]
    assert "Held-out" not in report_text(make_run("bare", rows=bare), [])


def test_the_probe_table_shows_what_each_text_earned(make_run) -> None:
    store = make_run(steps=1)
    gold = {"probe": "gold", "mean": 2.0, "full_share": 1.0, "num_tasks": 8, "num_failed": 0, "failure": ""}
    store.append_event("reward_probe", 0, rows=[gold])
    assert "| gold | 2 | 100.0 % | 8 | 0 |" in report_text(store, [])
