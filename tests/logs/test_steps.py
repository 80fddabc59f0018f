"""Steps that restart, repeat, go missing, come late or out of order are put right, and it is said how."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import json_lines, reward, trainer_state, trl_row, verl_json_lines, verl_line, verl_row

from ratchet.logs.arrange import arrange
from ratchet.logs.log import Log, StepAxis, Topic
from ratchet.logs.read import read_log


def read(tmp_path: Path, text: str, name: str = "metrics.jsonl") -> Log:
    path = tmp_path / name
    path.write_text(text)
    return read_log(path)


def rows(steps: Iterable[int], mark: float = 0.0) -> str:
    """Return rows of verl whose grad norm is a mark, to tell segments apart."""
    return json_lines({"step": s, **verl_row(s), "actor/grad_norm": mark} for s in steps)


def said(log: Log, topic: Topic) -> str:
    return " ".join(note.text for note in log.notes if note.topic is topic)


def marks(log: Log) -> dict[int, float]:
    series = log.series["opt/grad_norm"]
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_a_log_in_order_has_nothing_to_say_about_its_steps(tmp_path: Path) -> None:
    log = read(tmp_path, rows(range(1, 50)))
    assert log.joins == ()
    assert {note.topic for note in log.notes} <= {Topic.MEANING}


def test_a_resumed_run_goes_on_from_its_checkpoint_and_the_later_part_counts(tmp_path: Path) -> None:
    log = read(tmp_path, rows(range(1, 61), 1.0) + rows(range(41, 81), 2.0))
    assert marks(log) == {s: 1.0 if s <= 40 else 2.0 for s in range(1, 81)}
    (join,) = log.joins
    assert (join.row, join.left, join.entered, join.replaced, join.restart) == (60, 60, 41, 20, False)
    assert "go back from 60 to 41: a resumed run. 20 steps" in said(log, Topic.JOIN)


def test_steps_beyond_what_a_resumed_run_has_reached_belong_to_the_branch_that_was_given_up(tmp_path: Path) -> None:
    log = read(tmp_path, rows(range(1, 61), 1.0) + rows(range(41, 46), 2.0))
    assert list(marks(log)) == list(range(1, 46))
    assert log.joins[0].replaced == 20


def test_evaluations_of_the_branch_that_was_given_up_go_with_it(tmp_path: Path) -> None:
    evals = json_lines([{"step": s, "val-core/gsm8k/acc/mean@1": 0.1} for s in (20, 40, 60)])
    log = read(tmp_path, rows(range(1, 61), 1.0) + evals + rows(range(41, 46), 2.0))
    assert log.evals["eval/gsm8k/acc/mean@1"].steps.tolist() == [20, 40]


def test_three_segments_are_joined_one_after_the_other(tmp_path: Path) -> None:
    text = rows(range(1, 31), 1.0) + rows(range(21, 51), 2.0) + rows(range(11, 61), 3.0)
    log = read(tmp_path, text)
    assert marks(log) == {s: 1.0 if s <= 10 else 3.0 for s in range(1, 61)}
    assert [(join.left, join.entered) for join in log.joins] == [(30, 21), (50, 11)]


def test_a_run_that_began_anew_in_the_same_file_replaces_the_one_before(tmp_path: Path) -> None:
    log = read(tmp_path, rows(range(1, 61), 1.0) + rows(range(1, 31), 2.0))
    assert marks(log) == dict.fromkeys(range(1, 31), 2.0)
    assert log.joins[0].restart
    assert "begin again at 1, after 60: another run" in said(log, Topic.JOIN)


def test_a_resume_with_another_logging_interval_is_a_resume(tmp_path: Path) -> None:
    log = read(tmp_path, rows(range(10, 130, 10), 1.0) + rows(range(105, 160, 5), 2.0))
    assert marks(log) == {**dict.fromkeys(range(10, 101, 10), 1.0), **dict.fromkeys(range(105, 160, 5), 2.0)}


def test_a_console_glued_from_two_runs_is_joined_by_step(tmp_path: Path) -> None:
    text = "\n".join([*(verl_line(s) for s in range(1, 31)), "Traceback (most recent call last):", "ray.exceptions.X",
                      *(verl_line(s) for s in range(21, 41))])  # fmt: skip
    log = read(tmp_path, text, "out.log")
    assert log.series["reward/mean"].steps.tolist() == list(range(1, 41))
    assert len(log.joins) == 1


def test_printed_rows_without_steps_are_joined_by_their_epoch(tmp_path: Path) -> None:
    text = "\n".join(str(trl_row(s)) for s in [*range(1, 31), *range(21, 41)])
    log = read(tmp_path, text, "out.log")
    assert log.axis is StepAxis.ROW
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in range(1, 41)]
    assert (log.joins[0].left, log.joins[0].entered) == (30, 21)


def test_several_files_of_one_run_are_joined_in_the_order_given(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(rows(range(1, 61), 1.0))
    second.write_text(rows(range(41, 81), 2.0))
    log = read_log([first, second])
    assert marks(log) == {s: 1.0 if s <= 40 else 2.0 for s in range(1, 81)}
    assert "2 files were read as one run" in said(log, Topic.JOIN)


def test_two_writers_of_one_file_are_merged_by_step_even_when_one_runs_ahead(tmp_path: Path) -> None:
    orchestrator = [
        {"step": s, "time": 1.0, "reward/all/mean": reward(s), "seq_len/all/mean": 300.0} for s in range(40)
    ]
    trainer = [
        {"step": s, "time": 1.0, "mismatch_kl/all/mean": 0.01, "entropy/all/mean": 0.5, "loss/mean": 0.0}
        for s in range(36)
    ]
    mixed: list[dict[str, float]] = []
    for s in range(40):
        mixed.append(orchestrator[s])
        if s >= 4:
            mixed.append(trainer[s - 4])
    log = read(tmp_path, json_lines(mixed))
    assert log.framework.name == "prime_rl"
    assert log.series["reward/mean"].steps.tolist() == list(range(40))
    assert log.series["kl/sampler"].steps.tolist() == list(range(36))
    assert log.joins == ()


def test_rows_out_of_order_are_sorted_and_counted(tmp_path: Path) -> None:
    steps = [1, 2, 4, 3, 5, 6, 8, 7, *range(9, 60)]
    log = read(tmp_path, rows(steps))
    assert log.series["reward/mean"].steps.tolist() == list(range(1, 60))
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in range(1, 60)]
    assert log.joins == ()
    assert "2 rows came out of order" in said(log, Topic.ORDER)


def test_a_log_with_its_newest_row_first_is_turned_round(tmp_path: Path) -> None:
    log = read(tmp_path, rows(range(60, 0, -1)))
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in range(1, 61)]
    assert "came out of order" in said(log, Topic.ORDER)


def test_of_repeated_steps_the_last_row_counts(tmp_path: Path) -> None:
    log = read(tmp_path, "".join(rows([s], mark) for s in range(1, 31) for mark in (1.0, 2.0)))
    assert marks(log) == dict.fromkeys(range(1, 31), 2.0)
    assert "30 rows repeated" in said(log, Topic.REPEAT)
    assert log.joins == ()


def test_processes_that_log_at_once_and_out_of_step_are_no_resumed_run(tmp_path: Path) -> None:
    steps = [1, 1, 2, 1, 2, 2, 3, 2, 3, 3]
    log = read(tmp_path, rows([base + s for base in range(0, 60, 2) for s in steps]))
    assert log.joins == ()
    assert log.series["reward/mean"].steps.tolist() == list(range(1, 62))


def test_the_same_file_twice_is_the_run_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(rows(range(1, 31)))
    log = read_log([path, path])
    assert log.series["reward/mean"].steps.tolist() == list(range(1, 31))


def test_a_log_that_starts_late_says_so(tmp_path: Path) -> None:
    log = read(tmp_path, rows(range(500, 560)))
    assert log.series["reward/mean"].steps[0] == 500
    assert "begins at step 500" in said(log, Topic.START)
    assert said(read(tmp_path, rows(range(10, 200, 10))), Topic.START) == ""


def test_values_that_are_not_finite_keep_their_step_and_are_counted(tmp_path: Path) -> None:
    text = "".join(
        json.dumps({"step": s, **verl_row(s), "actor/kl_loss": v}) + "\n"
        for s, v in zip(range(1, 6), (0.1, float("nan"), float("inf"), -float("inf"), 0.2), strict=True)
    )
    log = read(tmp_path, text)
    series = log.series["kl/ref"]
    assert series.steps.tolist() == [1, 2, 3, 4, 5]
    assert series.num_non_finite == 3
    assert [a.tolist() for a in series.finite()] == [[1, 5], [0.1, 0.2]]
    assert "kl/ref is NaN or infinite at 3 of 5 steps: 2, 3, 4" in said(log, Topic.NON_FINITE)


def test_rows_without_any_step_are_numbered(tmp_path: Path) -> None:
    log = read(tmp_path, json_lines(verl_row(s) for s in range(1, 31)))
    assert log.axis is StepAxis.ROW
    assert log.series["reward/mean"].steps.tolist() == list(range(1, 31))
    assert "numbered" in said(log, Topic.NUMBERED)


def test_evaluation_rows_without_a_step_take_that_of_the_row_before(tmp_path: Path) -> None:
    mixed: list[dict[str, float]] = []
    for s in range(1, 21):
        mixed.append({"step": s, **verl_row(s)})
        if s % 5 == 0:
            mixed.append({"val-core/gsm8k/acc/mean@1": reward(s)})
    log = read(tmp_path, json_lines(mixed))
    assert log.evals["eval/gsm8k/acc/mean@1"].steps.tolist() == [5, 10, 15, 20]
    assert "4 rows without a step took that of the row before" in said(log, Topic.NUMBERED)


def test_training_and_validation_rows_of_one_file_are_told_apart(tmp_path: Path) -> None:
    mixed: list[dict[str, float]] = []
    for s in range(1, 21):
        mixed.append(
            {
                "step": s,
                "train/reward": reward(s),
                "loss/train": 0.0,
                "loss/grad_norm": 0.1,
                "train/exception_rate": 0.0,
            }
        )
        if s % 5 == 0:
            mixed.append({"step": s, "val/reward": 0.9})
    log = read(tmp_path, json_lines(mixed), "history.jsonl")
    assert log.framework.name == "art"
    assert len(log.series["reward/mean"].steps) == 20
    assert log.evals["eval/val/reward_mean"].steps.tolist() == [5, 10, 15, 20]


@pytest.mark.parametrize("step", [float("nan"), 1.5, 1e300])
def test_a_row_whose_step_is_no_step_is_left_out_and_spoils_no_other(step: float, tmp_path: Path) -> None:
    steps: list[float] = [*range(1, 31)]
    steps[9] = step
    log = read(tmp_path, "".join(json.dumps({"step": s, **verl_row(i + 1)}) + "\n" for i, s in enumerate(steps)))
    series = log.series["reward/mean"]
    assert series.steps.tolist() == [s for s in range(1, 31) if s != 10]
    assert series.values.tolist() == [reward(s) for s in range(1, 31) if s != 10]
    assert "1 row whose step is no step" in said(log, Topic.LEFT_OUT)


def test_ten_thousand_steps_are_read_within_seconds(tmp_path: Path) -> None:
    texts = {
        "out.log": "\n".join(f"(pid=1) {verl_line(s)}\nnoise | 3/9 [00:01<00:02]" for s in range(1, 10_001)),
        "metrics.jsonl": verl_json_lines(range(1, 10_001)),
        "trainer_state.json": trainer_state(range(1, 10_001)),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        begin = time.process_time()
        log = read_log(tmp_path / name)
        assert time.process_time() - begin < 6  # 0.4 s on a quiet machine
        assert log.series["reward/mean"].steps.tolist() == list(range(1, 10_001))


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
    st.booleans(),
)
def test_whatever_the_steps_the_result_rises_strictly_and_holds_only_what_was_there(
    steps: Sequence[int], gaps: bool
) -> None:
    given_steps = np.array(steps, dtype=float)
    places = np.arange(len(steps)) * (2 if gaps else 1)
    arranged = arrange(given_steps, places)
    kept = given_steps[arranged.keep]
    assert (np.diff(kept) > 0).all()
    assert len(kept) >= 1
    for place in arranged.keep.tolist():  # of rows with the same step that count, it is the last
        later = [s for s in steps[place + 1 :] if s == steps[place]]
        assert not later


@given(st.integers(2, 50), st.integers(1, 49), st.integers(1, 60))
def test_a_run_resumed_anywhere_equals_one_that_was_not(length: int, back: int, more: int) -> None:
    checkpoint = max(0, length - back)
    steps = np.array([*range(1, length + 1), *range(checkpoint + 1, checkpoint + more + 1)], dtype=float)
    arranged = arrange(steps, np.arange(len(steps)))
    assert steps[arranged.keep].tolist() == [float(s) for s in range(1, checkpoint + more + 1)]
    newest = arranged.keep[steps[arranged.keep] > checkpoint]
    assert (newest >= length).all()
