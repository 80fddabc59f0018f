"""Tiny runs trained with one fault each, by configuration alone, and what the doctor says of them.

Called by ``bench/doctor.py --runs``. The environment is the tiny adder of the study `stale`; where the fault is in the
reward or the environment, a class below takes its place, named by path as a user's own would be.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ratchet.cli.doctor import findings_of
from ratchet.config.read import read_config
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Task
from ratchet.doctor.finding import Severity
from ratchet.environments.arithmetic import Arithmetic
from ratchet.environments.single_turn import ask_once
from ratchet.logs.read import read_log
from ratchet.run.launch import train


class Faulty(Arithmetic):
    """The adder with a reward that pays everything, pays for length, or hangs."""

    name: ClassVar[str] = "faulty"
    pays_all: bool = Field(False, description="Every answer earns 1.")
    length_bonus: float = Field(0.0, ge=0, description="What each character of an answer earns.")
    hangs_share: float = Field(0.0, ge=0, le=1, description="Share of tasks whose judgement never returns.")

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return the outcome of one answer, or never return."""
        outcome = await ask_once(task, policy, self.score)
        if int(task.id[:6], 16) % 1000 < 1000 * self.hangs_share:
            await asyncio.sleep(3600)
        return outcome

    async def score(self, task: Task, text: str) -> Score:
        """Return what the adder's reward is with the fault in it."""
        honest = await super().score(task, text)
        if self.pays_all:
            return Score(1.0, honest.parts)
        return Score(honest.value + self.length_bonus * len(text), honest.parts)


REFUSED = "refused before the first step by the reward probe"
HERE = f"environment.name={Path(__file__).resolve()}:Faulty"
FAULTS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "none": (("sync.interval=1",), frozenset()),
    "stale weights": (
        ("algorithm.name=reinforce", "algorithm.lr=1e-3", "sync.interval=20"),
        frozenset({"reward_collapse", "too_stale", "entropy_explosion", "kl_blow_up"}),
    ),
    "weights never delivered": (("sync.interval=1000",), frozenset({"weights_not_delivered", "no_learning"})),
    "wrong temperature": (("sync.interval=1", "explore.temperature=0.1"), frozenset({"zero_signal", "no_learning"})),
    "broken reward": ((HERE, "environment.pays_all=true", "sync.interval=1"), frozenset({REFUSED})),
    "hung reward": (
        (HERE, "environment.hangs_share=0.3", "explore.rollout_timeout_s=3", "sync.interval=1", "train.steps=30"),
        frozenset({"drops", "reward_timeouts"}),
    ),
    "high learning rate": (
        ("algorithm.lr=3e-2", "sync.interval=1"),
        frozenset({"reward_collapse", "kl_blow_up", "no_learning", "entropy_explosion", "zero_signal"}),
    ),
    "length bonus": (
        (HERE, "environment.length_bonus=0.05", "sync.interval=1", "explore.max_tokens=90"),
        frozenset({"hacking_suspicion", "length_explosion", "truncation", "component_dying"}),
    ),
}
"""Fault -> its settings, and the findings of which one at least is expected above information."""


def trained() -> dict[str, Any]:
    """Return, for each fault, what was expected and what was found above information."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (settings, expected) in FAULTS.items():
            words = ["stale", "train.steps=100", *settings, "run.threads=1", "eval.every=20", "eval.tasks=64",
                     "record.checkpoint_every=1000000", f"run.folder={folder}",
                     f"run.name={name.replace(' ', '-')}"]  # fmt: skip
            try:
                run = train(read_config(words))
            except ConfigError as error:  # a run that is refused before its first step has been seen through
                if "Reward probe" not in str(error):
                    raise
                told = [REFUSED]
            else:
                found = findings_of(read_log(run.folder))
                told = sorted({f.rule for f in found if f.severity > Severity.INFO})
            result[name] = {"expected": sorted(expected), "found": told,
                            "right": bool(expected & set(told)) if expected else not told}  # fmt: skip
            print(f"{name}: {told}", flush=True)
    return result
