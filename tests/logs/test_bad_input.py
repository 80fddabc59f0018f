"""What cannot be read is told in a sentence, whatever it is."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import (
    CONSOLES,
    json_lines,
    notebook,
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

import ratchet
from ratchet.core.errors import ConfigError
from ratchet.logs.collect import MAX_BLOCKS, MAX_KEYS, Table
from ratchet.logs.formats.console import Console, printed_row
from ratchet.logs.log import Training
from ratchet.logs.read import FORMATS, FORMATS_OF_RUNS, read_log

SFT_ROW = {"loss": 1.2, "grad_norm": 0.5, "learning_rate": 1e-5, "mean_token_accuracy": 0.7, "epoch": 0.1}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.log", b"", "is empty"),
        ("a.log", b"  \n\n\t ", "empty but for white space"),
        ("a.bin", b"\x7fELF\x00\x01\x02" * 100, "is binary"),
        ("a.npz", b"PK\x03\x04\x00\x00" * 100, "is binary"),
        ("a.log", b"hello world\nnothing here\n" * 20, "holds no metrics"),
        ("README.md", b"# Title\n\nSome text, with commas, and more.\n", "holds no metrics"),
        ("a.jsonl", b'{"a": "text"}\n{"a": "more"}\n', "holds no metrics"),
        ("a.json", b"[{]", "holds no metrics"),
        ("a.ipynb", b'{"cells": [', "no whole notebook"),
        ("trainer_state.json", b'{"log_history": [', "holds no metrics"),
        ("a.db", b"SQLite format 3\x00 and then garbage" * 40, "database that cannot be read"),
        ("a.wandb", b":W&B\x00\x00\x00", "holds no metrics"),
        ("a.csv", b"step,reward\n", "holds no metrics"),
    ],
)
def test_what_is_no_log_is_told_in_a_sentence(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    if name.endswith(".wandb"):
        pytest.importorskip("google.protobuf")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence) as raised:
        read_log(path)
    assert str(path) in str(raised.value)


def test_a_path_that_is_not_there_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no"):
        read_log(tmp_path / "none.log")
    with pytest.raises(ConfigError, match="holds no log that is known here"):
        read_log(tmp_path)
    with pytest.raises(ConfigError, match="No log was named"):
        read_log([])


@pytest.mark.parametrize("form", ["console", "jsonl", "trainer_state", "csv"])
def test_a_log_of_supervised_training_is_told_as_such(form: str, tmp_path: Path) -> None:
    rows = [{**SFT_ROW, "step": s} for s in range(1, 21)]
    texts = {
        "console": "\n".join(str({k: f"{v:.3g}" for k, v in row.items() if k != "step"}) for row in rows),
        "jsonl": json_lines(rows),
        "trainer_state": json.dumps({"epoch": 1.0, "log_history": rows}),
        "csv": ",".join(rows[0]) + "\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows),
    }
    path = tmp_path / ("a.csv" if form == "csv" else "trainer_state.json" if form == "trainer_state" else "a.log")
    path.write_text(texts[form])
    with pytest.raises(
        ConfigError, match="log of supervised fine-tuning: it has a loss and a learning rate but no reward"
    ):
        read_log(path)
    log = read_log(path, need_reward=False)
    assert log.training is Training.SFT
    assert len(log.series["loss/policy"].steps) == 20


def test_a_log_of_preference_training_is_told_as_such(tmp_path: Path) -> None:
    row = {"loss": 0.6, "rewards/chosen": 0.1, "rewards/rejected": -0.1, "rewards/margins": 0.2, "logps/chosen": -9.0}
    path = tmp_path / "a.jsonl"
    path.write_text(json_lines({"step": s, **row} for s in range(9)))
    with pytest.raises(ConfigError, match="preference training"):
        read_log(path)


def test_a_log_without_a_reward_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "trainer.jsonl"
    path.write_text(
        json_lines({"step": s, "actor/ppo_kl": 0.0, "actor/kl_loss": 0.1, "actor/entropy": 0.5} for s in range(9))
    )
    with pytest.raises(
        ConfigError, match=r"no reward series. Read were 3 series \(.*kl/ref.*\). Is the reward in another"
    ):
        read_log(path)
    assert read_log(path, need_reward=False).framework.name == "verl"


def test_a_file_of_rollouts_is_not_taken_for_metrics(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_text(
        json_lines({"step": 1, "prompt": "x" * 400, "completion": "y" * 900, "reward": 1.0} for _ in range(9))
    )
    with pytest.raises(ConfigError, match="holds rollouts"):
        read_log(path)


def test_two_frameworks_in_one_file_are_a_contradiction_that_naming_one_settles(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    path.write_text(verl_console(range(1, 31)) + trl_console(range(1, 31)))
    with pytest.raises(ConfigError, match=r"speaks for two frameworks: .* framework (verl|trl) or (verl|trl)"):
        read_log(path)
    assert read_log(path, framework="verl").series["kl/old"].key == "actor/ppo_kl"
    assert read_log(path, framework="TRL").series["reward/mean"].key == "reward"


def test_a_framework_that_is_not_known_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(verl_json_lines(range(1, 9)))
    with pytest.raises(ConfigError, match=r'no framework "verll" here. Did you mean "verl"'):
        read_log(path, framework="verll")
    assert read_log(path, framework="unsloth", need_reward=False).framework.name == "trl"


def test_a_folder_that_holds_several_runs_names_them(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(verl_json_lines(range(1, 9)))
    with pytest.raises(ConfigError, match=r"/one and .*/three hold the same series \(actor/entropy, .*so they are two"):
        read_log(tmp_path)
    for i in range(20):
        (tmp_path / f"run{i}").mkdir()
        (tmp_path / f"run{i}" / "metrics.jsonl").write_text(verl_json_lines(range(1, 9)))
    with pytest.raises(ConfigError, match=r"holds 23 logs of the form jsonl: one/metrics.jsonl, run0/metrics.jsonl"):
        read_log(tmp_path)


def test_a_folder_whose_writers_have_folders_of_their_own_is_one_run(tmp_path: Path) -> None:
    rows = {
        "orchestrator": [{"step": s, "reward/all/mean": 0.5, "seq_len/all/mean": 300.0} for s in range(9)],
        "trainer": [{"step": s, "mismatch_kl/all/mean": 0.01, "entropy/all/mean": 0.5} for s in range(9)],
    }
    for name, some in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json_lines(some))
    log = read_log(tmp_path)
    assert log.framework.name == "prime_rl"
    assert {"reward/mean", "kl/sampler", "entropy"} <= set(log.series)


def test_a_folder_is_searched_in_the_order_that_is_written_down_and_says_what_it_left(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(trl_console(range(1, 9)))
    (tmp_path / "export.csv").write_text(wandb_csv(range(1, 9)))
    (tmp_path / "metrics.jsonl").write_text(json_lines({"step": s, **trl_row(s)} for s in range(1, 9)))
    for step in (10, 20, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(trainer_state(range(1, step + 1)))
    log = read_log(tmp_path)
    assert log.sources == (tmp_path / "checkpoint-20" / "trainer_state.json",)
    assert {path.name for path in log.unread} == {"metrics.jsonl", "export.csv", "train.log"}
    assert read_log(tmp_path, format="jsonl").sources == (tmp_path / "metrics.jsonl",)
    assert read_log(tmp_path, format="console").format.name == "console"


def test_a_log_of_random_keys_is_kept_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for s in range(MAX_BLOCKS + 500):
            file.write(json.dumps({"step": s, "reward": 0.5, **{f"key{s}_{i}": 1.0 for i in range(30)}}) + "\n")
    log = read_log(path)
    assert len(log.series["reward/mean"].steps) == MAX_BLOCKS + 500
    assert len(log.unrecognised) <= MAX_KEYS
    assert any("different keys" in note.text for note in log.notes)


def test_a_line_without_end_is_passed_over_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    with path.open("w") as file:
        file.write(verl_line(1) + "\n")
        for _ in range(40):
            file.write("x" * (1 << 20))
        file.write("\n" + verl_line(2) + "\n")
    log = read_log(path)
    assert log.series["reward/mean"].steps.tolist() == [1, 2]
    assert any("1 lines of more than 16 million characters" in note.text for note in log.notes)


# What a few minutes of garbage could not break, cut from every form there is.
SEEDS = [
    *(text(range(1, 4)).encode() for text in CONSOLES.values()),
    trl_console(range(1, 4)).encode(),
    trainer_state(range(1, 4)).encode(),
    verl_json_lines(range(1, 4)).encode(),
    wandb_csv(range(1, 4)).encode(),
    notebook(trl_console(range(1, 4))).encode(),
    wandb_file([(s, verl_row(s)) for s in range(1, 4)]),
    b"SQLite format 3\x00" + bytes(200),
]


@given(
    seed=st.sampled_from(SEEDS),
    cut=st.integers(0, 400),
    junk=st.binary(max_size=40),
    at=st.integers(0, 2000),
    name=st.sampled_from(["a.log", "a.jsonl", "a.csv", "a.json", "a.ipynb", "a.db", "events.out.tfevents.1"]),
)
def test_damaged_logs_never_raise_anything_but_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, cut: int, junk: bytes, at: int, name: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(seed[cut:at] + junk + seed[at:])
    attempt(path, "auto")


@given(data=st.binary(max_size=300), form=st.sampled_from([*FORMATS, *FORMATS_OF_RUNS]))
def test_arbitrary_bytes_never_raise_anything_but_a_sentence_in_any_form(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, form: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.log"
    path.write_bytes(data)
    attempt(path, form)


@given(st.text(max_size=300))
def test_arbitrary_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.log"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    attempt(path, "auto")
    console = Console(Table())
    console.feed_text(text)
    console.close()
    printed_row("{" + text + "}")


def attempt(path: Path, form: str) -> None:
    """Read a log; anything but a `ConfigError` fails the test."""
    with suppress(ConfigError):
        read_log(path, format=form, need_reward=False)


def test_deeply_nested_rows_end_no_process(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000 + "\n" + verl_json_lines(range(1, 9)))
    assert len(read_log(path).series["reward/mean"].steps) == 8


def test_a_trackio_store_without_metrics_and_another_database_are_told(tmp_path: Path) -> None:
    trackio_database(tmp_path / "a.db", {})
    with pytest.raises(ConfigError, match="Did the run log any"):
        read_log(tmp_path / "a.db")


BIG = """
import resource, sys
from ratchet.logs.read import read_log
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
log = read_log(sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(log.series["reward/mean"].steps), (after - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True], ids=["mostly noise", "all rows"])
def test_a_log_of_200_megabytes_is_read_in_bounded_memory(dense: bool, tmp_path: Path) -> None:
    path = tmp_path / "big.log"
    steps = 0
    with path.open("w") as file:
        while file.tell() < 200_000_000:
            steps += 1
            file.write(f"(TaskRunner pid=87031) {verl_line(steps)}\n")
            if not dense:
                file.write("(WorkerDict pid=82641) INFO 09-15 14:42:21 [executor_base.py:188] It took 1.46 s.\n" * 200)
    package = str(Path(ratchet.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", BIG, str(path)],
        env={"PYTHONPATH": package, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    read, grown = map(int, done.stdout.split())
    assert read == steps
    # Twelve numbers a row are 96 bytes, where the text has some 400; the rest is the chunk being read.
    assert grown < 60 + steps * 12 * 8 * 3 / 1e6
