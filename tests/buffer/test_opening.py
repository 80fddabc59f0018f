"""What cannot be opened is refused with the remedy and without the password; a killed process spoils nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from builders import within
from experiences import made, put
from sqlalchemy import create_engine, text

from ratchet.buffer import database
from ratchet.buffer.groups import GroupTable
from ratchet.core.errors import ConfigError, RunError

POSTGRES = os.environ.get("RATCHET_TEST_POSTGRES", "")
SECRET = "s3cret/@word"
QUOTED = "s3cret%2F%40word"


def refusal(url: str, *, create: bool = False, name: str = "b", tokenizer: str = "t") -> str:
    with pytest.raises(ConfigError) as caught:
        GroupTable.open(url, name, tokenizer=tokenizer, create=create)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a driver's words may hold a password"
    return str(caught.value)


def test_a_name_in_use_is_refused_with_what_it_holds(opened, url: str, name: str) -> None:
    table = opened()
    for index in range(3):
        put(table, 0, index)
    assert f'"{name}"' in refusal(url, create=True, name=name)
    assert "holds 3 groups. Choose another buffer.name" in refusal(url, create=True, name=name)
    assert table.size == 3


def test_a_buffer_that_is_not_there_is_refused(opened, url: str, name: str) -> None:
    opened()
    assert "does not exist" in refusal(url, name=f"{name}-other")


def test_another_tokenizer_is_refused_naming_both(opened, url: str, name: str) -> None:
    opened(tokenizer="letters").close()
    told = refusal(url, name=name, tokenizer="words")
    assert "tokenizer letters" in told
    assert "tokenizer is words" in told
    assert "another buffer.name" in told


def test_another_schema_is_refused_naming_both_and_nothing_is_touched(opened, url: str, name: str) -> None:
    opened().close()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE ratchet_buffers SET schema = 7 WHERE name = :name"), {"name": name})
    engine.dispose()
    before = Path(url.removeprefix("sqlite:///")).read_bytes() if url.startswith("sqlite") else b""
    told = refusal(url, name=name)
    assert "schema version 7, but this version of ratchet reads schema version 1" in told
    assert "exists already. Choose" in refusal(url, name=name, create=True)
    if before:
        assert Path(url.removeprefix("sqlite:///")).read_bytes() == before
        assert os.listdir(Path(url.removeprefix("sqlite:///")).parent) == ["buffer.sqlite"]


def test_a_missing_file_is_not_made_anew(tmp_path: Path) -> None:
    assert "there is no file" in refusal(f"sqlite:///{tmp_path / 'buffer.sqlite'}")
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("Dear diary, today nothing was trained.\n" * 50)
    before = file.read_bytes()
    for create in (True, False):
        assert "file is not a database" in refusal(f"sqlite:///{file}", create=create)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("buffer.sqlite", "is not a database URL"),
        (f"postgresql://user:{QUOTED}@host:port/db", "is not a database URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////nowhere/at/all/buffer.sqlite", "there is no folder /nowhere/at/all"),
        (f"mysql://user:{QUOTED}@host/db", "mysql is not supported"),
        (f"postgresql+asyncpg://user:{QUOTED}@host/db", "not supported. Use sqlite or postgresql"),
        (f"postgresql://user:{QUOTED}@127.0.0.1:1/db", "Check host, port, user and password"),
        (f"postgresql://user@127.0.0.1:1/db?password={QUOTED}", "Check host, port, user and password"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, told: str) -> None:
    said = refusal(url, create=True)
    assert told in said
    assert SECRET not in said
    assert QUOTED not in said


@pytest.mark.skipif(not POSTGRES, reason="RATCHET_TEST_POSTGRES is unset")
def test_a_wrong_password_is_not_repeated() -> None:
    before, _, after = POSTGRES.rpartition("@")
    said = refusal(f"{before.rpartition(':')[0]}:{QUOTED}@{after}", create=True)
    assert "password authentication failed" in said
    assert ":***@" in said
    assert SECRET not in said
    assert QUOTED not in said


def test_a_password_a_driver_quotes_is_hidden() -> None:
    url = database.make_url(f"postgresql://user:{QUOTED}@host/db?sslpassword=other")
    assert database.reason(ValueError(f"bad {SECRET} and {QUOTED} and other."), url) == "bad *** and *** and ***"


def test_a_missing_driver_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.core.load.importlib.util.find_spec", lambda name: None)
    assert "pip install 'ratchet[postgres]'" in refusal("postgresql://host/db")


def test_a_database_that_fails_later_is_an_error_of_the_run(tmp_path: Path) -> None:
    file = tmp_path / "buffer.sqlite"
    table = GroupTable.open(f"sqlite:///{file}", "b", tokenizer="t", create=True)
    other = sqlite3.connect(file)
    other.execute("DROP TABLE ratchet_1_facts")
    other.close()
    with pytest.raises(RunError, match=r"failed while storing group 2 of step 5: no such table.*ratchet resume"):
        put(table, 5, 2)
    table.close()


WRITER = """
import sys
sys.path[:0] = sys.argv[3:]
from experiences import put
from ratchet.buffer.groups import GroupTable
table = GroupTable.open(sys.argv[1], sys.argv[2], tokenizer="letters", create=False)
for step in range(10_000):
    for index in range(8):
        put(table, step, index)
        print(step, index, flush=True)
    entries = table.choose(step, 4, cooldown=0, max_uses=0)
    table.use(step, entries, [e.priority - 1 for e in entries])
