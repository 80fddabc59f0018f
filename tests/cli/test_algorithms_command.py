"""`ratchet algorithms`: the table describes itself."""

from __future__ import annotations

import inspect

import pytest
from click.testing import CliRunner

from ratchet.algorithms.table import ALGORITHMS
from ratchet.cli.main import main


def test_the_list_shows_every_row_with_its_equation() -> None:
    shown = CliRunner().invoke(main, ["algorithms"])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    for name in ALGORITHMS:
        at = lines.index(name)
        assert "=" in lines[at + 2], f"{name} shows no equation"


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_row_is_described_with_all_its_options_and_defaults(name: str) -> None:
    shown = CliRunner().invoke(main, ["algorithms", name])
    assert shown.exit_code == 0
    for option, parameter in inspect.signature(ALGORITHMS[name]).parameters.items():
        default = parameter.default
        assert f"  {option} = {str(default).lower() if isinstance(default, bool) else default}" in shown.output


def test_an_unknown_algorithm_names_the_nearest_one() -> None:
    shown = CliRunner().invoke(main, ["algorithms", "grop"])
    assert shown.exit_code == 2
    assert 'Did you mean "grpo"?' in shown.output
