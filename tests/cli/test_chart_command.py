import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ratchet.cli.main import main


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "verl.jsonl"
    with path.open("w") as lines:
        for k in range(1, 31):
            row = {"critic/score/mean": k / 30 + random.Random(k).gauss(0, 0.01), "response_length/mean": 400.0 + k}
            lines.write(json.dumps({"step": k, "data": row}) + "\n")
    return path


def ratchet(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_chart_draws_a_log_in_a_study_s_style_where_it_is_told_to(log: Path, tmp_path: Path) -> None:
    result = ratchet("chart", log, "--style", "judge", "--phases", "trend", "--out", tmp_path / "figure.png")
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(tmp_path / "figure.png"), str(tmp_path / "figure.svg")]
    assert "Response Length: from 403 tokens to 428 tokens" in (tmp_path / "figure.txt").read_text()


def test_report_of_a_log_is_written_where_it_is_told_to(log: Path, tmp_path: Path) -> None:
    result = ratchet("report", log, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(tmp_path / "report" / name) for name in ("report.md", "report.html")]
    assert "It learned: `reward/mean` rose" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("command", ["chart", "report"])
def test_what_is_no_log_of_reinforcement_learning_ends_with_2_and_a_sentence(command: str, tmp_path: Path) -> None:
    (tmp_path / "binary.log").write_bytes(bytes(range(256)) * 400)
    (tmp_path / "empty.jsonl").write_text("")
    tuned = [{"loss": 2.0, "learning_rate": 1e-5, "epoch": k / 9, "step": k, "grad_norm": 1.0} for k in range(9)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": tuned, "global_step": 9}))
    for name in ("binary.log", "empty.jsonl", "trainer_state.json", "missing"):
        result = ratchet(command, tmp_path / name)
        assert result.exit_code == 2, (name, result.output)
        assert name in result.output
        assert "Traceback" not in result.output