"""


def test_a_process_killed_while_it_writes_leaves_whole_groups_only(opened, url: str, name: str) -> None:
    opened().close()
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    process = subprocess.Popen([sys.executable, "-c", WRITER, url, name, *folders], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said: list[tuple[int, ...]] = []
    try:
        with within(60):
            for line in process.stdout:
                said.append(tuple(map(int, line.split())))
                if len(said) == 150:
                    os.kill(process.pid, signal.SIGKILL)
                    break
        # What it said before the signal met it is still in the pipe; its last line may be cut.
        said += [
            tuple(map(int, line.split())) for line in process.stdout.read().splitlines(keepends=True) if "\n" in line
        ]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    table = opened(create=False)
    steps = said[-1][0] + 2
    stored = [(step, index) for step in range(steps) for index in table.groups_at(step)]
    assert stored[: len(said)] == said
    assert len(stored) <= len(said) + 1
    assert [(g.step, g.index) for step in range(steps) for g in table.read(step)] == stored
    assert table.size == len(stored)
    assert [(g.step, g.index) for g in table.load(table.choose(steps, 10_000, cooldown=0, max_uses=0))]
    if url.startswith("sqlite"):
        check = sqlite3.connect(url.removeprefix("sqlite:///"))
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        check.close()
    last = said[-1][0]
    kept = [at for at in stored if at[0] < last]
    table.rewind(last, {v: f"f{v}" for v in range(last)})
    assert table.size == len(kept)
    table.put(made(last, 0), version=last, priority=0.0, admitted=True)
    assert table.groups_at(last) == [0]


def test_two_processes_write_to_two_buffers_of_one_database(opened, url: str, name: str) -> None:
    here = opened(name=f"{name}-2")
    opened().close()
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    process = subprocess.Popen([sys.executable, "-c", WRITER, url, name, *folders], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with within(60):
            for index, _ in zip(range(100), process.stdout, strict=False):
                put(here, 0, index)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert here.size == 100
    assert opened(create=False).size >= 100


MAKER = """
import sys
from ratchet.buffer.groups import GroupTable
input()
GroupTable.open(sys.argv[1], sys.argv[2], tokenizer="letters", create=True).close()
"""


def test_runs_that_begin_at_once_share_a_new_database(url: str, name: str) -> None:
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, url, f"{name}-{i % 3}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    try:
        with within(60):
            for maker in makers:
                assert maker.stdin is not None
                maker.stdin.write("now\n")
                maker.stdin.flush()
            said = [maker.communicate()[1] for maker in makers]
    finally:
        for maker in makers:
            maker.kill()
            maker.wait()
    # The first and the last want the same name: one of them gets it.
    refused = [text for text in said if text]
    assert sorted(maker.returncode for maker in makers) == [0, 0, 0, 1], said
    assert "exists already" in refused[0].splitlines()[-1]
