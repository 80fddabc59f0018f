"""The form of a framework's table: key patterns, what they mean, and what its steps count.

Patterns, and the names they lead to, are written with three signs:

    {mean,max,min}   one of these words; stands for {0}, {1}, ... in the name, in order of appearance
    <name>           one part of a key, up to the next slash; likewise
    <name...>        any rest, slashes included; likewise

``avg`` becomes ``mean`` on the way into a name. The first row of a table whose pattern fits a key counts; of several
keys that lead to one name in the same log, the one that stands first in the table holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ratchet.logs.log import StepAxis

_SIGNS = re.compile(r"\{([^}]*)\}|<(\w+)(\.\.\.)?>")
_WORDS = {"avg": "mean"}


@dataclass(frozen=True, slots=True)
class Key:
    """A row of a table: a key pattern of the framework, the canonical name, and what to know about it."""

    pattern: str
    name: str
    meaning: str = ""
    """What this framework's quantity is, where the canonical name alone may mislead."""
    common: bool = False
    """Whether any program might have such a key, so that it says nothing about who wrote the log."""
    change: str = ""
    """What the pattern takes off the key, said in words; empty where nothing is worth saying."""


@dataclass(frozen=True, slots=True)
class Product:
    """A series made of two others on the steps where both are: their product, difference, or such."""

    name: str
    left: str
    """Key pattern without signs."""
    sign: str
    """``-`` or ``*``"""
    right: str
    meaning: str
    change: str


@dataclass(frozen=True, slots=True)
class StepKey:
    """A key that holds the step of the keys of its row that begin with `prefix`."""

    key: str
    axis: StepAxis
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework's way of logging."""

    name: str
    title: str
    axis: StepAxis
    keys: tuple[Key, ...]
    wrappers: tuple[str, ...] = ()
    """Prefixes that some of its backends put before every key."""
    steps: tuple[StepKey, ...] = ()
    """Its own step keys, the ones for a prefix first. Common ones (``step``, ``global_step``) need not be named."""
    products: tuple[Product, ...] = ()
    hints: Mapping[str, str] = field(default_factory=dict)
    """Shape of rows (see `formats`) -> why it speaks for this framework."""
    caution: Mapping[str, str] = field(default_factory=dict)
    """Canonical name -> a sentence to say once when a log has it."""
    extends: Framework | None = None
    """A framework whose rows it writes as well; asked after its own table."""


@dataclass(frozen=True, slots=True)
class Match:
    """A key that a table knows."""

    key: Key
    order: int
    """Row of the table, for precedence."""
    name: str
    change: str


def match(framework: Framework, key: str) -> Match | None:
    """Return what a framework's table says of a key, or None."""
    found = own_match(framework, key)
    if found is None and framework.extends is not None:
        found = match(framework.extends, key)
        return found and replace(found, order=found.order + len(framework.keys))
    return found


def own_match(framework: Framework, key: str) -> Match | None:
    """Return what a framework's table says of a key, that of the framework it extends left aside."""
    table = _TABLES.get(framework.name)
    if table is None:
        table = _TABLES[framework.name] = _Table(framework.keys, framework.wrappers)
    return table.find(key)


class _Table:
    """A table made ready for looking up."""

    def __init__(self, keys: tuple[Key, ...], wrappers: tuple[str, ...]) -> None:
        self._wrappers = wrappers
        self._plain: dict[str, int] = {}
        self._patterns: list[tuple[int, str, re.Pattern[str]]] = []
        self._keys = keys
        self._known: dict[str, Match | None] = {}
        for i, key in enumerate(keys):
            if sign := _SIGNS.search(key.pattern):
                self._patterns.append((i, key.pattern[: sign.start()], _compiled(key.pattern)))
            else:
                self._plain.setdefault(key.pattern, i)

    def find(self, key: str) -> Match | None:
        if key not in self._known:
            if len(self._known) > 100_000:  # a log of random keys must not fill the memory
                self._known.clear()
            self._known[key] = self._search(key)
        return self._known[key]

    def _search(self, key: str) -> Match | None:
        found = self._first(key)
        for wrapper in self._wrappers:
            if found is not None:
                break
            if key.startswith(wrapper):
                found = self._first(key[len(wrapper) :])
        return found

    def _first(self, key: str) -> Match | None:
        plain = self._plain.get(key)
        for i, begin, pattern in self._patterns:
            if plain is not None and plain < i:
                break
            if key.startswith(begin) and (found := pattern.fullmatch(key)):
                row = self._keys[i]
                return Match(row, i, _filled(row.name, found.groups()), row.change)
        if plain is None:
            return None
        return Match(self._keys[plain], plain, self._keys[plain].name, self._keys[plain].change)


_TABLES: dict[str, _Table] = {}
"""Tables made ready, by framework."""


def _compiled(pattern: str) -> re.Pattern[str]:
    parts, end = [], 0
    for sign in _SIGNS.finditer(pattern):
        parts.append(re.escape(pattern[end : sign.start()]))
        if sign.group(1) is not None:
            parts.append(f"({'|'.join(re.escape(word) for word in sign.group(1).split(','))})")
        else:
            parts.append("(.+)" if sign.group(3) else "([^/]+)")
        end = sign.end()
    parts.append(re.escape(pattern[end:]))
    return re.compile("".join(parts))


def _filled(name: str, groups: tuple[str, ...]) -> str:
    for i, group in enumerate(groups):
        name = name.replace(f"{{{i}}}", _WORDS.get(group, group))
    return name
