"""The guard: what it does about a finding, that it turns back exactly, and that a kill on the way changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from runs import Notes, rows, weights

from ratchet.config.schema import RunConfig
from ratchet.core.errors import RunError
from ratchet.run.guard import Alarm, TurnBack
from ratchet.run.launch import resume, train
from ratchet.run.observer import Silent
from ratchet.run.remedy import choose_remedy
from ratchet.run.turning import declare
from ratchet.store.run_store import Row, RunStore

Config = Callable[..., RunConfig]
GUARD = ("guard.enabled=true", "guard.start=0", "guard.remedies=['lr']", "record.checkpoint_every=1")


class At:
    """Finds something once a step is there; the same again at every later look."""

    def __init__(self, *steps: int, severity: str = "error", first: int | None = None) -> None:
        self._steps, self._severity, self._first = steps, severity, first
        self.looks: list[int] = []

    def __call__(self, config: RunConfig, table: Sequence[Row]) -> list[Alarm]:
        now = table[-1]["step"]
        self.looks.append(now)
        return [
            Alarm(f"rule {s}", self._severity, "reward/mean", self._first if self._first is not None else s, "It fell.")
            for s in self._steps
            if now >= s
        ]


class Once(At):
    """Finds something the first time a step is there, and is content with all that follows."""

    def __call__(self, config: RunConfig, table: Sequence[Row]) -> list[Alarm]:
        found = super().__call__(config, table)
        self._steps = () if found else self._steps
        return found


class Dies(Silent):
    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, row: dict[str, float], total: int) -> None:
        if row["step"] == self._step:
            raise MemoryError("killed")


def kinds(folder: Path, *wanted: str) -> list[str]:
    return [e["kind"] for e in RunStore.open(folder).events() if e["kind"] in wanted]


def stopped_and_changed(config: Config, folder: Path) -> Path:
    """A run of three steps that somebody stopped, and took up again with a third of the learning rate."""
    with pytest.raises(MemoryError):
        train(config(*GUARD, folder=folder), Dies(2), diagnose=lambda config, table: [])
    resume(folder / "run", words=["algorithm.lr=3e-3"], accept_changes=True, diagnose=lambda config, table: [])
    return folder / "run"


def test_it_turns_back_to_the_last_good_checkpoint_and_goes_on_as_if_a_person_had(
    config: Config, tmp_path: Path
) -> None:
    notes = Notes()
    assert train(config(*GUARD), notes, diagnose=Once(4)).finished
    run = tmp_path / "run"
    by_hand = stopped_and_changed(config, tmp_path / "hand")
    assert [row["step"] for row in rows(run)] == list(range(6))
    assert rows(run) == rows(by_hand)
    assert weights(run) == weights(by_hand)
    (turn,) = [e for e in RunStore.open(run).events() if e["kind"] == "rollback"]
    assert (turn["to"], turn["remedy"], turn["reason"]) == (3, "lr", "It fell.")
    assert [[row["step"] for row in left] for left in RunStore.open(run).abandoned()] == [[3, 4]]
    assert RunStore.open(run).config_tree()["algorithm"]["lr"] == 3e-3
    assert any(
        "Turned back from step 5 to step 3: smaller steps (algorithm.lr 0.01 -> 0.003)" in n for n in notes.notes
    )


@pytest.mark.parametrize("cleared", [False, True])
def test_a_run_killed_while_it_turns_back_turns_back(config: Config, tmp_path: Path, cleared: bool) -> None:
    settings = config(*GUARD)
    with pytest.raises(MemoryError):
        train(settings, Dies(4), diagnose=lambda config, table: [])
    store = RunStore.open(tmp_path / "run")
    declare(store, 5, TurnBack(3, "It fell.", choose_remedy(settings, 3, [])))
    if cleared:
        store.rewind(3)
    assert resume(tmp_path / "run", diagnose=lambda config, table: []).finished
    by_hand = stopped_and_changed(config, tmp_path / "hand")
    assert rows(tmp_path / "run") == rows(by_hand)
    assert weights(tmp_path / "run") == weights(by_hand)
    assert kinds(tmp_path / "run", "turned_back", "resume") == ["turned_back"]


def test_a_run_killed_after_it_turned_back_goes_on_without_being_asked(config: Config, tmp_path: Path) -> None:
    class DiesTwice(Silent):
        def note(self, text: str) -> None:
            if text.startswith("Turned back"):
                raise MemoryError("killed")

    with pytest.raises(MemoryError):
        train(config(*GUARD), DiesTwice(), diagnose=Once(4))
    assert resume(tmp_path / "run", diagnose=lambda config, table: []).finished
    assert rows(tmp_path / "run") == rows(stopped_and_changed(config, tmp_path / "hand"))


def test_with_stale_samplers_it_goes_back_to_weights_that_were_seen_to_work(config: Config, tmp_path: Path) -> None:
    # Steps 4 and 5 are sampled with version 4; the harm shows at 4, so checkpoint 3 was never seen to sample.
    train(config(*GUARD, "sync.interval=2"), diagnose=Once(4))
    (turn,) = [e for e in RunStore.open(tmp_path / "run").events() if e["kind"] == "rollback"]
    assert turn["to"] == 2


def test_what_was_sampled_by_the_settings_before_is_sampled_anew(config: Config, tmp_path: Path) -> None:
    words = ("sync.interval={kind='steps', values={0=1, 2=4}}", "guard.remedies=['sync']", "train.steps=7")
    train(config(*GUARD, *words), diagnose=Once(6))
    assert [row["stale/max"] for row in rows(tmp_path / "run")] == [0, 0, 0, 0, 0, 0, 0]
    assert [row["stale/max"] for row in RunStore.open(tmp_path / "run").abandoned()[0]] == [0, 1, 2, 3, 0]


def test_where_turning_back_has_not_helped_it_goes_further_back_and_then_stops(config: Config, tmp_path: Path) -> None:
    class Again(At):
        def __call__(self, config: RunConfig, table: Sequence[Row]) -> list[Alarm]:
            return [Alarm("fell", "error", "reward/mean", 4, "It fell.")] if table[-1]["step"] == 4 else []

    with pytest.raises(RunError, match=r"The guard stopped the run after step 4: It fell\."):
        train(
            config(*GUARD, "guard.rollbacks=2", "record.keep_checkpoints=1", "guard.remedies=['lr', 'kl']"),
            diagnose=Again(),
        )
    turns = [e for e in RunStore.open(tmp_path / "run").events() if e["kind"] == "rollback"]
    assert [(turn["to"], turn["remedy"]) for turn in turns] == [(3, "lr"), (1, "kl")]  # 2 was not held
    assert RunStore.open(tmp_path / "run").status()["state"] == "stopped_by_guard"


def test_a_pause_is_left_by_resume_and_the_same_finding_does_not_pause_again(config: Config, tmp_path: Path) -> None:
    paused = train(config(*GUARD, "guard.on_error=pause"), diagnose=At(3))
    assert not paused.finished
    assert RunStore.open(tmp_path / "run").status()["state"] == "paused"
    assert resume(tmp_path / "run", diagnose=At(3)).finished
    straight = train(config(*GUARD, folder=tmp_path / "straight"), diagnose=lambda config, table: [])
    assert weights(tmp_path / "run") == weights(straight.folder)


def test_a_warning_is_told_once_and_keeps_the_checkpoint_before_it(config: Config, tmp_path: Path) -> None:
    settings = config(*GUARD, "record.keep_checkpoints=1", "train.steps=9")
    train(settings, diagnose=At(3, severity="warning", first=3))
    events = [e for e in RunStore.open(tmp_path / "run").events() if e["kind"] == "guard"]
    assert [(e["step"], e["action"], e["kept"]) for e in events] == [(3, "keep", [2])]
    assert (tmp_path / "run" / "checkpoints" / "step_000002").is_dir()
    assert not (tmp_path / "run" / "checkpoints" / "step_000003").is_dir()


def test_the_checkpoint_to_turn_back_to_stays_however_few_are_kept(config: Config, tmp_path: Path) -> None:
    settings = config(*GUARD, "record.keep_checkpoints=1", "sync.interval=4", "train.steps=7")
    train(settings, diagnose=Once(6))
    (turn,) = [e for e in RunStore.open(tmp_path / "run").events() if e["kind"] == "rollback"]
    assert turn["to"] == 4


def test_nothing_is_looked_at_unless_it_is_enabled_nor_before_its_start(config: Config, tmp_path: Path) -> None:
    off, late = At(0), At(9)
    train(config(), diagnose=off)
    train(config(*GUARD, "guard.start=3", "guard.every=2", folder=tmp_path / "late"), diagnose=late)
    assert (off.looks, late.looks) == ([], [4])


def test_remedies_come_in_order_and_only_where_they_apply(config: Config) -> None:
    stale = config("sync.interval={kind='steps', values={0=1, 2=20}}", "guard.enabled=true")
    names = [choose_remedy(stale, 5, used).name for used in ((), ("sync",), ("sync", "lr"), ("sync", "lr", "kl"))]
    assert names == ["sync", "lr", "kl", "mask"]
    assert choose_remedy(stale, 5, ()).changes == {"sync": {"interval": 5}}
    assert choose_remedy(stale, 5, (), wanted=("kl",)).changes == {"algorithm": {"kl_coef": 0.01}}
    fresh = config("guard.enabled=true")
    assert choose_remedy(fresh, 5, ()).name == "lr"
    assert choose_remedy(config("guard.remedies=[]"), 5, ()) is None
    assert choose_remedy(config("guard.remedies=['sync']"), 5, ()) is None
    assert choose_remedy(config("guard.remedies=['optimiser']"), 5, ()).fresh_optimiser
    masked = config("guard.remedies=['mask']", "algorithm.correction=token", "algorithm.correction_mode=mask",
                    "algorithm.correction_low=0.5")  # fmt: skip
    narrower = choose_remedy(masked, 5, ()).changes["algorithm"]
    assert (narrower["correction_low"], narrower["correction_high"]) == (0.75, 1.5)


def test_a_changed_setting_is_told_with_both_values_when_it_is_put_in_place(config: Config, tmp_path: Path) -> None:
    train(config(*GUARD), diagnose=Once(4))
    (change,) = [e for e in RunStore.open(tmp_path / "run").events() if e["kind"] == "config_changed"]
    assert [(c["key"], c["before"], c["after"]) for c in change["changes"]] == [("algorithm.lr", 0.01, 0.003)]
    assert (tmp_path / "run" / "config-until-step-3.toml").is_file()
