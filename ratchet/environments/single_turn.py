"""One question, one answer: the shape most environments have. Never keeps state; environments call it from `run`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, runtime_checkable

from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Task


@runtime_checkable
class Alphabet(Protocol):
    """An environment that knows which texts can appear: what a tiny policy's vocabulary is built from."""

    @property
    def words(self) -> tuple[str, ...]:
        """Return the strings of several characters that should be single tokens."""
        ...

    @property
    def characters(self) -> str:
        """Return every single character its prompts and demonstrations can hold, each once, sorted."""
        ...


async def ask_once(task: Task, policy: PolicyHandle, score: Callable[[Task, str], Awaitable[Score]]) -> Outcome:
    """Send the prompt, take one reply, and return what `score` makes of it."""
    reply = await policy.chat(task.prompt)
    return Outcome(await score(task, reply.text))


def messages(user: str, *, system: str = "") -> tuple[Message, ...]:
    """Return a conversation of one user message, after a system message unless that is empty."""
    opening = (Message("system", system),) if system else ()
    return (*opening, Message("user", user))


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return the template with each ``{name}`` of `values` replaced.

    Other braces stay as they are, so that templates and questions may hold code or LaTeX; a value is never expanded
    again.
    """
    names = "|".join(re.escape(name) for name in values)
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], template)


def missing_fields(template: str, names: tuple[str, ...]) -> list[str]:
    """Return those of `names` that do not appear as ``{name}`` in the template."""
    return [name for name in names if f"{{{name}}}" not in template]
