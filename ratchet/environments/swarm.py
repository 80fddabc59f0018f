"""A document is to be found: one of many holds what is asked for, and frozen agents read them at the same time.

The orchestrator creates an agent once and sends it to documents, several in one turn; each reading is one step of a
budget of critical steps, so that one after the other takes too long. An agent sees what a search in its one document
brought up, and says whether it holds the digit. The documents lie on a server that serves fewer the more are asked for
at once: an agent that gets "busy" gives up. So too few agents miss the document, and too many fail: what is paid
decides how many are sent.

Made for tiny policies on one core: the calls are those a real model would write, each a few tokens here.

**Source**: Kimi K2.5, technical report (PARL). The task and the contention are ours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.seeds import stream
from ratchet.core.task import Message, Split, Task
from ratchet.core.tools import ToolCall, ToolSpec, written
from ratchet.environments.single_turn import ask_once
from ratchet.environments.team import ASSIGN, CREATE, Caps, Team
from ratchet.rewards.parallel import Ended, finish_rate, parallel_term, team_metrics

LABELS = "abcdefghijklmnopqrstuvwx"
"""Names of documents."""
AGENT, SYSTEM = "r", "read"
YES, NO, LOST = " yes", " no", " ?"
FOUND, MISSED, BUSY = "a line with ", "nothing", "busy"
OPEN_ANSWER, CLOSE_ANSWER = "<answer>", "</answer>"

_CREATED = written(CREATE.name, {"name": AGENT, "system_prompt": SYSTEM})
_ASSIGN, _ASSIGNED = written(ASSIGN.name, {"agent": AGENT, "prompt": "|"}).split("|")
_ASK = ("Which holds ", "? ", " Steps: ")
_READ = " in "


class Swarm(BaseModel):
    """Asks which document holds a digit; the answer is ``<answer>k</answer>`` after any number of readings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "swarm"

    documents_min: int = Field(22, ge=2, le=len(LABELS), description="Fewest documents.")
    documents_max: int = Field(24, ge=2, le=len(LABELS), description="Most documents.")
    reliability: float = Field(0.75, gt=0, le=1, description="Chance that a document asked for alone is served.")
    contention: float = Field(
        0.02, ge=0, lt=1, description="How much of that chance each document asked for in the same turn takes."
    )
    caps: Caps = Field(
        default_factory=lambda: Caps(turns=5, critical_steps=5, calls_per_turn=32, agent_turns=1),
        description="What the team may use.",
    )
    tell_tools: bool = Field(
        False, description="Describe the tools to the policy; a tiny one knows them from its warm start."
    )
    agents_min: int = Field(2, ge=1, description="Fewest documents that a turn of a demonstration asks for.")
    agents_max: int = Field(20, ge=1, description="Most documents that a turn of a demonstration asks for.")
    few_max: int = Field(8, ge=1, description="Most documents that a turn of a demonstration with few agents asks for.")
    few_share: float = Field(0.0, ge=0, le=1, description="Share of demonstrations with few agents.")
    many_first: int = Field(
        0,
        ge=0,
        description="Tasks of a split, from its beginning, whose demonstrations are not limited to few agents: so a "
        "warm start learns to work with many before it sees that few are usual.",
    )
    agent_share: float = Field(
        0.0, ge=0, le=1, description="Share of tasks that are an agent's, not the orchestrator's: for the warm start."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for low, high in (("documents_min", "documents_max"), ("agents_min", "agents_max"), ("agents_min", "few_max")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}; swap them")
        return self

    @property
    def words(self) -> tuple[str, ...]:
        """Return the strings of several characters that should be single tokens."""
        calls = (_CREATED, _ASSIGN, _ASSIGNED, OPEN_ANSWER, CLOSE_ANSWER)
        return (*calls, YES, NO, LOST, FOUND, MISSED, BUSY, SYSTEM, "ok", *_ASK, _READ)

    @property
    def characters(self) -> str:
        """Return every single character prompts and demonstrations can hold."""
        return "".join(sorted(LABELS + "0123456789? "))

    def num_tasks(self, split: Split) -> int | None:
        """Return None: tasks are generated without end."""
        return None

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split; `extras` holds the documents, the digit and whose task it is."""
        rng = split.rng(index)
        count = rng.randint(self.documents_min, self.documents_max)
        digit, labels = rng.choice("0123456789"), LABELS[:count]
        answer = rng.choice(labels)
        # What the policy cannot see makes the task: where the digit is, and what the server serves.
        extras: dict[str, Any] = {
            "documents": labels,
            "digit": digit,
            "role": "orchestrator",
            "index": index,
            "world": rng.getrandbits(32),
        }
        if rng.random() < self.agent_share:
            label = rng.choice(labels)
            brought = rng.choice((f"{FOUND}{digit}", MISSED, BUSY))
            prompt = _opening(SYSTEM, label, brought, digit)
            return Task(self.name, prompt, answer=_reply(label, brought), extras={**extras, "role": "agent"})
        ask, mark, steps = _ASK
        text = f"{ask}{digit}{mark}{labels}{steps}{self.caps.critical_steps}"
        return Task(self.name, (Message("user", text),), answer=answer, extras=extras)

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return the outcome of one attempt: accuracy, and the two terms that may be paid besides."""
        if task.extras["role"] == "agent":
            return await ask_once(task, policy, self.score)
        team = Team(self.caps, _Library(self, task), note=self._left, tell=self.tell_tools)
        talk = await team.play(policy, task.prompt)
        accuracy = float(talk.answered and said(talk.answer) == task.answer)
        parts = {
            "accuracy": accuracy,
            "parallel": parallel_term(talk.stages, len(LABELS)),
            "finish": finish_rate(talk.stages),
        }
        facts = team_metrics(talk.stages, tokens=talk.tokens, seconds=talk.seconds)
        return Outcome(
            Score(accuracy, parts), {**facts, "answered": float(talk.answered), "bad_calls": float(talk.bad_calls)}
        )

    async def score(self, task: Task, text: str) -> Score:
        """Return 1 for the right answer without any reading, else 0."""
        right = text == task.answer if task.extras["role"] == "agent" else said(text) == task.answer
        return Score(float(right), {"accuracy": float(right), "parallel": 0.0, "finish": 0.0})

    def gold(self, task: Task) -> str:
        """Return the right answer, guessed at once."""
        return task.answer if task.extras["role"] == "agent" else f"{OPEN_ANSWER}{task.answer}{CLOSE_ANSWER}"

    def wrong(self, task: Task) -> str:
        """Return a well-formed wrong answer."""
        other = LABELS[0] if task.answer != LABELS[0] else LABELS[1]
        return f"{OPEN_ANSWER}{other}{CLOSE_ANSWER}"

    @staticmethod
    def _left(steps: int) -> str:
        return f"{_ASK[2]}{steps}" if steps >= 0 else ""

    def demonstration(self, task: Task, rng: random.Random) -> str | Sequence[Message]:
        """Return how a task can be done: documents in some number per turn, those that were lost perhaps once more."""
        if task.extras["role"] == "agent":
            return task.answer
        library = _Library(self, task)
        talk: list[Message] = []
        is_few = task.extras["index"] >= self.many_first and rng.random() < self.few_share
        most = self.few_max if is_few else self.agents_max
        waiting, left, found = list(task.extras["documents"]), self.caps.critical_steps, ""
        while left >= 3 and waiting and not found:
            asked = waiting[: rng.randint(self.agents_min, most)]
            talk.append(Message("assistant", (_CREATED if not talk else "") + "".join(map(_assign, asked))))
            replies = [library.reply(label, len(asked)) for label in asked]
            results = (["ok"] if len(talk) == 1 else []) + replies
            left -= 2
            results[-1] += f"{_ASK[2]}{left}"
            talk += [Message("tool", text) for text in results]
            lost = [label for label, reply in zip(asked, replies, strict=True) if reply.endswith(LOST)]
            found = next((label for label, reply in zip(asked, replies, strict=True) if reply.endswith(YES)), "")
            rest = waiting[len(asked) :]
            waiting = lost + rest if rng.random() < 0.5 else rest + lost
        guess = found or rng.choice(waiting or list(task.extras["documents"]))
        return [*talk, Message("assistant", f"{OPEN_ANSWER}{guess}{CLOSE_ANSWER}")]


class _Library:
    """The documents of one attempt; see `team.Bench`."""

    tools: Sequence[ToolSpec] = ()

    def __init__(self, environment: Swarm, task: Task) -> None:
        self._environment, self._task = environment, task
        self._asked: dict[str, int] = {}

    async def use(self, call: ToolCall) -> str:
        raise AssertionError("there are no further tools")

    def opening(self, system: str, prompt: str, *, beside: int) -> Sequence[Message]:
        """Return what an agent sees: what was found in its document, or that the server was busy."""
        label = prompt.strip()[:8]
        return _opening(system, label, self._brought(label, beside), self._task.extras["digit"])

    def judged(self, answer: str) -> Ended:
        """Return whether it said yes or no."""
        return Ended.FINISHED if answer.endswith((YES, NO)) else Ended.GAVE_UP

    def reply(self, label: str, beside: int) -> str:
        """Return what an agent that makes no mistake says."""
        return _reply(label, self._brought(label, beside))

    def _brought(self, label: str, beside: int) -> str:
        """Return what a search in a document brings up."""
        # The same draw for all attempts that ask the same: what differs between them is what they did.
        time = self._asked[label] = self._asked.get(label, 0) + 1
        chance = self._environment.reliability * max(0.0, 1 - self._environment.contention * beside)
        if stream("library", self._task.id, label, time).random() >= chance:
            return BUSY
        return f"{FOUND}{self._task.extras['digit']}" if label == self._task.answer else MISSED


def said(text: str) -> str:
    """Return what stands in the last answer tags of a text; empty if nothing does."""
    _, opened, rest = text.rpartition(OPEN_ANSWER)
    inner, closed, _ = rest.partition(CLOSE_ANSWER)
    return inner.strip() if opened and closed else ""


def _opening(system: str, label: str, brought: str, digit: str) -> tuple[Message, ...]:
    return Message("system", system), Message("user", f"{digit}{_READ}{label}? {brought}")


def _reply(label: str, brought: str) -> str:
    return label + (LOST if brought == BUSY else NO if brought == MISSED else YES)


def _assign(label: str) -> str:
    return f"{_ASSIGN}{label}{_ASSIGNED}"
