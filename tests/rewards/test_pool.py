"""Rewards in processes: what comes back, and what happens to one that does not."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ratchet.core.rollout import Score, Status
from ratchet.core.task import Message, Task
from ratchet.rewards.errors import RewardError, RewardFailed, RewardInvalid, RewardTimeout
from ratchet.rewards.pool import RewardPool

USER_FILE = str(Path(__file__).with_name("user_rewards.py"))
TASK = Task("mine", (Message("user", "6 x 7?"),), answer="42")
LIMIT_S = 1.0


def in_pool(play: Callable[[RewardPool], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """Return what `play` returns, played with a pool of one process that is closed afterwards."""

    async def main() -> Any:
        async with RewardPool(**{"num_workers": 1, "timeout_s": LIMIT_S, **options}) as pool:
            return await play(pool)

    return asyncio.run(main())


def score(name: str, text: str = "42") -> Score | RewardError:
    async def play(pool: RewardPool) -> Score | RewardError:
        try:
            return await pool.score(f"{USER_FILE}:{name}", TASK, text)
        except RewardError as error:
            return error

    return in_pool(play)


def test_every_way_to_return_a_value_becomes_a_score() -> None:
    async def play(pool: RewardPool) -> list[Score]:
        names = ("is_answer", "as_bool", "as_numpy", "as_parts", "as_score")
        return [await pool.score(f"{USER_FILE}:{name}", TASK, "42") for name in names]

    assert in_pool(play) == [
        Score(1.0),
        Score(1.0),
        Score(0.5),
        Score(1.25, {"length": 0.25, "answer": 1.0}),
        Score(3.0, {"x": 1.0}),
    ]


def test_a_reward_in_an_installed_module_is_found() -> None:
    async def play(pool: RewardPool) -> Score:
        return await pool.score("ratchet.rewards.gym:score_gym", TASK, "no tags here")

    assert in_pool(play) == Score(0.0)


def test_what_is_no_finite_number_is_invalid_and_shown() -> None:
    shown = {
        "returns_nan": "nan",
        "returns_infinity": "inf",
        "returns_huge_integer": "not finite",
        "returns_none": "None",
        "returns_text": "'1.0'",
        "returns_array": "array([1., 1.])",
        "returns_list": "[1.0]",
        "returns_empty_dict": "without parts",
        "returns_bad_part": '"broken" is None',
    }

    async def play(pool: RewardPool) -> None:
        for name, value in shown.items():
            with pytest.raises(RewardInvalid) as caught:
                await pool.score(f"{USER_FILE}:{name}", TASK, "42")
            assert value in str(caught.value)
            assert name in str(caught.value)
            assert TASK.id in str(caught.value)
            assert caught.value.status is Status.REWARD_INVALID

    in_pool(play)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "KeyError: 'no such thing' (user_rewards.py, line"),
        ("raises_unpicklable", "TwoArgumentsError"),
        ("exits", "SystemExit"),
        ("crashes", "exit code -9"),
        ("takes_too_few", "TypeError"),
        ("is_answr", 'Did you mean "is_answer"?'),
        ("NOT_A_FUNCTION", "of type int"),
    ],
)
def test_a_reward_that_breaks_is_told_and_fails_alone(name: str, told: str) -> None:
    error = score(name)
    assert isinstance(error, RewardFailed)
    assert told in str(error)
    assert error.status is Status.REWARD_ERROR


def test_a_missing_file_is_named() -> None:
    async def play(pool: RewardPool) -> None:
        with pytest.raises(RewardFailed, match=r"nowhere\.py.*does not exist"):
            await pool.score("nowhere.py:reward", TASK, "42")

    in_pool(play)


@pytest.mark.parametrize("name", ["hangs", "backtracks", "computes_for_ever"])
def test_a_reward_that_never_returns_is_killed_and_the_pool_goes_on(name: str) -> None:
    async def play(pool: RewardPool) -> tuple[float, Score]:
        await pool.score(f"{USER_FILE}:is_answer", TASK, "42")
        start = time.monotonic()
        with pytest.raises(RewardTimeout, match=r"did not return within 1 s") as caught:
            await pool.score(f"{USER_FILE}:{name}", TASK, "42")
        assert caught.value.status is Status.REWARD_TIMEOUT
        return time.monotonic() - start, await pool.score(f"{USER_FILE}:is_answer", TASK, "42")

    seconds, after = in_pool(play)
    # The margin of the alarm is a second; the rest is for a busy machine. The limit for imports is not spent.
    assert seconds < 10
    assert after == Score(1.0)


def test_a_reward_that_hangs_on_import_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "slow_import.py"
    file.write_text("while True:\n    pass\n")

    async def play(pool: RewardPool) -> None:
        with pytest.raises(RewardTimeout):
            await pool.score(f"{file}:reward", TASK, "42")

    start = time.monotonic()
    in_pool(play, first_timeout_s=0.3)
    assert time.monotonic() - start < 10


def test_many_calls_share_few_processes_and_keep_their_answers() -> None:
    async def play(pool: RewardPool) -> list[float]:
        texts = ["42" if i % 3 else "7" for i in range(60)]
        scores = await asyncio.gather(*(pool.score(f"{USER_FILE}:is_answer", TASK, text) for text in texts))
        return [score.value for score in scores]

    assert in_pool(play, num_workers=2, timeout_s=10) == [float(i % 3 != 0) for i in range(60)]


def test_cancelling_a_call_frees_its_process() -> None:
    async def play(pool: RewardPool) -> Score:
        await pool.score(f"{USER_FILE}:is_answer", TASK, "42")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.score(f"{USER_FILE}:hangs", TASK, "42"), timeout=0.2)
        # Were the process still busy for its limit of a minute, this would not come back in time.
        return await asyncio.wait_for(pool.score(f"{USER_FILE}:is_answer", TASK, "42"), timeout=20)

    assert in_pool(play, timeout_s=60) == Score(1.0)


def test_the_pool_survives_an_idle_process_killed_from_outside() -> None:
    async def play(pool: RewardPool) -> Score:
        await pool.score(f"{USER_FILE}:is_answer", TASK, "42")
        (child,) = _reward_processes()
        os.kill(child.pid, signal.SIGKILL)
        child.join(10)
        return await pool.score(f"{USER_FILE}:is_answer", TASK, "42")

    assert in_pool(play, timeout_s=10) == Score(1.0)


def test_nothing_starts_before_the_first_call_and_nothing_stays_after_close() -> None:
    async def play(pool: RewardPool) -> None:
        assert not _reward_processes()
        await pool.score(f"{USER_FILE}:is_answer", TASK, "42")
        assert len(_reward_processes()) == 1
        with pytest.raises(RewardTimeout):
            await pool.score(f"{USER_FILE}:hangs", TASK, "42")
        pool.close()
        assert not _reward_processes()
        pool.close()

    in_pool(play)


def test_a_pool_nobody_closed_ends_with_its_last_reference() -> None:
    async def play() -> None:
        pool = RewardPool(num_workers=1)
        await pool.score(f"{USER_FILE}:is_answer", TASK, "42")

    asyncio.run(play())
    assert not _reward_processes()


def _reward_processes() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.name == "pebble_pool_worker"]
