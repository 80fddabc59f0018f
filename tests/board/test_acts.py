"""What a person may ask of a run through the page, and when."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from boards import MakeRun
from starlette.testclient import TestClient

from ratchet.store.control import Act, ask, is_alive, is_held, requests
from ratchet.store.run_store import RunStore

IdOf = Callable[[str], str]
OWN = {"origin": "http://localhost", "x-ratchet": "board"}


@contextmanager
def going_on(store: RunStore, waiting: dict[str, object] | None = None) -> Iterator[None]:
    """Hold a run's lock and say that it runs, as a process that trains does."""
    store.write_status(
        {"state": "running", "pid": os.getpid(), "step": 3, "steps": 40, "waiting": waiting or {}, "time": time.time()}
    )
    with (store.folder / "run.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def acts(client: TestClient, id_: str) -> list[str]:
    return list(client.get(f"/api/runs/{id_}").json()["acts"])


def test_only_a_run_that_goes_on_on_this_machine_can_be_asked(
    make_run: MakeRun, client: TestClient, id_of: IdOf
) -> None:
    store = make_run("one", state="stopped")
    (store.folder / "checkpoints" / "step_000010").mkdir()
    id_ = id_of("one")
    assert acts(client, id_) == ["roll_back"]
    answer = client.post(f"/api/runs/{id_}/acts", json={"act": "stop"}, headers=OWN)
    assert (answer.status_code, "stopped" in answer.json()["error"]) == (404, True)
    with going_on(store):
        assert acts(client, id_) == ["pause", "checkpoint", "stop", "roll_back", "note"]
        answer = client.post(f"/api/runs/{id_}/acts", json={"act": "stop"}, headers=OWN)
        assert answer.json() == {"number": 1, "act": "stop"}
    with going_on(store, {"trainer": {"for": "pause", "since": 1.0}}):
        assert "go_on" in acts(client, id_)
    store.write_status({"state": "running", "pid": os.getpid(), "step": 3, "steps": 40, "waiting": {}})
    assert acts(client, id_) == []  # copied from elsewhere: it says that it runs, and nobody holds it
    assert [r.act for r in requests(store.folder)] == [Act.STOP]


@pytest.mark.parametrize(
    "body",
    [
        {"act": "dance"}, {"act": "note"}, {"act": "note", "text": " "}, {"act": "note", "text": "x" * 3000},
        {"act": "roll_back", "step": 7}, {"act": "roll_back"}, {"act": "note", "text": 3}, {},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_never_written(
    make_run: MakeRun, client: TestClient, id_of: IdOf, body: dict[str, object]
) -> None:
    store = make_run("one")
    (store.folder / "checkpoints" / "step_000010").mkdir()
    with going_on(store):
        answer = client.post(f"/api/runs/{id_of('one')}/acts", json=body, headers=OWN)
    assert answer.status_code == 404
    assert requests(store.folder) == []


def test_a_request_is_on_disk_with_its_number_and_a_damaged_line_keeps_its_own(tmp_path: Path) -> None:
    assert ask(tmp_path, Act.NOTE, text="größer").number == 1
    with (tmp_path / "control.jsonl").open("ab") as file:
        file.write(b'{"act": "fly"}\nnonsense\n')
    asked = ask(tmp_path, Act.ROLL_BACK, step=20)
    assert [(r.number, r.act, r.text, r.step) for r in requests(tmp_path)] == [
        (1, Act.NOTE, "größer", -1), (asked.number, Act.ROLL_BACK, "", 20),
    ]  # fmt: skip
    assert asked.number == 4


def test_a_run_is_held_while_a_process_has_its_lock(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with (tmp_path / "run.lock").open("w") as file:
        assert not is_held(tmp_path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_a_process_is_alive_or_not() -> None:
    assert is_alive(os.getpid())
    assert not is_alive(2**22 + 9)
