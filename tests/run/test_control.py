"""What a person asks of a run that goes on: it obeys between two steps, and every act is an event."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from builders import within
from runs import rows, weights

from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.run.guard import Alarm, TurnBack
from ratchet.run.launch import resume, train
from ratchet.run.observer import Silent
from ratchet.run.turning import clear_away, declare
from ratchet.store.control import Act, ask
from ratchet.store.run_store import Row, RunStore

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


class Dies(Asking):
    """Is killed when a step is done, or when a word is noted."""

    def __init__(self, folder: Path, at: Mapping[int, list[tuple[Act, int]]], step: int = -1, word: str = "\0") -> None:
        super().__init__(folder, at)
        self.last, self.word = step, word

    def step(self, row: Mapping[str, float], total: int) -> None:
        super().step(row, total)
        if row["step"] == self.last:
            raise MemoryError("killed")

    def note(self, text: str) -> None:
        if self.word in text:
            raise MemoryError("killed")


def turns(folder: Path) -> list[tuple[str, int]]:
    return [(e["kind"], e["step"]) for e in RunStore.open(folder).events() if e["kind"] in ("rollback", "turned_back")]


def test_a_run_that_goes_on_turns_back_at_once_as_if_it_had_never_been_further(config: Make, tmp_path: Path) -> None:
    plain = train(config(folder=tmp_path / "a")).folder
    folder = tmp_path / "b" / "run"
    with within(300):  # paused first, so that nothing but the roll-back can let it go on
        assert train(config(folder=tmp_path / "b"), Asking(folder, {4: [(Act.PAUSE, -1), (Act.ROLL_BACK, 3)]})).finished
    assert (rows(folder), weights(folder)) == (rows(plain), weights(plain))
    assert acts(folder) == ["pause", "roll_back"]
    assert turns(folder) == [("rollback", 5), ("turned_back", 3)]
    rollback = next(e for e in RunStore.open(folder).events() if e["kind"] == "rollback")
    assert (rollback["request"], rollback["to"], rollback["reason"]) == (2, 3, "A person asked for it.")
    assert [[row["step"] for row in left] for left in RunStore.open(folder).abandoned()] == [[3, 4]]


def test_a_finished_run_turns_back_when_it_is_resumed_and_once(config: Make, tmp_path: Path) -> None:
    folder = train(config()).folder
    before = weights(folder), rows(folder)
    ask(folder, Act.ROLL_BACK, step=0)
    ask(folder, Act.ROLL_BACK, step=3)  # the last word counts
    assert resume(folder).finished
    assert (weights(folder), rows(folder)) == before
    assert turns(folder) == [("rollback", 6), ("turned_back", 3)]
    resume(folder)
    assert turns(folder) == [("rollback", 6), ("turned_back", 3)]


@pytest.mark.parametrize(
    "moments",
    [
        ("recorded", "half cleared"),
        pytest.param(("asked", "decided", "cleared", "one more asked", "killed when done"), marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_moment_of_a_roll_back_loses_nothing(
    config: Make, tmp_path: Path, moments: Sequence[str]
) -> None:
    with pytest.raises(MemoryError):
        train(config("record.checkpoint_every=1"), Dies(tmp_path / "run", {}, step=4))
    plain = shutil.copytree(tmp_path / "run", tmp_path / "plain")
    assert resume(plain).finished
    for moment in moments:
        folder = shutil.copytree(tmp_path / "run", tmp_path / moment)
        store, asked = RunStore(folder), ask(folder, Act.ROLL_BACK, step=3)
        ask(folder, Act.STOP)  # too late: nobody works on the run
        if moment not in ("asked", "killed when done"):
            store.append_event("act", 5, act="roll_back", number=asked.number, to=3)
        if moment in ("decided", "half cleared", "cleared", "one more asked"):
            declare(store, 5, TurnBack(3, "A person asked for it.", None, asked.number))
        if moment == "half cleared":
            shutil.rmtree(folder / "checkpoints" / "step_000004")
        if moment == "cleared":
            clear_away(store, store.events()[-1])
        if moment == "one more asked":
            ask(folder, Act.ROLL_BACK, step=1)
        if moment == "killed when done":
            with pytest.raises(MemoryError):
                resume(folder, Dies(folder, {}, word="Turned back"))
        with within(300):
            assert resume(folder).finished
        assert (rows(folder), weights(folder)) == (rows(plain), weights(plain)), moment
        assert turns(folder)[-1] == ("turned_back", 1 if moment == "one more asked" else 3)
        assert sum(kind == "rollback" for kind, _ in turns(folder)) == 1 + (moment == "one more asked")


def test_a_roll_back_and_a_stop_end_the_run_and_it_turns_back_when_resumed(config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with within(300):
        assert not train(config(), Asking(folder, {4: [(Act.ROLL_BACK, 3), (Act.STOP, -1)]})).finished
        assert turns(folder) == []
        assert resume(folder).finished
    assert turns(folder) == [("rollback", 5), ("turned_back", 3)]


def test_where_the_guard_turns_back_first_the_person_still_gets_their_way(config: Make, tmp_path: Path) -> None:
    def once(settings: RunConfig, table: Sequence[Row]) -> list[Alarm]:
        bad = table[-1]["step"] == 4 and not any(kind == "rollback" for kind, _ in turns(tmp_path / "run"))
        return [Alarm("fell", "error", "reward/mean", 4, "It fell.")] if bad else []

    class Early(Asking):
        def step(self, row: Mapping[str, float], total: int) -> None:
            super().step(row, total)
            if row["step"] == 4 and not self.seen:  # the act is recorded before the guard looks
                self.seen = True
                RunStore(self.folder).append_event("act", 5, act="roll_back", number=1, to=0)

        seen = False

    guarded = config("guard.enabled=true", "guard.start=0", "guard.remedies=[]", "record.checkpoint_every=1")
    asking = Early(tmp_path / "run", {4: [(Act.ROLL_BACK, 0)]})
    with within(300):
        assert train(guarded, asking, diagnose=once).finished
    assert turns(tmp_path / "run") == [("rollback", 5), ("turned_back", 3), ("rollback", 3), ("turned_back", 0)]


def test_a_checkpoint_that_is_not_there_cannot_be_gone_back_to(config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with within(300):
        train(config(), Asking(folder, {1: [(Act.ROLL_BACK, 2)]}))  # it goes on
    assert "no sound checkpoint" in next(e for e in RunStore.open(folder).events() if e["kind"] == "act")["refused"]
    ask(folder, Act.ROLL_BACK, step=4)
    with pytest.raises(ConfigError, match=r"no sound checkpoint of it\. It can go back to: 0, 3, 6"):
        resume(folder)
