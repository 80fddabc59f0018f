"""What `ratchet serve` refuses before it listens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import tiny_policy
from click.testing import CliRunner

from ratchet.cli.main import main
from ratchet.cli.serve import Asked, open_model
from ratchet.core.errors import ConfigError
from ratchet.serve.address import hosts_of, is_own, token_for

pytest.importorskip("uvicorn")


def test_another_address_than_ones_own_needs_a_token_of_some_length(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RATCHET_SERVE_TOKEN", raising=False)
    asked = CliRunner().invoke(main, ["serve", str(tmp_path), "--host", "0.0.0.0"])
    assert (asked.exit_code, "a token is required. Set RATCHET_SERVE_TOKEN" in asked.output) == (2, True)
    monkeypatch.setenv("RATCHET_SERVE_TOKEN", "short")
    with pytest.raises(ConfigError, match="fewer than 16"):
        token_for("0.0.0.0", "--host")
    monkeypatch.setenv("RATCHET_SERVE_TOKEN", "a-long-random-token")
    assert token_for("0.0.0.0", "--host") == "a-long-random-token"


def test_only_loopback_counts_as_ones_own() -> None:
    assert [is_own(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "192.168.0.4", "example.org")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert "*" not in hosts_of("127.0.0.1")


def test_a_folder_that_is_no_model_is_a_sentence(tmp_path: Path) -> None:
    for words, said in [
        ([str(tmp_path / "none")], "there is no such folder"),
        ([str(tmp_path), "--step", "3"], "is no run folder"),
    ]:
        result = CliRunner().invoke(main, ["serve", *words, "--port", "0"])
        assert (result.exit_code, "Traceback" in result.output) == (2, False)
        assert said in result.output


def test_what_a_model_lacks_is_told_before_it_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tiny_policy()
    policy.save(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    kept = {name: value for name, value in json.loads(settings.read_text()).items() if name != "chat_template"}
    settings.write_text(json.dumps(kept))
    asked = Asked(tmp_path, None, "", "127.0.0.1", 0, 0, 4, "cpu", "float32", 0, 60.0, 60, 4, 1 << 20)
    open_model(asked).engine.close()
    assert "no chat template: completions are answered" in capsys.readouterr().out
