"""Run folders made by hand for the tests of the page: rows, groups, and what a hostile policy might write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ratchet.core.rollout import Group, Rollout, Score, Status, StopReason, Trajectory, Turn
from ratchet.core.task import Message, Task
from ratchet.store.run_store import RunStore

HOSTILE = (
    "<script>globalThis.caught = 1</script><img src=x onerror='globalThis.caught = 1'>"
    "<svg onload='globalThis.caught = 1'></svg> [click](javascript:globalThis.caught=1) "
    "\x1b[2J\x1b]0;title\x07 \u202edetrevni\u202c \u2066isolate\u2069 zero\u200bwidth"
)
"""What a policy might write to the one who reads it."""

MakeRun = Callable[..., RunStore]


def config(name: str, seed: int, algorithm: str, lr: float) -> dict[str, object]:
    return {
        "run": {"study": "judge", "name": name, "seed": seed},
        "environment": {"name": "judge"},
        "algorithm": {"name": algorithm, "lr": lr},
        "train": {"steps": 40},
    }


def turn(text: str, *, logprob: float = -0.5, version: int = 3) -> Turn:
    tokens = np.arange(len(text.split()), dtype=np.int32)
    none = np.zeros(0, dtype=np.float32)
    return Turn(
        prompt=np.array([1, 2, 3], dtype=np.int32), output=tokens,
        logprobs=np.full(len(tokens), logprob, dtype=np.float32), log_kept=none, version=version, last_version=version,
        fingerprint="f", stop=StopReason.END, text=text, seconds=0.5, began=0.0,
    )  # fmt: skip


def attempt(number: int, reward: float | None, text: str, task_id: str) -> Rollout:
    """Return an attempt in which the policy launched one agent."""
    agent = Trajectory((turn(f"agent {text}"),), "helper", trainable=False, parent=0, parent_turn=0, outcome="finished")
    return Rollout(
        task_id, number, (Trajectory((turn(text),)), agent), Status.OK if reward is not None else Status.REWARD_TIMEOUT,
        None if reward is None else Score(reward, {"accuracy": reward}), "" if reward is not None else "it hung",
    )  # fmt: skip


def made_group(index: int, step: int, texts: Sequence[str], rewards: Sequence[float | None], prompt: str = "") -> Group:
    task = Task("judge", (Message("user", prompt or f"question {index}"),), "B", {"tests": "assert True"})
    played = tuple(attempt(i, r, t, task.id) for i, (t, r) in enumerate(zip(texts, rewards, strict=True)))
    return Group(task, index, step, played)


def row(step: int, reward: float) -> dict[str, float]:
    return {
        "step": step,
        "reward/mean": reward,
        "len/response/mean": 40.0 + step,
        "entropy": 0.5,
        "rollouts/step": 4.0,
        "rollouts/asked": 4.0,
        "ledger/trained": 3.0,
        "ledger/reward_timeout": 1.0,
        "tokens/generated": 100.0,
        "ledger_tokens/trained": 100.0,
        "flops/train/step": 1e9,
        "time/step": 2.0,
        "time/explore": 1.5,
        "time/train": 0.5,
        "wait/trainer_for_groups": 1.0,
    }
