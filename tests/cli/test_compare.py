"""``ratchet compare``: exit codes, sentences, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ratchet.cli.main import main
from ratchet.store.run_store import RunStore


def ratchet(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words])


def make_run(folder: Path, algorithm: str = "grpo", steps: int = 6, **numbers: float) -> Path:
    config = {"run": {"study": "none"}, "environment": {"name": "judge"}, "algorithm": {"name": algorithm}}
    store = RunStore.create(folder, config, {"steps": steps}, {})
    for step in range(steps):
        store.append_metrics({"step": step, **(numbers or {"reward/mean": 0.1 * step, "entropy": 1.0})})
    return folder


def test_it_prints_tables_and_sentences_and_names_its_files(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "a")
    make_run(tmp_path / "sweep" / "b", "red_weight")
    result = ratchet("compare", tmp_path / "sweep", "--out", tmp_path / "x.png")
    assert result.exit_code == 0, result.output
    assert "sync_interval = 1" in result.output
    assert "RED-Weight" in result.output
    assert "One seed of each method" in result.output
    for ending in ("png", "svg", "md", "txt"):
        assert (tmp_path / f"x.{ending}").is_file()
    assert str(tmp_path / "x.md") in result.output


def test_options_reach_the_comparison(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", **{"reward/mean": 1.0, "entropy": 2.0, "tokens/generated": 10.0})
    words = ["--metric", "entropy", "--x", "tokens", "--label", "algorithm.lr", "--no-reference"]
    result = ratchet("compare", run, *words)
    assert result.exit_code == 0, result.output
    assert "lr = 1e-06" in result.output
    assert "x axis: Generated Tokens" in (run / "figures" / "compare.txt").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["/no/such/run"], "is not a run folder: there is no such folder"),
        (["{empty}"], "is not a run folder: it has no config.toml"),
        (["{none}"], "it has no finished step"),
        (["{a}", "{b}"], "share none of the metrics"),
        (["{a}", "--metric", "reward/maen"], 'Did you mean "reward/mean"?'),
        (["{a}", "--label", "algorithm.nome"], 'Did you mean "algorithm.name"?'),
        (["{a}", "--x", "distance"], "is not one of"),
        ([], "Missing argument"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path, words: list[str], told: str) -> None:
    places = {
        "empty": tmp_path / "empty",
        "none": make_run(tmp_path / "none", steps=0),
        "a": make_run(tmp_path / "a", **{"reward/mean": 1.0}),
        "b": make_run(tmp_path / "b", **{"entropy": 1.0}),
    }
    places["empty"].mkdir()
    result = ratchet("compare", *(w.format(**places) for w in words))
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


def test_a_place_that_cannot_be_written_is_exit_code_1(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    result = ratchet("compare", run, "--out", run / "config.toml" / "x")
    assert result.exit_code == 1
    assert "cannot be written" in result.output
