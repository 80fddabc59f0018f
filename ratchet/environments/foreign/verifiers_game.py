"""Environments of the library `verifiers`, in both of its forms: their tasks, and one attempt at a time.

Read by `verifiers_player.py` alone, in a Python that has verifiers and may lack Ratchet. Two forms, told apart by the
module that an id names: `load_environment` (verifiers before 0.4), or a task set (since 0.2, and the only one in 0.4).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol


class Refused(Exception):
    """The environment cannot be used; the message is a sentence for its user."""


class Failed(Exception):
    """An attempt has no reward that could be trained on."""


@dataclass(frozen=True)
class Earned:
    """What an attempt earned."""

    reward: float
    parts: Mapping[str, float]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Asked:
    """What the run's config says of an environment."""

    id: str
    args: Mapping[str, Any]
    settings: Mapping[str, Any]
    on_host: bool
    tasks: int
    """Most tasks that are read; 0 reads all."""
    held_out: float


@dataclass(frozen=True)
class Shown:
    """A task as the run shows it; the conversation itself comes with the requests."""

    prompt: Sequence[tuple[str, str]]
    answer: str


@dataclass(frozen=True)
class Tasks:
    """The tasks of an environment, those for training apart from those for the test."""

    train: Sequence[Any]
    test: Sequence[Any]

    def of(self, split: str) -> Sequence[Any]:
        """Return the tasks of a split."""
        return self.train if split == "train" else self.test


class Game(Protocol):
    """An environment that is loaded."""

    form: str
    tasks: Tasks

    def shown(self, task: Any) -> Shown:
        """Return a task as a run shows it."""
        ...

    def serving(self) -> Any:
        """Return a context within which attempts are played."""
        ...

    async def play(self, task: Any, base_url: str, key: str) -> Earned:
        """Play one attempt against a model. **Raises**: `Failed`, or what the environment raises."""
        ...


@asynccontextmanager
async def serving(game: Game) -> AsyncIterator[None]:
    """Play attempts within this. **Raises**: `Refused` if what the environment needs for that is not there."""
    context = game.serving()
    try:
        await context.__aenter__()
    except (Exception, SystemExit) as error:  # the library ends the program where it lacks an account
        raise Refused(
            f"cannot begin: {_told(error)}. Where its agents run is chosen by environment.settings: agent = {{ runtime "
            '= { type = "docker" } }, say.'
        ) from error
    async with AsyncExitStack() as stack:
        stack.push_async_exit(context)
        yield


def load(asked: Asked) -> Game:
    """Return the environment, loaded. **Raises**: `Refused`."""
    try:
        version = importlib.metadata.version("verifiers")
    except importlib.metadata.PackageNotFoundError:
        raise Refused(
            f"needs the library verifiers, which is not installed for {sys.executable}. Install it there with: pip "
            "install 'ratchet[verifiers]', or name the Python that has it: environment.python"
        ) from None
    name = asked.id.rsplit("/", 1)[-1].split("@", 1)[0].replace("-", "_")
    module = _imported(asked.id, name)
    if "load_environment" not in vars(module):
        return _TaskSets.load(asked, version)
    try:
        importlib.import_module("verifiers.utils.env_utils")
    except ModuleNotFoundError:
        raise Refused(
            f"is written for verifiers before 0.4, for it has load_environment; {version} is installed for "
            f"{sys.executable}. Install 'verifiers<0.4' in a Python of its own, and name it: environment.python"
        ) from None
    if asked.settings:
        raise Refused("has load_environment, and takes environment.args alone. Leave environment.settings out.")
    return _Classic.load(asked)


def _imported(wanted: str, name: str) -> ModuleType:
    for place in (f"verifiers.v1.tasksets.{name}", name):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
                continue  # there is no such module; one that lacks another module is a different thing
            raise Refused(f"cannot be imported: {_told(error)}.") from error
        except Exception as error:
            raise Refused(f"cannot be imported: {_told(error)}.") from error
    raise Refused(
        f'is not installed for {sys.executable}: it has no module "{name}". Install the environment there (prime env '
        f"install {wanted}, or pip install), or correct environment.id."
    )


