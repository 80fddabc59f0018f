"""Rewards as users write them, good and bad; run only inside reward processes."""

from __future__ import annotations

import os
import re
import signal
import sys

import numpy as np

from ratchet.core.rollout import Score
from ratchet.core.task import Task

NOT_A_FUNCTION = 3


class TwoArgumentsError(Exception):
    """Cannot be pickled and made again: it wants two arguments and keeps none."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__()


def is_answer(task: Task, text: str) -> float:
    return float(text == task.answer)


def as_bool(task: Task, text: str) -> bool:
    return text == task.answer


def as_numpy(task: Task, text: str) -> np.float32:
    return np.float32(0.5)


def as_parts(task: Task, text: str) -> dict[str, float]:
    return {"length": 0.25, "answer": float(text == task.answer)}


def as_score(task: Task, text: str) -> Score:
    return Score(3.0, {"x": 1.0})


def raises(task: Task, text: str) -> float:
    raise KeyError("no such thing")


def raises_unpicklable(task: Task, text: str) -> float:
    raise TwoArgumentsError(1, lambda: 2)


def exits(task: Task, text: str) -> float:
    sys.exit(3)


def crashes(task: Task, text: str) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def returns_nan(task: Task, text: str) -> float:
    return float("nan")


def returns_infinity(task: Task, text: str) -> float:
    return float("inf")


def returns_huge_integer(task: Task, text: str) -> int:
    return 10**5000


def returns_none(task: Task, text: str) -> None:
    return None


def returns_text(task: Task, text: str) -> str:
    return "1.0"


def returns_array(task: Task, text: str) -> np.ndarray:
    return np.ones(2)


def returns_list(task: Task, text: str) -> list[float]:
    return [1.0]


def returns_empty_dict(task: Task, text: str) -> dict[str, float]:
    return {}


def returns_bad_part(task: Task, text: str) -> dict[str, object]:
    return {"fine": 1.0, "broken": None}


def hangs(task: Task, text: str) -> float:
    while True:
        pass


def backtracks(task: Task, text: str) -> float:
    return float(bool(re.match(r"(a+)+$", "a" * 60 + "b")))


def computes_for_ever(task: Task, text: str) -> float:
    # One call into compiled code that never looks at signals.
    return float(len(str(9**9**9)))


def takes_too_few(text: str) -> float:
    return 1.0
