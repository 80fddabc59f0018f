"""Runs reward functions in processes of their own, so that one that hangs can be killed.

    async with RewardPool(timeout_s=5) as pool:
        score = await pool.score("my_rewards.py:reward", task, text)

Owns the processes (Pebble does the killing); decides nothing about what a failure means: see `errors`.

A reward is a function ``reward(task, text) -> float | dict | Score``. It is imported in the child by its path, once
per process, for which `first_timeout_s` is allowed on top: a process that has not loaded the function yet answers
"cold" at once, and the call is sent again with the longer limit.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import weakref
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Self

from pebble import ProcessExpired, ProcessPool

from ratchet.core.load import LoadError, describe, load_object
from ratchet.core.rollout import Score
from ratchet.core.task import Task
from ratchet.rewards.errors import RewardFailed, RewardInvalid, RewardTimeout
from ratchet.rewards.value import as_score

_ALARM_MARGIN_S = 1.0
"""How long after its limit a call ends its own process, if nobody has: see `_end_this_process_after`."""

_ALARM: int = 0 if sys.platform == "win32" else int(signal.SIGALRM)


class RewardPool:
    """A few processes that score texts with functions named by path.

    Nothing starts before the first call. Used from one event loop at a time; any number of coroutines may wait in
    `score`, and cancelling one kills its call. A killed process is replaced.
    """

    def __init__(self, *, num_workers: int = 2, timeout_s: float = 5.0, first_timeout_s: float = 60.0) -> None:
        """Limits are wall-clock seconds of one call, waiting for a free process not counted."""
        self._num_workers = num_workers
        self._timeout_s = timeout_s
        self._first_timeout_s = first_timeout_s
        self._processes: _Processes | None = None

    async def score(self, path: str, task: Task, text: str) -> Score:
        """Return what the reward at `path` gives `text` as an answer to `task`.

        **Raises**: `RewardTimeout`, `RewardFailed` or `RewardInvalid`; the pool goes on working after each.
        """
        about = f'the reward "{path}", asked about task {task.id},'
        answer = await self._call(path, task, text, load_s=0.0, about=about)
        if isinstance(answer, _Cold):
            answer = await self._call(path, task, text, load_s=self._first_timeout_s, about=about)
        if isinstance(answer, _Failed):
            raise RewardFailed(f"{about} {answer.reason}")
        if isinstance(answer, _Invalid):
            raise RewardInvalid(f"{about} gave no score: {answer.reason}")
        assert isinstance(answer, Score), "a process that was told to load cannot be cold"
        return answer

    def close(self) -> None:
        """End all processes at once; calls in flight are cancelled. May be called twice; a later call starts anew."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _call(self, path: str, task: Task, text: str, *, load_s: float, about: str) -> _Answer:
        late = (
            f"{about} did not return within {self._timeout_s:g} s and was killed. Make it quicker, or raise "
            "reward_timeout_s."
        )
        arguments = (path, task, text, load_s, self._timeout_s)
        for _ in range(2):
            processes = self._open()
            try:
                return await processes.call(_score_in_child, arguments, load_s + self._timeout_s)
            except TimeoutError as error:
                raise RewardTimeout(late) from error
            except ProcessExpired as error:
                if error.exitcode == -_ALARM:
                    raise RewardTimeout(late) from error
                raise RewardFailed(
                    f"{about} ended its process (exit code {error.exitcode}). Look for a crash in compiled code, "
                    "os._exit, or memory running out."
                ) from error
            except BrokenProcessPool:
                # An idle process was killed from outside, which Pebble takes for the end of the pool: once more.
                self._discard(processes)
        raise RewardFailed(
            f"{about} was not reached: reward processes die as they start. If your own script starts the run, put its "
            'code under if __name__ == "__main__", in a file.'
        )

    def _open(self) -> _Processes:
        if self._processes is None:
            self._processes = _Processes(self._num_workers)
        return self._processes

    def _discard(self, broken: _Processes) -> None:
        broken.close()
        if self._processes is broken:
            self._processes = None


class _Processes:
    """One Pebble pool, ended on `close`, when collected, and at the latest when the interpreter ends."""

    def __init__(self, num_workers: int) -> None:
        # Spawned, not forked: a fork copies the locks of PyTorch's and Pebble's threads in whatever state they are.
        self._pool = ProcessPool(num_workers, initializer=_prepare_child, context=get_context("spawn"))
        self.close = weakref.finalize(self, _end, self._pool)

    async def call(self, function: Callable[..., _Answer], args: tuple[Any, ...], limit: float) -> _Answer:
        """Return the function's result from a process. **Raises** what Pebble raises."""
        if not self._pool.active:
            raise BrokenProcessPool
        return await asyncio.wrap_future(self._pool.schedule(function, args=args, timeout=limit))


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


@dataclass(frozen=True, slots=True)
class _Cold:
    """This process has not loaded the reward yet, and was not told to."""


@dataclass(frozen=True, slots=True)
class _Failed:
    reason: str
    """What it did, as the rest of a sentence."""


@dataclass(frozen=True, slots=True)
class _Invalid:
    reason: str


_Answer = Score | _Cold | _Failed | _Invalid

_loaded: dict[str, Callable[..., object]] = {}
"""Rewards this child process has imported, by path."""


def _prepare_child() -> None:
    # The default action kills at once, even inside compiled code that never returns to the interpreter.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _score_in_child(path: str, task: Task, text: str, load_s: float, limit_s: float) -> _Answer:
    """Return the reward's answer as data: exceptions and odd values of users may not survive pickling.

    `load_s` is 0 if a process that has not loaded the reward should say so instead.
    """
    if path not in _loaded and not load_s:
        return _Cold()
    try:
        if path not in _loaded:
            _end_this_process_after(load_s)
            _loaded[path] = _load(path)
        _end_this_process_after(limit_s)
        return as_score(_loaded[path](task, text))
    except RewardInvalid as error:
        return _Invalid(str(error))
    except LoadError as error:
        return _Failed(f"cannot be used: {error}")
    # The user's function may raise anything, and Pebble would raise even its SystemExit in the run itself; it must
    # cost one rollout and be told, whatever it is.
    except BaseException as error:
        return _Failed(f"raised {describe(error)}. Run it on that task by hand to see why.")
    finally:
        _end_this_process_after(0)


def _end_this_process_after(seconds: float) -> None:
    """Let the system end this process `seconds` and a margin from now; 0 takes that back.

    Pebble enforces limits from outside. It cannot tell loading from calling, so the first call of a process would get
    both limits together; and it is gone when the run is killed. The alarm's default action covers both, also in
    compiled code. Windows has no such alarm and does without.
    """
    if _ALARM:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + _ALARM_MARGIN_S if seconds else 0)


def _load(path: str) -> Callable[..., object]:
    found = load_object(path)
    if not callable(found):
        raise LoadError(f'"{path}" is of type {type(found).__name__}. Name a function reward(task, text).')
    return found
