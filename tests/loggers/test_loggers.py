"""What loggers are told, and what a run notices of them: nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ratchet.config.loggers import LogSection
from ratchet.config.read import config_from_tree
from ratchet.core.errors import ConfigError
from ratchet.loggers.follower import Notice
from ratchet.loggers.logger import About
from ratchet.loggers.mark import mark_path, read_mark
from ratchet.loggers.table import Loggers, Named, make_loggers
from ratchet.store.run_store import RunStore


class Heard:
    """A logger that remembers; `fail` is asked before each call and may raise."""

    def __init__(self, fail: Callable[[str], None] = lambda call: None) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.known: list[str] = []
        self.finished: bool | None = None
        self._fail = fail

    def begin(self, about: About, known: str) -> str:
        self._fail("begin")
        self.known.append(known)
        return known or "first"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._fail(f"log {step}")
        self.steps.append((step, dict(numbers)))

    def end(self, *, finished: bool) -> None:
        self._fail("end")
        self.finished = finished


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "run", {}, {}, {})


class Clock:
    """A clock that stands still until a test moves it."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def following(
    store: RunStore, heard: Heard, *, finish_s: float = 60.0, now: Callable[[], float] = time.monotonic
) -> Loggers:
    about = About("run", store.folder, "", {})
    return Loggers([Named("wandb", heard)], store, about, finish_s=finish_s, now=now)


def wait_for_failures(loggers: Loggers, notices: list[Notice], count: int) -> None:
    """Collect notices until a logger's thread has told of so many failures."""
    while sum(notice.kind == "logger_failed" for notice in notices) < count:
        notices += loggers.notices()
        threading.Event().wait(0.001)


def row(step: int, **more: object) -> dict[str, object]:
    return {"step": step, "reward/mean": step / 2, **more}


def test_a_logger_gets_the_numbers_of_every_step_and_of_every_evaluation(store: RunStore) -> None:
    heard = Heard()
    loggers = following(store, heard)
    store.append_metrics(row(0, note="no number", right=True))
    loggers.ring()
    store.append_event("eval", 1, split="test", reward_mean=0.25)
    store.append_event("checkpoint", 1, path="x")
    loggers.end(finished=True)
    assert heard.steps == [(0, {"reward/mean": 0.0}), (1, {"eval/test/reward_mean": 0.25})]
    assert heard.finished is True
    assert [(n.kind, n.what) for n in loggers.notices()] == [("logger_begun", "first")]
    assert loggers.metrics() == {"loggers/failed": 0.0}


def test_a_resumed_run_is_the_same_run_and_steps_it_repeats_are_not_told_twice(store: RunStore) -> None:
    for step in range(3):
        store.append_metrics(row(step))
    following(store, Heard()).end(finished=False)
    heard = Heard()
    for step in (1, 2, 3):  # from a checkpoint after step 0
        store.append_metrics(row(step))
    following(store, heard).end(finished=True)
    assert heard.known == ["first"]
    assert [step for step, _ in heard.steps] == [3]


def test_what_failed_is_counted_and_told_again_and_nothing_is_lost_or_doubled(store: RunStore) -> None:
    left = ["begin", "log 1"]

    def fail(call: str) -> None:
        if left and call == left[0]:
            raise ConnectionError(f"no network for {left.pop(0)}")

    heard, clock = Heard(fail), Clock()
    loggers = following(store, heard, now=clock)
    notices: list[Notice] = []
    for step in range(2):
        store.append_metrics(row(step))
        loggers.ring()
        wait_for_failures(loggers, notices, step + 1)
        clock.seconds += 1000
    store.append_metrics(row(2))
    loggers.end(finished=True)
    notices += loggers.notices()
    assert [step for step, _ in heard.steps] == [0, 1, 2]
    assert [n.kind for n in notices] == ["logger_failed", "logger_begun", "logger_failed"]
    assert "no network for begin" in notices[0].what
    assert loggers.metrics() == {"loggers/failed": 2.0}


class Dead(Heard):
    """A logger whose every call fails, at the times in `calls`."""

    def __init__(self, clock: Clock) -> None:
        self.calls: list[float] = []
        super().__init__(self._refuse)
        self._clock = clock

    def _refuse(self, call: str) -> None:
        self.calls.append(self._clock.seconds)
        raise ConnectionError("no network")


def test_one_that_goes_on_failing_is_tried_ever_more_seldom(store: RunStore) -> None:
    clock = Clock()
    dead = Dead(clock)
    loggers, notices = following(store, dead, now=clock), list[Notice]()
    for count in (1, 2, 3):
        loggers.ring()
        wait_for_failures(loggers, notices, count)
        clock.seconds += 2.0**count
    loggers.end(finished=True)
    assert dead.calls == [0.0, 2.0, 6.0, 14.0]


def test_in_the_pause_after_a_failure_it_is_left_alone_until_the_run_ends(store: RunStore) -> None:
    clock = Clock()
    dead = Dead(clock)
    loggers, notices = following(store, dead, now=clock), list[Notice]()
    loggers.ring()
    wait_for_failures(loggers, notices, 1)
    clock.seconds = 1.0
    for _ in range(20):
        loggers.ring()
    store.append_metrics(row(0))
    loggers.end(finished=True)
    assert dead.calls == [0.0, 1.0]
    assert [n.kind for n in loggers.notices()] == ["logger_failed", "logger_dead"]
    heard = Heard()
    following(store, heard).end(finished=True)
    assert [step for step, _ in heard.steps] == [0]


def test_a_logger_that_never_returns_holds_up_neither_a_step_nor_the_end(store: RunStore) -> None:
    for_ever = threading.Event()
    loggers = following(store, Heard(lambda call: void(for_ever.wait())), finish_s=0.05)
    for step in range(100):
        store.append_metrics(row(step))
        loggers.ring()
    loggers.end(finished=True)
    (notice,) = loggers.notices()
    assert notice.kind == "logger_dead"
    assert "did not end within log.finish_s = 0.05 s" in notice.what
    for_ever.set()


def void(_: object) -> None:
    """Take anything, return nothing."""


def test_a_half_written_line_is_not_read_before_it_is_whole(store: RunStore) -> None:
    store.append_metrics(row(0))
    with (store.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "rew')
    rows, at = store.tail("metrics", 0)
    assert [r["step"] for r in rows] == [0]
    store.append_metrics(row(1))
    assert [r["step"] for r in store.tail("metrics", at)[0]] == [1]


def test_a_mark_that_cannot_be_read_begins_anew(store: RunStore) -> None:
    path = mark_path(store.folder, "wandb")
    path.parent.mkdir()
    path.write_text("{")
    assert read_mark(path).step == -1


def test_a_run_without_loggers_has_no_metric_of_them(store: RunStore) -> None:
    assert Loggers([], store, About("run", store.folder, "", {}), finish_s=0).metrics() == {}
    assert make_loggers(LogSection()) == []


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ({"to": ["wandb", "wandb"]}, "names a logger twice"),
        ({"to": ["comet"]}, "'tensorboard', 'wandb', 'mlflow' or 'trackio'"),
        ({"wandb": {"projekt": "x"}}, 'Did you mean "project"?'),
    ],
)
def test_a_mistake_in_the_section_is_one_sentence(log: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_tree({"environment": {"name": "arithmetic"}, "log": log})
    assert told in str(caught.value)
