"""Data of every form becomes the same questions, and what is wrong with it is one sentence."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ratchet
from ratchet.core.errors import ConfigError
from ratchet.core.task import Split
from ratchet.environments.questions import Questions
from ratchet.environments.rows import read_rows
from ratchet.environments.sources import Source
from ratchet.environments.table import build_environment

TRAIN, TEST = Split("train", 0), Split("test", 0)
RECORDS = [{"id": i, "problem": f"What is {i} + 1,\nexactly?", "solution": str(i + 1)} for i in range(12)]
FIELDS = {"question_field": "problem", "answer_field": "solution", "verifier": "exact"}


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_csv(path: Path, records: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(records[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        out.writeheader()
        out.writerows(records)
    return path


def write_parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(records), path)
    return path


def write_json(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(records))
    return path


WRITERS = {
    "d.jsonl": write_jsonl,
    "d.json": write_json,
    "d.csv": write_csv,
    "d.tsv": write_csv,
    "d.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_tasks(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path / name, RECORDS)
    like = Questions(path=str(write_jsonl(tmp_path / "like.jsonl", RECORDS)), **FIELDS)
    made = Questions(path=str(path), **FIELDS)
    assert [made.task(TRAIN, i) for i in range(10)] == [like.task(TRAIN, i) for i in range(10)]
    assert [made.task(TEST, i) for i in range(2)] == [like.task(TEST, i) for i in range(2)]


def test_a_folder_is_read_split_by_split_as_the_names_of_its_files_tell(tmp_path: Path) -> None:
    write_parquet(tmp_path / "main" / "train-00000-of-00002.parquet", RECORDS[:5])
    write_parquet(tmp_path / "main" / "train-00001-of-00002.parquet", RECORDS[5:8])
    write_parquet(tmp_path / "main" / "test-00000-of-00001.parquet", RECORDS[8:])
    write_jsonl(tmp_path / "other" / "train.jsonl", RECORDS)
    made = Questions(path=str(tmp_path), subset="main", test_split="test", **FIELDS)
    assert (made.num_tasks(TRAIN), made.num_tasks(TEST)) == (8, 4)
    with pytest.raises(ConfigError, match='has no split "validation" among its files: test-00000'):
        Questions(path=str(tmp_path), subset="main", split="validation", **FIELDS)
    with pytest.raises(ConfigError, match="holds no data"):
        Questions(path=str(tmp_path), subset="mian", **FIELDS)


def test_a_folder_whose_files_tell_of_no_split_is_all_training_data(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", RECORDS[:6])
    write_jsonl(tmp_path / "b.jsonl", RECORDS[6:])
    assert len(read_rows(str(tmp_path), fields=("problem",))) == 12


def test_fields_within_fields_and_whole_conversations_are_read_as_other_frameworks_keep_them(tmp_path: Path) -> None:
    chat = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "And 2?"},
    ]
    ruled = [{"role": "system", "content": "Be brief."}, *chat]
    records = [{"prompt": c, "reward_model": {"style": "rule", "ground_truth": "2"}} for c in (chat, ruled)]
    names = {"question_field": "prompt", "answer_field": "reward_model.ground_truth"}
    for path in (write_parquet(tmp_path / "v.parquet", records), write_jsonl(tmp_path / "v.jsonl", records)):
        made = Questions(path=str(path), held_out=0, verifier="exact", system="Think.", **names)
        prompts = {made.task(TRAIN, i).prompt for i in range(2)}
        assert {tuple((m.role, m.content) for m in p) for p in prompts} == {
            (("system", "Think."), *((m["role"], m["content"]) for m in chat)),
            tuple((m["role"], m["content"]) for m in ruled),
        }
        assert made.task(TRAIN, 0).answer == "2"
        with pytest.raises(ConfigError, match=r"holds a conversation.*environment\.prompt"):
            Questions(path=str(path), prompt="Q: {question}", verifier="exact", **names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"question_field": "problme"}, r'd\.csv:3: "problme" is missing\. Did you mean "problem"\?'),
        ({"question_field": "problem.text"}, r'"problem\.text" is missing\. Known: id, problem, solution'),
        ({"split": "train"}, "is a file: it has no subset and no split"),
        ({"path": "no/such.csv"}, r"no/such\.csv: No such file or directory"),
        ({"test_split": "test"}, "is a file: it has no subset and no split"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, options: dict[str, object], said: str) -> None:
    path = write_csv(tmp_path / "d.csv", RECORDS)
    with pytest.raises(ConfigError, match=said):
        build_environment("questions", {"path": str(path), **FIELDS, **options})


def test_a_broken_file_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\nq,a\nq,a,b\n")
    (tmp_path / "b.json").write_text('[{"question": 1, ')
    (tmp_path / "c.jsonl").write_text('{"question": [{"role": "boss", "content": "x"}], "answer": "1"}\n')
    fields = ("question", "answer")
    with pytest.raises(ConfigError, match=r"a\.csv:3: the line has another number of fields"):
        read_rows(str(tmp_path / "a.csv"), fields=fields)
    with pytest.raises(ConfigError, match=r"b\.json: not JSON"):
        read_rows(str(tmp_path / "b.json"), fields=fields)
    with pytest.raises(ConfigError, match=r'c\.jsonl:1: "question" holds .*"boss".* which is no message'):
        read_rows(str(tmp_path / "c.jsonl"), fields=fields, chats=("question",))


def test_a_file_that_is_no_parquet_is_said_to_be_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "d.parquet").write_text("question,answer\n")
    with pytest.raises(ConfigError, match=r"d\.parquet: not a Parquet file"):
        read_rows(str(tmp_path / "d.parquet"), fields=("question",))


def test_a_saved_data_set_of_hugging_face_is_read_by_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(RECORDS)
    datasets.DatasetDict({"train": whole.select(range(8)), "test": whole.select(range(8, 12))}).save_to_disk(
        str(tmp_path / "saved")
    )
    made = Questions(path=str(tmp_path / "saved"), test_split="test", **FIELDS)
    assert (made.num_tasks(TRAIN), made.num_tasks(TEST)) == (8, 4)
    with pytest.raises(ConfigError, match=r'has no split "dev"\. It has: train, test'):
        read_rows(Source(str(tmp_path / "saved"), split="dev"), fields=("problem",))


def test_a_hub_that_cannot_be_reached_is_a_sentence_and_exit_code_2(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    words = ["check-reward", "arithmetic.toml", "environment.path=nobody/nothing-at-all"]
    (tmp_path / "arithmetic.toml").write_text('[environment]\nname = "questions"\nverifier = "exact"\n')
    code = f"from ratchet.cli.main import main; main({words!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(ratchet.__file__).parents[1]), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert "nobody/nothing-at-all" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_set_of_the_hub_without_the_library_says_what_to_install() -> None:
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"needs the library datasets.*pip install 'ratchet\[data\]'"):
            read_rows("openai/gsm8k", fields=("question",))
    else:
        pytest.skip("the library datasets is installed here")
