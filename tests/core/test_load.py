"""User code by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.core.errors import ConfigError
from ratchet.core.load import LoadError, is_path, load_object, require_library


def test_a_path_is_a_file_or_a_module_and_a_name() -> None:
    assert is_path("a/b.py:reward")
    assert is_path("package.module:Name")
    assert not is_path("judge")
    assert not is_path("a.py:")
    assert not is_path(":reward")
    assert not is_path("a.py:not a name")


def test_a_file_may_import_its_neighbour_and_is_executed_once(tmp_path: Path) -> None:
    (tmp_path / "a_neighbour_of_mine.py").write_text("VALUE = 41\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "from a_neighbour_of_mine import VALUE\nNOTES = []\ndef reward(task, text):\n    return VALUE + 1\n"
    )
    reward = load_object(f"{file}:reward")
    assert callable(reward)
    assert reward(None, "") == 42
    assert load_object(f"{file}:NOTES") is load_object(f"{file}:NOTES")


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for folder, value in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"VALUE = {value}\n")
    assert load_object(f"{tmp_path}/one/same.py:VALUE") == 1
    assert load_object(f"{tmp_path}/two/same.py:VALUE") == 2


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def rewrd(): ...\n", 'does not define "reward". Did you mean "rewrd"'),
        ("1/0\n", "ZeroDivisionError: division by zero (mine.py, line 1)"),
        ("import no_such_module\n", "ModuleNotFoundError"),
        ("def (\n", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(tmp_path: Path, source: str, told: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises(LoadError) as caught:
        load_object(f"{file}:reward")
    assert told in str(caught.value)
    assert "mine.py" in str(caught.value)


def test_a_missing_library_names_the_extra_that_brings_it() -> None:
    require_library("json", extra="gym", purpose="this")
    with pytest.raises(ConfigError, match=r"ratchet\[gym\]"):
        require_library("no_such_library_at_all", extra="gym", purpose="The task")
