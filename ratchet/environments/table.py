"""Names to environments: the one table of the built-in ones, and the way to the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import BaseModel

from ratchet.core.errors import ConfigError, nearest
from ratchet.core.load import LoadError, is_path, load_object
from ratchet.core.protocols import Environment
from ratchet.environments.options import read_options

if TYPE_CHECKING:
    from ratchet.config.schema import SandboxSection

BUILT_IN: Mapping[str, str] = {
    "agents": "ratchet.environments.agents:Agents",
    "arithmetic": "ratchet.environments.arithmetic:Arithmetic",
    "gymnasium": "ratchet.environments.stepping:Stepping",
    "judge": "ratchet.environments.judge:Judge",
    "questions": "ratchet.environments.questions:Questions",
    "reasoning_gym": "ratchet.environments.gym:ReasoningGym",
    "reproduce": "ratchet.environments.reproduce:Reproduce",
    "swarm": "ratchet.environments.swarm:Swarm",
    "verifiers": "ratchet.environments.verifiers:Verifiers",
    "wide_search": "ratchet.environments.search:WideSearch",
}
"""Name to class. Classes are imported when asked for, so that listing the names stays quick."""


@runtime_checkable
class Closes(Protocol):
    """An environment that holds processes or files and gives them back on `close`."""

    def close(self) -> None:
        """Give everything back; may be called twice."""
        ...


@runtime_checkable
class UsesSandbox(Protocol):
    """An environment that runs code the policy wrote, and is told where."""

    def use_sandbox(self, section: SandboxSection) -> None:
        """Run such code as the section says; called before the first task, if at all."""
        ...


def build_environment(name: str, options: Mapping[str, object]) -> Environment:
    """Return the environment called `name`: a built-in one, ``file.py:ClassName`` or ``package.module:ClassName``.

    A class that is a pydantic model gets its options validated; any other gets them as keyword arguments.

    **Raises**: `ConfigError` if there is no such environment, its file cannot be used, or its options cannot.
    """
    path = BUILT_IN.get(name, name)
    if not is_path(path):
        raise ConfigError(f'environment.name = "{name}" is unknown.{nearest(name, [*BUILT_IN, "file.py:ClassName"])}')
    try:
        found = load_object(path)
    except LoadError as error:
        raise ConfigError(f"environment.name: {error}") from error
    if not inspect.isclass(found):
        raise ConfigError(f'environment.name = "{name}" is of type {type(found).__name__}; name a class instead.')
    environment = _make(found, options)
    if not isinstance(environment, Environment):
        missing = [part for part in ("name", "num_tasks", "task", "run") if part not in dir(environment)]
        raise ConfigError(
            f'environment.name = "{name}" lacks {", ".join(missing)}. An environment has a name and the methods '
            "num_tasks, task and run: see docs/rooms/environments.md."
        )
    return environment


def close_environment(environment: Environment) -> None:
    """Give back what an environment holds, if it holds anything."""
    if isinstance(environment, Closes):
        environment.close()


def _make(found: type, options: Mapping[str, object]) -> object:
    if issubclass(found, BaseModel):
        return read_options(found, options, where="environment")
    signature = inspect.signature(found)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    unknown = [option for option in options if option not in signature.parameters]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        hint = nearest(unknown[0], signature.parameters)
        raise ConfigError(f"environment.{unknown[0]} is no option of {found.__name__}.{hint}")
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ConfigError(f"environment: {error}. {found.__name__} takes {signature}.") from error
    return found(**options)
