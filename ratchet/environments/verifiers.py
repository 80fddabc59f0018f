"""Environments of the library `verifiers`, unchanged: they run in a process of their own and ask the run's endpoint.

The library and its environments pin versions of other libraries, and an environment asks an endpoint of OpenAI's form
for its turns. So a program of ours, `foreign/verifiers_player.py`, loads the environment in the Python that has it and
plays the attempts of `Agents`, as an agent program would; what it is answered is recorded there, token by token.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from ratchet.core.errors import ConfigError, RunError
from ratchet.core.protocols import AgentFailed, Outcome, PolicyHandle
from ratchet.core.task import Message, Split, Task
from ratchet.environments.agents import Agents, Closing
from ratchet.environments.guest import Guest, GuestEnded
from ratchet.environments.single_turn import messages

PLAYER = Path(__file__).parent / "foreign" / "verifiers_player.py"
_ROLES: Mapping[str, Any] = {role: role for role in ("system", "user", "assistant", "tool")}


class Verifiers(BaseModel):
    """Plays an environment of the library verifiers, by its own rollouts and rewards."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "verifiers"

    id: str = Field(min_length=1, description="Name of the environment, as prime env install and vf-eval take it.")
    args: Mapping[str, Any] = Field(
        default_factory=dict,
        description="Arguments of its load_environment; of a task set, the fields of its configuration.",
    )
    settings: Mapping[str, Any] = Field(
        default_factory=dict,
        description="For a task set: the rest of its EnvConfig, by agent: agent = { harness = { id = ... } }.",
    )
    python: str = Field("", description="The Python that has verifiers and the environment; empty for this one.")
    on_host: bool = Field(
        False, description="Let a harness that runs what the policy wrote do so on this machine, without a container."
    )
    tasks: int = Field(0, ge=0, description="Most tasks that are read; 0 reads all.")
    held_out: float = Field(
        0.1, ge=0, lt=1, description="Share of the tasks for the test alone, where it brings no eval_dataset."
    )
    at_once: int = Field(64, ge=1, description="Attempts played at the same time.")
    keep_sampling: bool = Field(
        False, description="Answer requests for another temperature, top_p or top_k as the run samples."
    )

    _agents: Agents = PrivateAttr()
    _sizes: Mapping[str, int] = PrivateAttr(default_factory=dict)
    _told: str = PrivateAttr("")
    _guest: Guest = PrivateAttr()
    _url: str = PrivateAttr("")
    _lock: threading.RLock = PrivateAttr(default_factory=threading.RLock)
    _ended: str = PrivateAttr("")
    """How its process ended for the first time; empty while it never did."""
    _broken: RunError | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Load the environment, so that one which cannot be used fails when the configuration is read."""
        self._start()
        if not self._sizes["train"]:
            self._guest.close()
            raise ConfigError(f'The environment "{self.id}" has no tasks to train on.')
        self._agents = Agents(tasks=self._sizes["train"], port=0, keep_sampling=self.keep_sampling)

    @property
    def agents(self) -> Agents:
        """Who keeps the attempts that are played."""
        return self._agents

    @property
    def described(self) -> str:
        """What is loaded, in words."""
        return self._told

    @property
    def words(self) -> tuple[str, ...]:
        """Return none: nobody knows what an environment says."""
        return ()

    @property
    def characters(self) -> str:
        """Return every printable character."""
        return self._agents.characters

    def num_tasks(self, split: Split) -> int | None:
        """Return how many tasks the split has."""
        return self._sizes["train" if split.name == "train" else "test"]

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split: what it asks first, and its number. **Raises**: `ConfigError`, `RunError`."""
        name = "train" if split.name == "train" else "test"
        if not (size := self._sizes[name]):
            raise ConfigError(
                f'The environment "{self.id}" has no tasks for the split "{split.name}". Set environment.held_out '
                "above 0."
            )
        number = split.shuffled(index, size)
        given = self._ask({"task": [name, number]})
        prompt = tuple(Message(_ROLES.get(role, "user"), text) for role, text in given["prompt"])
        return Task(
            self.name,
            prompt or messages(f"Task {number}"),
            answer=given["answer"],
            extras={"environment": self.id, "split": name, "number": number},
        )

    def serve_by(self, opener: Callable[[], Closing]) -> None:
        """Say how the endpoint is made that it asks."""
        self._agents.serve_by(opener)

    def open(self) -> str:
        """Make the endpoint if it is not there, and begin to play; return its URL. **Raises**: `ConfigError`."""
        url = self._agents.open()
        with self._lock:
            if not self._url:
                self._url = url
                self._begin()
        return url

    def close(self) -> None:
        """End its process and the endpoint."""
        with self._lock:
            self._guest.close()
        self._agents.close()

    async def admit(self, task: Task, policy: PolicyHandle) -> None:
        """Return when the environment has begun the attempt. **Raises**: `RunError` if its process is gone."""
        self._check()
        self.open()
        await self._agents.admit(task, policy)

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return what the environment says the attempt earned."""
        return await self._agents.run(task, policy)

    def _start(self) -> None:
        python = self.python or sys.executable
        environment = {
            "id": self.id, "args": dict(self.args), "settings": dict(self.settings), "on_host": self.on_host,
            "tasks": self.tasks, "held_out": self.held_out,
        }  # fmt: skip
        spec = json.dumps({"environment": environment, "at_once": self.at_once})
        try:
            guest = Guest([python, "-u", str(PLAYER), spec])
        except OSError as error:
            raise ConfigError(
                f'environment.python = "{python}" cannot be started: {error.strerror}. Name the Python that has '
                "verifiers, the environment's .venv/bin/python say."
            ) from None
        try:
            said = guest.hear()
        except GuestEnded as reason:
            guest.close()
            raise ConfigError(f'The environment "{self.id}" did not load: {python} ended with {reason}.') from None
        if "refused" in said:
            guest.close()
            raise ConfigError(f'environment.name = "verifiers": {_sentence(self.id, said["refused"])}')
        ready = said["ready"]
        self._guest, self._sizes = guest, {name: ready[name] for name in ("train", "test")}
        self._told = f"{self.id}, a {ready['form']} of verifiers {ready['version']}"

    def _begin(self) -> None:
        """Let the process play from now on, and notice its end."""
        guest = self._guest
        guest.watch(lambda: self._revive(guest))
        try:
            guest.tell({"play": self._url})
        except GuestEnded:  # it is noticed
            return

    def _ask(self, what: Mapping[str, Any]) -> Any:
        self._check()
        guest = self._guest
        try:
            return guest.ask(what)
        except GuestEnded:
            self._revive(guest)
            self._check()
            try:
                return self._guest.ask(what)
            except GuestEnded as reason:
                raise RunError(self._gone(str(reason))) from None

    def _revive(self, dead: Guest) -> None:
        """Start the process again, if `dead` is the one that ended: once; after that the run stops."""
        with self._lock:
            if self._guest is not dead or self._broken is not None:
                return
            reason = dead.last_words()
            dead.close()
            if self._ended:
                self._broken = RunError(self._gone(reason))
            else:
                self._ended = reason
                try:
                    self._start()
                except ConfigError as error:
                    self._broken = RunError(f"{self._gone(reason)} It did not start again: {error}")
            broken = self._broken
            if self._url and broken is None:
                self._begin()
        failed = AgentFailed(f'The process of the environment "{self.id}" ended with {reason}.')
        if (loop := self._agents.loop) is not None and not loop.is_closed():
            loop.call_soon_threadsafe(lambda: self._agents.drop(broken or failed, waiting=broken is not None))

    def _gone(self, reason: str) -> str:
        return (
            f'The process of the environment "{self.id}" ended twice, the last time with {reason}. The last checkpoint '
            "stands: mend the environment, and go on with ratchet resume."
        )

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken


def _sentence(name: str, said: str) -> str:
    return f'"{name}" {said}'
