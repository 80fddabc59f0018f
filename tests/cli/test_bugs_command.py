"""``ratchet bugs``: what it says, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from borrowed import POND, need_sandbox
from click.testing import CliRunner, Result

from ratchet.bugs.allowed import Reason
from ratchet.bugs.ledger import Fate, Ledger
from ratchet.bugs.make import Wishes
from ratchet.bugs.produce import Asked, Done
from ratchet.bugs.sources import Library
from ratchet.cli.bugs import BugView, end_text, progress_text
from ratchet.cli.main import main


def ratchet(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words])


def test_a_folder_becomes_a_file_that_the_recipe_reads(tmp_path: Path) -> None:
    need_sandbox()
    out = tmp_path / "bugs.jsonl"
    result = ratchet(
        "bugs",
        POND / "tables.py",
        "--out",
        out,
        "--per-function",
        3,
        "--reasons",
        "--timeout",
        0.4,
        "sandbox.workers=2",
    )
    assert result.exit_code == 0, result.output
    assert "functions found" in result.output
    assert "refused: uses a global that is changed or assembled" in result.output
    assert "pond.tables.remember: uses a global" in result.output
    assert f"ratchet train reproduce/kimi-dev policy.model=MODEL environment.source={out}" in result.output
    assert 1 <= len(out.read_text().splitlines()) <= 3
    checked = ratchet("check-reward", "reproduce", f"environment.source={out}", "environment.held_out=0", "--tasks", 2)
    assert "Nothing amiss." in checked.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["no_such_package"], "no folder and no installed package of that name"),
        (["math"], "it has no Python source"),
        (["."], "no Python source there"),
        (["broken.py"], "broken.py:1: not Python"),
        (["values.py"], "no functions at the top of its 1 modules"),
        (
            ["impure.py"],
            "nothing usable in 2 functions. 1 of them: reads, prints or asks the system. 1 of them: random.",
        ),
        (["values.py", "sandbox.wall=1"], 'sandbox.wall is not a setting. Did you mean "wall_s"?'),
        (["values.py", "more.py"], '"more.py": one package or folder at a time'),
        (["values.py", "--tests", "none"], "none: no such file or folder"),
        (["impure.py", "sandbox.backend=none"], "Code written by the policy would run without isolation"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2_and_nothing_is_written(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_sandbox()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "values.py").write_text("x = 1\n")
    (tmp_path / "impure.py").write_text(
        "import random\ndef f(x):\n    print(x)\n    return x\ndef g(x):\n    return random.random()\n"
    )
    monkeypatch.chdir(tmp_path / "empty" if words == ["."] else tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    result = ratchet("bugs", *words, "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert "Traceback" not in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "bugs.jsonl"
    out.write_text("old\n")
    result = ratchet("bugs", POND, "--out", out)
    assert result.exit_code == 2
    assert "is there already. Choose another --out, or replace it with --force." in result.output
    assert out.read_text() == "old\n"


def test_the_end_tells_counts_that_add_up_and_what_to_look_out_for() -> None:
    ledger = Ledger(functions=3, not_reached=2, usable=1, mutants=5)
    ledger.refuse("m.g", Reason.IO, "print()")
    ledger.refuse("m.h", Reason.TIME, "")
    ledger.fates.update({Fate.KEPT: 2, Fate.TRIVIAL: 3})
    ledger.operators.update({"index": 2})
    library = Library("m", (), (), frozenset(), "m 1.0", ("a.py:1: not Python 3.11.",), installed=True)
    asked = Asked("m", Path("my bugs.jsonl"), Wishes())
    text = end_text(asked, Done(library, ledger, 2, 40), 61.0, show_reasons=True)
    assert re.sub(" {3,}", " | ", text) == (
        "\nm.g: reads, prints or asks the system (print())\nm.h: asks for the time\n\n"
        "m (m 1.0): 2 bugs in 1 min 01 s, 40 runs in the sandbox\n\n"
        "functions found | 5\n"
        "  used | 1\n"
        "  refused: reads, prints or asks the system | 1\n"
        "  refused: asks for the time | 1\n"
        "  not looked at: there were lines enough | 2\n\n"
        "mutants run | 5\n"
        "  kept | 2\n"
        "  trivial: too many inputs reveal it | 3\n\n"
        "Changed: index 2\n\n"
        "Left out: a.py:1: not Python 3.11.\n"
        "Take care: m is installed where the sandbox can read it, so a policy's test could import it and compare. "
        "Uninstall it from this Python before you train; the lines do not need it.\n"
        "my bugs.jsonl is written. Train on it: ratchet train reproduce/kimi-dev policy.model=MODEL "
        "environment.source='my bugs.jsonl'"
    )


def test_the_live_view_shows_how_far_it_is() -> None:
    view = BugView()
    assert view.render().plain == "reading sources ..."
    view.now("functions", 10, 40, 7)
    assert view.render().plain.endswith("10 of 40 functions, 7 bugs")
    assert progress_text("lines checked", 3, 4, 4) == "3 of 4 lines checked, 4 bugs"


def test_help_names_what_it_takes() -> None:
    help_text = ratchet("bugs", "--help").output
    assert "PACKAGE_OR_FOLDER" in help_text
    assert "--reveal-max" in help_text
    assert json.dumps("bugs") not in help_text
