"""Every form a log may have is told by its content and read to the same numbers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from made import (
    CONSOLES,
    json_lines,
    kaggle,
    mlflow_run,
    notebook,
    progress_page,
    reward,
    trackio_database,
    trainer_state,
    trl_console,
    trl_row,
    verl_console,
    verl_json_lines,
    verl_line,
    verl_row,
    wandb_csv,
    wandb_file,
)

from ratchet.config.read import RECIPES
from ratchet.core.errors import ConfigError
from ratchet.logs.log import Log, StepAxis
from ratchet.logs.read import read_log

STEPS = range(1, 21)


def written(path: Path, text: str | bytes) -> Path:
    if isinstance(text, str):
        text = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return path


def told(log: Log) -> str:
    return "\n".join(note.text for note in log.notes)


@pytest.mark.parametrize("framework", CONSOLES)
def test_a_console_is_read_through_all_that_is_printed_around_its_rows(framework: str, tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "out.log", CONSOLES[framework](STEPS)))
    assert (log.format.name, log.framework.name, log.framework.sure) == ("console", framework, True)
    series = log.series["reward/mean"]
    assert series.steps.tolist() == list(STEPS)
    assert series.values.tolist() == pytest.approx([reward(s) for s in STEPS])
    assert list(log.unrecognised) == []


def test_the_rows_of_a_console_hold_every_number_that_was_printed(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "out.log", verl_console(STEPS)))
    by_key = {series.key: series for series in (*log.series.values(), *log.evals.values())}
    for key in verl_row(1):
        assert by_key[key].values.tolist() == [verl_row(s)[key] for s in STEPS], key
    assert log.evals["eval/gsm8k/acc/mean@1"].steps.tolist() == [5, 10, 15, 20]
    assert log.axis is StepAxis.ROLLOUT


@pytest.mark.parametrize(
    ("wrapped", "value"),
    [
        ("np.float64(0.25)", 0.25),
        ("np.float32(0.25)", 0.25),
        ("np.int64(3)", 3.0),
        ("float64(0.25)", 0.25),
        ("tensor(0.25)", 0.25),
        ("tensor(0.25, device='cuda:0')", 0.25),
        ("'0.25'", 0.25),
        ("1e-05", 1e-05),
        ("-.5", -0.5),
        ("nan", float("nan")),
        ("np.float64(nan)", float("nan")),
        ("-inf", float("-inf")),
    ],
)
def test_numbers_are_read_however_they_are_printed(wrapped: str, value: float, tmp_path: Path) -> None:
    line = verl_line(1).replace("actor/entropy:0.0977", f"actor/entropy:{wrapped}")
    log = read_log(written(tmp_path / "out.log", f"{line}\n{verl_line(2)}\n"))
    assert log.series["entropy"].values[0] == pytest.approx(value, nan_ok=True)
    row = ", ".join(f"'{k}': {wrapped if k == 'entropy' else v}" for k, v in trl_row(1).items())
    log = read_log(written(tmp_path / "trl.log", f"{{{row}}}\n{trl_row(2)}\n"))
    assert log.series["entropy"].values[0] == pytest.approx(value, nan_ok=True)
    assert log.series["reward/mean"].values.tolist() == [reward(1), reward(2)]


def test_texts_and_none_in_a_row_are_missing_not_numbers(tmp_path: Path) -> None:
    line = verl_line(1) + " - actor/name:qwen - actor/none:None - actor/flag:True"
    log = read_log(written(tmp_path / "out.log", f"{line}\n{verl_line(2)}\n"))
    assert log.series["reward/mean"].values.tolist() == [reward(1), reward(2)]
    assert not [key for key in (*log.series, *log.unrecognised) if "none" in key or "name" in key]


def test_a_dict_that_is_printed_over_several_lines_is_one_row(tmp_path: Path) -> None:
    text = ""
    for step in STEPS:
        items = [f"'{key}': {value}" for key, value in trl_row(step).items()]
        text += f"(pid=3) {{{items[0]},\n" + ",\n".join(f"(pid=3)  {item}" for item in items[1:]) + "}\n"
    log = read_log(written(tmp_path / "out.log", text))
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in STEPS]
    assert log.series["kl/ref"].values.tolist() == [0.0007] * 20


@pytest.mark.parametrize("begun", ["    config = {'a': 1,", "<table border=1>"])
def test_what_begins_like_a_row_and_never_ends_swallows_none(begun: str, tmp_path: Path) -> None:
    text = f"{trl_row(1)}\n{begun}\nand so on\n{trl_row(2)}\n{trl_row(3)}\n"
    assert len(read_log(written(tmp_path / "out.log", text)).series["reward/mean"].steps) == 3
    for framework in ("areal", "tinker", "nemo_rl", "torchforge", "prime_rl"):
        log = read_log(written(tmp_path / "out.log", f"{begun}\n{CONSOLES[framework](STEPS)}"))
        assert len(log.series["reward/mean"].steps) == 20, framework


PANEL = """
╭─────────────────────────── Step {step} ───────────────────────────╮
│ ┏━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┓ │
│ ┃ Prompt        ┃ Completion     ┃ accuracy_reward ┃ Advantage ┃ │
│ ┡━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━┩ │
│ │ What is 1 + 1 │ 2              │ 1.00            │ 0.70      │ │
│ └───────────────┴────────────────┴─────────────────┴───────────┘ │
╰──────────────────────────────────────────────────────────────────╯
"""


def test_samples_that_are_drawn_between_the_rows_and_what_rewards_print_are_no_metrics(tmp_path: Path) -> None:
    lines = []
    for step in STEPS:
        lines.append(PANEL.format(step=step))
        lines.extend(["{'reward': 1.0}", "{'question': 'q', 'reward': 0.25, 'loss': 3}"] * 4)
        lines.append(str(trl_row(step)))
    log = read_log(written(tmp_path / "out.log", "\n".join(lines)))
    assert (log.framework.name, log.framework.sure) == ("trl", True)
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in STEPS]
    assert list(log.unrecognised) == []
    assert "160 printed dicts" in told(log)


@pytest.mark.parametrize("quoted", [True, False])
def test_printed_dicts_without_steps_are_numbered_and_that_is_said(quoted: bool, tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "out.log", trl_console(STEPS, quoted=quoted)))
    assert log.framework.name == "trl"
    assert log.axis is StepAxis.ROW
    assert log.series["reward/mean"].steps.tolist() == list(STEPS)
    assert log.series["progress/train_runtime"].steps.tolist() == [20]
    assert "names no step" in told(log)


def test_the_progress_bar_after_each_row_gives_its_step(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "out.log", trl_console(range(10, 100, 10), bars=True)))
    assert log.axis is StepAxis.OPTIMISER
    assert log.series["reward/mean"].steps.tolist() == list(range(10, 100, 10))
    assert "progress bar" in told(log)


def test_a_trainer_state_keeps_training_evaluation_and_summary_apart(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "trainer_state.json", trainer_state(STEPS)))
    assert (log.format.name, log.framework.name, log.axis) == ("trainer_state", "trl", StepAxis.OPTIMISER)
    assert log.series["reward/mean"].steps.tolist() == list(STEPS)
    assert log.evals["eval/all/reward_mean"].steps.tolist() == [10, 20]
    assert log.evals["eval/all/reward_mean"].values.tolist() == [reward(10) / 2, reward(20) / 2]
    # A key that evaluation rows lack is missing there, not NaN.
    assert log.series["reward/mean"].num_non_finite == 0


def test_a_trainer_state_cut_off_while_it_was_written_gives_the_rows_before(tmp_path: Path) -> None:
    text = trainer_state(STEPS)
    log = read_log(written(tmp_path / "trainer_state.json", text[: len(text) // 2]))
    assert 5 < len(log.series["reward/mean"].steps) < 20
    assert "could not be read" in told(log)


@pytest.mark.parametrize("name", ["metrics.jsonl", "something.log"])
def test_json_lines_are_told_by_content_and_nested_data_is_the_row(name: str, tmp_path: Path) -> None:
    log = read_log(written(tmp_path / name, verl_json_lines(STEPS)))
    assert (log.format.name, log.framework.name) == ("jsonl", "verl")
    assert log.series["kl/old"].values.tolist() == [-8.1e-06] * 20
    assert log.series["reward/mean"].steps.tolist() == list(STEPS)


def test_a_half_written_last_line_and_lines_that_are_no_json_are_counted(tmp_path: Path) -> None:
    text = "starting\n" + verl_json_lines(STEPS) + '{"step": 21, "data": {"critic/sc'
    log = read_log(written(tmp_path / "metrics.jsonl", text))
    assert len(log.series["reward/mean"].steps) == 20
    assert "2 lines or records could not be read" in told(log)


def test_an_array_of_rows_is_read(tmp_path: Path) -> None:
    rows = [{"step": s, **verl_row(s)} for s in STEPS]
    log = read_log(written(tmp_path / "history.json", json.dumps(rows)))
    assert log.format.name == "json"
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in STEPS]


def test_a_notebook_gives_what_its_cells_printed(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "train.ipynb", notebook(trl_console(STEPS))))
    assert (log.format.name, log.framework.name) == ("notebook", "trl")
    assert log.series["reward/mean"].values.tolist() == pytest.approx([reward(s) for s in STEPS])


def test_a_notebook_gives_the_table_that_was_drawn_with_its_steps(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "train.ipynb", notebook("Loading\n", progress_page(range(10, 60, 10)))))
    assert log.framework.name == "trl"
    assert log.series["reward/mean"].steps.tolist() == [10, 20, 30, 40, 50]
    assert log.series["len/response/mean"].values.tolist() == [126.8] * 5
    assert log.series["loss/policy"].values.tolist() == [0.0] * 5


def test_a_notebook_saved_as_text_gives_the_table_that_was_drawn(tmp_path: Path) -> None:
    page = progress_page(range(10, 60, 10)).replace("<t", "\n  <t").replace("</table>", "\n</table>")
    text = f"# Training\n\n    Total steps = 96\n    O^O/ \\_/ \\    Batch size per device = 2\n\n{page}\nDone.\n"
    log = read_log(written(tmp_path / "train.md", text))
    assert log.series["reward/mean"].steps.tolist() == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("array", [True, False])
def test_a_kaggle_log_is_put_together_from_its_pieces(array: bool, tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "kernel.log", kaggle(trl_console(STEPS), array=array)))
    assert (log.format.name, log.framework.name) == ("kaggle", "trl")
    assert log.series["reward/mean"].values.tolist() == pytest.approx([reward(s) for s in STEPS])


@pytest.mark.parametrize(("sign", "name"), [(",", "a.csv"), ("\t", "a.tsv"), (";", "a.txt")])
def test_columns_are_read_and_empty_cells_are_missing(sign: str, name: str, tmp_path: Path) -> None:
    keys = list(verl_row(1))
    lines = [sign.join(["step", *keys])]
    for s in STEPS:
        cells = [str(value) for value in verl_row(s).values()]
        if s == 7:
            cells[keys.index("actor/entropy")] = ""
        lines.append(sign.join([str(s), *cells]))
    log = read_log(written(tmp_path / name, "\n".join(lines)))
    assert (log.format.name, log.framework.name) == ("csv", "verl")
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in STEPS]
    assert 7 not in log.series["entropy"].steps.tolist()
    assert log.series["entropy"].num_non_finite == 0


def test_a_chart_exported_by_wandb_is_read_without_its_bounds(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "wandb_export.csv", wandb_csv(STEPS)))
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in STEPS]
    assert log.series["reward/mean"].key == "train/reward"
    assert "__MIN" in told(log)


def test_a_chart_of_several_runs_needs_the_run_to_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "wandb_export.csv", wandb_csv(STEPS, ("run - a", "run-b")))
    with pytest.raises(ConfigError, match=r"2 runs: run - a, run-b. Say which"):
        read_log(path)
    with pytest.raises(ConfigError, match=r'no run "run-c".* Did you mean "run-b"'):
        read_log(path, run="run-c")
    assert read_log(path, run="run-b").series["reward/mean"].steps.tolist() == list(range(1, 21, 2))


def test_a_trackio_project_is_read_run_by_run(tmp_path: Path) -> None:
    rows = [{f"train/{key}": value for key, value in trl_row(s).items()} for s in STEPS]
    rows[3]["train/kl"] = "NaN"  # type: ignore[assignment]  # as trackio writes it
    path = tmp_path / "project.db"
    trackio_database(path, {"first": rows, "second": rows[:5]})
    with pytest.raises(ConfigError, match="2 runs: first, second"):
        read_log(path)
    log = read_log(path, run="first")
    assert (log.format.name, log.framework.name) == ("sqlite", "trl")
    assert log.series["reward/mean"].steps.tolist() == list(STEPS)
    assert np.isnan(log.series["kl/ref"].values[3])
    assert len(read_log(path, run="second").series["reward/mean"].steps) == 5


def test_a_folder_of_mlflow_is_read_with_its_at_signs_back(tmp_path: Path) -> None:
    mlflow_run(tmp_path / "mlruns" / "123" / "abc", STEPS, "one")
    log = read_log(tmp_path / "mlruns")
    assert (log.format.name, log.framework.name) == ("mlflow", "verl")
    assert log.evals["eval/gsm8k/acc/mean@1"].values.tolist() == [reward(s) for s in STEPS]
    mlflow_run(tmp_path / "mlruns" / "123" / "def", STEPS, "two")
    with pytest.raises(ConfigError, match="2 runs: one, two"):
        read_log(tmp_path / "mlruns")
    assert len(read_log(tmp_path / "mlruns", run="two").series["reward/mean"].steps) == 20


@pytest.mark.parametrize("typed", [False, True])
def test_an_offline_run_of_wandb_is_read_across_its_blocks(typed: bool, tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf")
    rows = [(s, {**verl_row(s), "note": "x" * 3000, "_timestamp": 1.5, "count": 2**40}) for s in range(1, 101)]
    path = written(tmp_path / "offline-run" / "run-abc.wandb", wandb_file(rows, typed=typed))
    assert path.stat().st_size > 5 * 32768
    log = read_log(tmp_path)
    assert (log.format.name, log.framework.name) == ("wandb", "verl")
    assert log.series["reward/mean"].values.tolist() == [reward(s) for s in range(1, 101)]
    assert log.unrecognised["count"].values.tolist() == [2.0**40] * 100
    cut = read_log(written(tmp_path / "cut.wandb", path.read_bytes()[: 32768 * 3 + 100]))
    assert 10 < len(cut.series["reward/mean"].steps) < 100


def test_tensorboards_event_files_are_read_and_a_resumed_run_is_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first, second = [(s, s * 1.0) for s in range(1, 61)], [(s, s * 1.0 + 0.5) for s in range(41, 81)]
    for i, points in enumerate((first, second)):
        write_events(tmp_path / f"events.out.tfevents.{1760000000 + i}.host.{i}", "train/reward", points)
        write_events(
            tmp_path / f"events.out.tfevents.{1760000000 + i}.host.{i}.b", "train/completions/mean_length", points
        )
    log = read_log(tmp_path)
    assert (log.format.name, log.framework.name) == ("tensorboard", "trl")
    series = log.series["reward/mean"]
    assert series.steps.tolist() == list(range(1, 81))
    assert series.values.tolist() == [float(s) for s in range(1, 41)] + [s + 0.5 for s in range(41, 81)]
    assert "go back from 60 to 41" in told(log)


def write_events(path: Path, tag: str, points: list[tuple[int, float]], *, as_tensor: bool = False) -> None:
    """Write scalars as TensorBoard's own writer does, in the older form or as tensors; a text stands between them."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(file_version="brain.Event:2").SerializeToString())
        for step, number in points:
            value = Summary.Value(tag=tag, simple_value=number)
            if as_tensor:
                kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
                value = Summary.Value(tag=tag, tensor=make_tensor_proto(number), metadata=kind)
                kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
                text = Summary.Value(tag="train/sample", tensor=make_tensor_proto("an answer"), metadata=kind)
                writer.write(Event(step=step, summary=Summary(value=[text])).SerializeToString())
            writer.write(Event(step=step, summary=Summary(value=[value])).SerializeToString())


