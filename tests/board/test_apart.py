"""The process that diagnoses: what it answers, and that nothing it does hurts the board or outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import MakeRun
from diagnoses import by_name
from starlette.testclient import TestClient

from ratchet.board.apart import Apart, Lost
from ratchet.board.board import Board
from ratchet.board.server import make_app

ASKING = """
import signal
from pathlib import Path
from diagnoses import by_name
from ratchet.board.apart import Apart, Lost

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what they start with & ignore it
    apart = Apart(by_name)
    try:
        apart.look(Path("hangs"))
    except KeyboardInterrupt:
        apart.close()
"""


@pytest.fixture
def apart() -> Iterator[Apart]:
    made = Apart(by_name)
    yield made
    made.close()


def test_another_process_answers_and_one_that_dies_is_replaced(apart: Apart) -> None:
    (found,), failed = apart.look(Path("one"))
    assert failed == ""
    assert found.sentence != f"Found by {os.getpid()}."
    assert apart.look(Path("one"))[0] == [found]  # the same process
    assert apart.look(Path("damaged")) == ([], "damaged data: row 7 is short")
    with pytest.raises(Lost, match=r"ended without an answer .exit code 3.*a new one is started"):
        apart.look(Path("dies"))
    (again,), _ = apart.look(Path("one"))
    assert again.sentence not in (found.sentence, f"Found by {os.getpid()}.")


def test_a_diagnosis_that_never_ends_is_given_up() -> None:
    apart = Apart(by_name, longest_s=0.1)
    with pytest.raises(Lost, match=r"longer than 0\.1 s.*ratchet doctor"):
        apart.look(Path("hangs"))
    apart.close()
    with pytest.raises(Lost, match="is ending"):
        apart.look(Path("one"))


def test_a_page_tells_that_its_diagnosis_died_and_shows_the_rest(make_run: MakeRun, folder: Path) -> None:
    make_run("dies")
    board = Board(folder, by_name, apart=True)
    client = TestClient(make_app(board), base_url="http://localhost")
    id_ = client.get("/api/runs").json()["runs"][0]["id"]
    board.diagnosis.wait(id_, board.library.get(id_))
    page = client.get(f"/api/runs/{id_}").json()
    assert "ended without an answer" in page["diagnosed"]["failed"]
    assert (page["findings"], page["step"]) == ([], 12)
    board.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_it_when_its_owner_is_killed_or_interrupted(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(ASKING)
    places = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "asking.py")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": places},
        start_new_session=True,
    ) as owner:  # fmt: skip
        assert owner.stdout is not None
        assert owner.stdout.readline() == "begun\n"  # the other process is in the middle of it
        os.killpg(owner.pid, how) if how is signal.SIGINT else owner.kill()
        assert owner.stdout.read() == ""  # ends only when all have ended who hold it, and nobody said a word
    assert owner.returncode == (0 if how is signal.SIGINT else -signal.SIGKILL)