@dataclass
class _Classic:
    """An environment that `load_environment` returns: data sets, rollouts and a rubric."""

    env: Any
    tasks: Tasks
    form: str = "load_environment"
    _client: Any = None
    """Whose connections all attempts share: to open some for each takes longer than a short turn."""

    @classmethod
    def load(cls, asked: Asked) -> _Classic:
        utils = importlib.import_module("verifiers.utils.env_utils")
        try:
            env = utils.load_environment(asked.id, **asked.args)
            env.build_dataset()
            env.build_eval_dataset()
        except Exception as error:
            raise Refused(f"cannot be loaded with environment.args = {dict(asked.args)}: {_told(error)}.") from error
        if env.dataset is None:
            raise Refused("has no data set to train on: it gives its environment no dataset.")
        _check_rubric(env.rubric)
        rows, held = _first(env.dataset, asked.tasks), env.eval_dataset
        return cls(env, _shared_out(rows, asked.held_out, _row_key) if held is None else Tasks(rows, list(held)))

    def shown(self, task: Any) -> Shown:
        return Shown(_messages(task.get("prompt")), _text(task.get("answer")))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        yield
        if self._client is not None:
            await self._client.close()

    async def play(self, task: Any, base_url: str, key: str) -> Earned:
        if self._client is None:
            openai: Any = importlib.import_module("openai")
            self._client = openai.AsyncOpenAI(api_key="none yet", max_retries=4)
        clients: Any = importlib.import_module("verifiers.clients")
        speaks = clients.OpenAIChatCompletionsClient(self._client.copy(base_url=base_url, api_key=key))
        done = await self.env.run_rollout(dict(task), speaks, "policy", {})
        if done.get("error"):
            raise Failed(_text(done["error"])[:500])
        metrics = {name: float(value) for name, value in (done.get("metrics") or {}).items() if value is not None}
        return Earned(float(done["reward"]), {}, metrics)


def _check_rubric(rubric: Any) -> None:
    """Raise `Refused` for a rubric that judges no attempt by itself."""
    if rubric.has_group_rewards() if callable(rubric.has_group_rewards) else rubric.has_group_rewards:
        raise Refused(
            "judges attempts by comparing those of a group. Here each attempt is judged alone, and compared by the "
            "algorithm: leave such reward functions out of its rubric."
        )
    kinds = {kind.__name__ for kind in type(rubric).__mro__}
    own = "score_rollout" in vars(type(rubric))  # one that scores in a way of its own may have no functions
    if own and not {"RubricGroup"} & kinds and type(rubric).__name__ != "Rubric":
        return
    if not any(rubric._get_reward_weights()):
        raise Refused("has no reward: its rubric holds no function with a weight, so that every attempt would earn 0.")


@dataclass
class _TaskSets:
    """An environment made of a task set, agents and what runs them: `verifiers.v1`."""

    vf: Any
    env: Any
    tasks: Tasks
    form: str = "task set"
    _count: Any = field(default_factory=itertools.count)

    @classmethod
    def load(cls, asked: Asked, version: str) -> _TaskSets:
        try:
            vf: Any = importlib.import_module("verifiers.v1")
        except ModuleNotFoundError:
            raise Refused(f"has no load_environment, and verifiers {version} knows no other form.") from None
        settings = {name: dict(value) if isinstance(value, dict) else value for name, value in asked.settings.items()}
        tree = {**settings, "taskset": {**settings.get("taskset", {}), "id": asked.id, **asked.args}}
        try:
            env = vf.load_environment(vf.resolve_env_config(_placed(vf, tree)))
        except Exception as error:
            raise Refused(f"cannot be loaded: {_told(error)}.") from error
        _check_place(env, asked)
        if not env.taskset.bounded and not asked.tasks:
            raise Refused("makes tasks without end. Say how many of them to use: environment.tasks.")
        try:
            tasks = _first(env.taskset, asked.tasks)
        except Exception as error:
            raise Refused(f"cannot load its tasks: {_told(error)}.") from error
        if not tasks:
            raise Refused("has no tasks: its task set is empty.")
        judged = type(env).finalize is not vf.Env.finalize or tasks[0].hooks("reward") or tasks[0].plugged_judges()
        if not judged:
            raise Refused("has no reward: its tasks have no @vf.reward method and no judge.")
        return cls(vf, env, _shared_out(tasks, asked.held_out, lambda task: str(task.key)))

    def shown(self, task: Any) -> Shown:
        data = task.data.model_dump(mode="json")
        opening = [("system", data["system_prompt"])] if data.get("system_prompt") else []
        return Shown([*opening, *_messages(data.get("prompt"))], _text(data.get("answer")))

    def serving(self) -> Any:
        return self.env.serving()

    async def play(self, task: Any, base_url: str, key: str) -> Earned:
        # The library takes a key by the name of an environment variable alone.
        variable = f"RATCHET_ATTEMPT_{next(self._count)}"
        os.environ[variable] = key
        try:
            client = self.vf.EvalClientConfig(base_url=base_url, api_key_var=variable)
            (slot,) = self.env.slots(task)
            episode = await self.env.run_slot(slot, self.vf.ModelContext(model="policy", client=client))
        finally:
            del os.environ[variable]
        return _earned(episode, base_url)


