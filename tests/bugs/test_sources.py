"""What is read of a package, and what is said where it cannot be."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from borrowed import POND, pond

from ratchet.bugs.sources import functions_of, read_library
from ratchet.core.errors import ConfigError


def test_a_folder_is_read_with_its_tests_apart() -> None:
    library = pond()
    assert [m.name for m in library.modules] == ["pond", "pond.amounts", "pond.tables", "pond.words"]
    assert len(library.tests) == 1
    assert "class Amounts" in library.tests[0]
    names = [f.name for m in library.modules if m.name == "pond.words" for f in functions_of(m)]
    assert names == ["initials", "headline", "count_vowels", "kebab", "longest"]


def test_reading_imports_nothing_of_a_package(tmp_path: Path) -> None:
    package = tmp_path / "loud"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\ndef f(x): return x\n")
    assert len(read_library(str(package)).modules) == 1
    assert "loud" not in sys.modules


def test_a_module_of_a_package_is_asked_for_alone_but_may_use_the_others() -> None:
    library = read_library(str(POND / "words.py"))
    assert {path.name for path in library.chosen} == {"words.py"}
    assert "pond.tables" in library.by_name


def test_an_installed_package_is_found_by_its_name_and_by_that_of_its_distribution() -> None:
    by_name, by_module = read_library("click"), read_library("click.utils")
    assert by_name.version == f"click {version('click')}"
    assert by_name.installed
    assert [path.name for path in by_module.chosen] == ["utils.py"]
    assert read_library("pytest-xdist").version.startswith("pytest-xdist ")
    assert not pond().installed


def test_files_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text("def f(x): return x\n")
    assert [m.name for m in read_library(str(tmp_path)).modules] == ["same", "same2"]


def test_what_cannot_be_read_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("def f(x): return x\n")
    (tmp_path / "old.py").write_text("x = 1\nprint 'x'\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: utf-8 -*-\nx = '\xe9'\n")
    (tmp_path / "unknown.py").write_bytes(b"# -*- coding: klingon -*-\n")
    library = read_library(str(tmp_path))
    assert [m.name for m in library.modules] == ["good"]
    told = "\n".join(library.unread)
    assert "old.py:2: not Python 3" in told
    assert "latin.py: not readable" in told
    assert "unknown.py: not readable" in told


def test_a_file_in_another_encoding_is_read_by_what_it_declares(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\ndef f(x):\n    return x + '\xe9'\n")
    (module,) = read_library(str(tmp_path)).modules
    assert "é" in module.source


def test_folders_that_are_nobodys_source_are_passed_over(tmp_path: Path) -> None:
    for folder in (".hidden", "build", "docs", "own-env", "src"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.py").write_text("def f(x): return x\n")
    (tmp_path / "own-env" / "pyvenv.cfg").touch()
    (tmp_path / "setup.py").write_text("def f(x): return x\n")
    assert [m.path.parent.name for m in read_library(str(tmp_path)).modules] == ["src"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("no_such_package", "no folder and no installed package of that name"),
        ("click.nothing", "click is installed, but holds no nothing"),
        ("no/such/folder", "no such file or folder"),
        ("missing.py", "no such file or folder"),
        ("math", "no Python source"),
        ("", "no folder and no installed package"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(what: str, told: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=told):
        read_library(what or "__")


def test_an_empty_folder_and_a_broken_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Python source there"):
        read_library(str(tmp_path))
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    with pytest.raises(ConfigError, match=r"broken.py:1: not Python 3.*Correct it"):
        read_library(str(broken))
    with pytest.raises(ConfigError, match="--tests names files"):
        read_library(str(POND), [tmp_path / "none"])
