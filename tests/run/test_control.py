"""What a person asks of a run that goes on: it obeys between two steps, and every act is an event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from builders import within
from runs import rows, weights

from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.run.launch import resume, train
from ratchet.run.observer import Silent
from ratchet.store.control import Act, ask
from ratchet.store.run_store import RunStore

Make = Callable[..., RunConfig]


class Asking(Silent):
    """Asks things of the run it watches when a step is done, or when it waits."""

    def __init__(self, folder: Path, at: Mapping[int, list[tuple[Act, int]]], paused: list[Act] | None = None) -> None:
        self.folder, self.at, self.paused = folder, dict(at), list(paused or ())
        self.waits: set[str] = set()

    def step(self, row: Mapping[str, float], total: int) -> None:
        for act, step in self.at.pop(int(row["step"]), []):
            ask(self.folder, act, step=step, text="a note" if act is Act.NOTE else "")

    def waiting(self, now: Mapping[str, Mapping[str, object]]) -> None:
        causes = {str(wait["for"]) for wait in now.values()}
        self.waits |= causes
        if "pause" in causes and self.paused:
            ask(self.folder, self.paused.pop(0))


def acts(folder: Path) -> list[str]:
    return [event["act"] for event in RunStore.open(folder).events() if event["kind"] == "act"]


def test_a_paused_run_waits_for_a_person_and_then_makes_the_same_weights(config: Make, tmp_path: Path) -> None:
    plain = train(config(folder=tmp_path / "a")).folder
    folder = tmp_path / "b" / "run"
    asking = Asking(folder, {1: [(Act.NOTE, -1), (Act.PAUSE, -1)]}, [Act.CHECKPOINT, Act.GO_ON])
    with within(300):
        assert train(config(folder=tmp_path / "b"), asking).finished
    assert acts(folder) == ["note", "pause", "checkpoint", "go_on"]
    assert "pause" in asking.waits
    events = RunStore.open(folder).events()
    assert [e["step"] for e in events if e["kind"] == "act"] == [2, 2, 2, 2]
    assert [e["step"] for e in events if e["kind"] == "checkpoint"] == [0, 2, 3, 6]
    assert next(e for e in events if e["kind"] == "act")["text"] == "a note"
    assert sum(row.get("wait/trainer_for_pause", 0.0) for row in RunStore.open(folder).metrics()) > 0
    assert (rows(folder), weights(folder)) == (rows(plain), weights(plain))


def test_a_stop_that_was_asked_for_ends_the_run_cleanly_and_it_goes_on(config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with within(300):
        result = train(config(), Asking(folder, {1: [(Act.STOP, -1)]}))
    assert not result.finished
    store = RunStore.open(folder)
    assert (store.status()["state"], store.status()["step"]) == ("stopped", 2)
    assert acts(folder) == ["stop"]
    with within(300):  # what was asked of the process before is past
        assert resume(folder).finished


def test_a_rolled_back_run_goes_on_from_its_checkpoint_as_if_it_had_never_been_further(
    config: Make, tmp_path: Path
) -> None:
    folder = train(config()).folder
    before = weights(folder), rows(folder)
    ask(folder, Act.ROLL_BACK, step=3)
    assert resume(folder).finished
    assert (weights(folder), rows(folder)) == before
    events = RunStore.open(folder).events()
    back = next(e for e in events if e["kind"] == "rolled_back")
    assert (back["step"], back["put_aside"]) == (3, ["step_000006"])
    assert (folder / "checkpoints" / "rolled_back_step_000006").is_dir()
    resume(folder)  # done once, not again
    assert sum(e["kind"] == "rolled_back" for e in RunStore.open(folder).events()) == 1


def test_a_checkpoint_that_is_not_there_cannot_be_gone_back_to(config: Make) -> None:
    folder = train(config()).folder
    ask(folder, Act.ROLL_BACK, step=4)
    with pytest.raises(ConfigError, match=r"no sound checkpoint of it\. There are: 0, 3, 6"):
        resume(folder)