@pytest.mark.parametrize("as_tensor", [False, True])
def test_scalars_of_either_form_are_read_and_texts_are_not(as_tensor: bool, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    path = tmp_path / "events.out.tfevents.1760000000.host"
    write_events(path, "ppo_actor/task_reward/avg", [(s, reward(s)) for s in STEPS], as_tensor=as_tensor)
    log = read_log(path, framework="areal")
    assert log.series["reward/mean"].values.tolist() == pytest.approx([reward(s) for s in STEPS])
    assert list(log.unrecognised) == []


def test_a_cut_event_file_gives_what_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    path = tmp_path / "events.out.tfevents.1760000000.host"
    write_events(path, "train/reward", [(s, reward(s)) for s in STEPS])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 5 < len(read_log(path).series["reward/mean"].steps) < 20
    path.write_bytes(data[: len(data) // 2] + b"\xff" * 40 + data[len(data) // 2 :])
    log = read_log(path)
    assert 5 < len(log.series["reward/mean"].steps) < 20
    assert "damaged" in told(log)


def test_our_own_run_folder_is_read_into_the_same_record(tmp_path: Path) -> None:
    run = tmp_path / "judge-001"
    rows = [{"step": s, "reward/mean": reward(s), "kl/old": 1e-9, "entropy": 0.5, "time/step": 1.0} for s in range(5)]
    written(run / "config.toml", "[run]\nname = 'x'\n")
    written(run / "metrics.jsonl", json_lines(rows))
    events = [
        {"time": 1.0, "kind": "eval", "step": s, "split": "test", "reward_mean": 0.5, "pass@1": 0.25} for s in (2, 4)
    ]
    written(run / "events.jsonl", json_lines(events))
    for path in (run, run / "metrics.jsonl"):
        log = read_log(path)
        assert (log.format.name, log.framework.name) == ("ratchet", "ratchet")
        assert log.series["reward/mean"].steps.tolist() == [0, 1, 2, 3, 4]
        assert log.evals["eval/test/pass@1"].steps.tolist() == [2, 4]
        assert list(log.unrecognised) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_log_in_any_encoding_of_a_shell_is_read(encoding: str, tmp_path: Path) -> None:
    path = written(tmp_path / "out.log", verl_console(STEPS).replace("\n", "\r\n").encode(encoding))
    assert read_log(path).series["reward/mean"].values.tolist() == [reward(s) for s in STEPS]


def test_a_gzipped_log_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "out.log.gz", gzip.compress(verl_console(STEPS).encode()))
    assert len(read_log(path).series["reward/mean"].steps) == 20


def test_bytes_that_are_no_text_hurt_no_other_line(tmp_path: Path) -> None:
    text = verl_console(STEPS).encode().replace(b"INFO", b"\xff\xfe\xc3(")
    assert len(read_log(written(tmp_path / "out.log", b"\n" + text)).series["reward/mean"].steps) == 20


def test_a_format_that_is_named_is_taken_instead_of_the_one_found(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", verl_json_lines(STEPS))
    log = read_log(path, format="console", need_reward=False)
    assert log.format.evidence == "as asked for"
    with pytest.raises(ConfigError, match=r'no format "jsonll" here. Did you mean "jsonl"'):
        read_log(path, format="jsonll")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/reference/*/seed0.jsonl")), ids=lambda p: p.parent.name)
def test_our_own_recorded_curves_are_told_as_ours(path: Path) -> None:
    assert read_log(path).framework.name == "ratchet"