def _placed(vf: Any, tree: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in which agents that only talk do so here: unless told otherwise, the library rents each
    agent a machine elsewhere, which needs an account."""
    config = vf.resolve_env_config(json.loads(json.dumps(tree)))
    loaders: Any = importlib.import_module("verifiers.v1.utils.loaders")
    rented = vf.AgentConfig().runtime
    for role, harness in config.agent_harnesses().items():
        given = tree.get(role, {})
        talks = not loaders.harness_class(harness.id).EXECUTES_CODE
        if talks and "runtime" not in given and dict(config)[role].runtime == rented:
            tree = {**tree, role: {**given, "runtime": {"type": "subprocess"}}}
    return tree


def _check_place(env: Any, asked: Asked) -> None:
    """Raise `Refused` if the policy would be given this machine to work on, or one that cannot be rented."""
    for role, spec in env._agent_specs.items():
        harness, place = env._harnesses[role], spec.runtime.type
        ways = (
            f'For plain conversations set environment.settings.{role}.harness.id = "null"; for a container '
            f'environment.settings.{role}.runtime.type = "docker"'
        )
        if place == "subprocess" and harness.EXECUTES_CODE and not asked.on_host:
            raise Refused(
                f'lets the policy run programs on this machine: its {role} has the harness "{harness.config.id}" '
                f"and no container. {ways}; if this machine is the container, environment.on_host = true."
            )
        if place == "prime":
            try:  # the library would end the program later, in the midst of an attempt
                importlib.import_module("verifiers.v1.utils.prime").ensure_prime_auth()
            except SystemExit as error:
                raise Refused(f"rents a machine for its {role}: {error}. {ways}.") from None


def _earned(episode: Any, base_url: str) -> Earned:
    """Return what an episode's trained agents earned. **Raises**: `Failed`."""
    if not episode.ok:
        errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
        raise Failed(f"{errors[-1].type}: {errors[-1].message}"[:500] if errors else "the episode did not end well")
    trained = [trace for trace in episode.traces if trace.agent.trainable]
    for trace in episode.traces:
        if not trace.agent.trainable and trace.agent.config.client.base_url == base_url:
            raise Failed(
                f'the agent "{trace.agent.name}" is not to be trained, and asked the policy: give it a model and a '
                f"client of its own, environment.settings.{trace.agent.name}.model and .client"
            )
    rewards = [float(trace.reward) for trace in trained]
    if not rewards or max(rewards) - min(rewards) > 1e-9:
        raise Failed(f"its agents earned different rewards, {rewards}; an attempt has one, for all its conversations")
    parts = {k: float(r.value) for k, r in trained[0].rewards.items() if r is not None} if len(trained) == 1 else {}
    metrics = {k: float(v) for trace in trained for k, v in trace.metrics.items() if v is not None}
    return Earned(rewards[0], parts, metrics)


def _first(tasks: Iterable[Any], most: int) -> list[Any]:
    return list(itertools.islice(tasks, most or None))


def _shared_out(tasks: Sequence[Any], share: float, key: Any) -> Tasks:
    """Return the tasks with a share of them held out, at least one; their content decides, and equal ones stay
    together, so that neither order nor seed moves one from test to train."""
    size = len(tasks) - int(len(tasks) * (1 - share))
    if not share or not tasks:
        return Tasks(tasks, [])
    keys = [hashlib.sha256(key(task).encode()).hexdigest() for task in tasks]
    last = sorted(keys)[size - 1]
    train = [task for task, its in zip(tasks, keys, strict=True) if its > last]
    if not train:
        raise Refused(
            f"has {len(tasks)} task(s), too few to hold {share:g} of them out for the test. Set environment.held_out "
            "= 0, or let it bring an eval_dataset."
        )
    return Tasks(train, [task for task, its in zip(tasks, keys, strict=True) if its <= last])


def _row_key(row: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in row.items() if name not in ("example_id", "id")}
    return json.dumps(kept, sort_keys=True, default=str)


def _messages(prompt: Any) -> list[tuple[str, str]]:
    """Return a prompt as roles and texts; what is no text is named in brackets."""
    if prompt is None:
        return []
    if isinstance(prompt, str):
        return [("user", prompt)]
    return [(str(one.get("role", "user")), _text(one.get("content"))) for one in map(_plain, prompt)]


def _plain(message: Any) -> Mapping[str, Any]:
    return message if isinstance(message, Mapping) else dict(message)


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(
            str(one["text"]) if "text" in (one := _plain(part)) else f"[{one.get('type')}]" for part in content
        )
    return str(content)


def _told(error: BaseException) -> str:
    """Return one line about an exception, and the one that it came from, where that says more."""
    cause = error.__cause__ if error.__cause__ is not None and str(error.__cause__) not in str(error) else None
    at = traceback.extract_tb((cause or error).__traceback__)
    where = f" ({Path(at[-1].filename).name}, line {at[-1].lineno})" if at else ""
    lines = [f"{type(one).__name__}: {' '.join(str(one).split())[:400]}" for one in (error, cause) if one is not None]
    return ", from ".join(lines) + where
