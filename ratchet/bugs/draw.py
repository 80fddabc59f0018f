"""Inputs drawn from a seed: of given kinds, near inputs that are known, out of the literals that the source holds.

Written here and not taken from hypothesis: that library draws inside tests, for a property it then shrinks; drawing a
list of values reproducibly from a name is not what it offers, and it would become a dependency of every installation.
"""

from __future__ import annotations

import ast
import json
import random
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ratchet.bugs.kinds import TRIED, Kind, Signature, kind_of

Args = list[object]
_SMALL = 12
_LONGEST_STRING, _LONGEST_LIST = 24, 6
LONGEST_ARGS = 400
"""Characters of the arguments of a call, as JSON."""
_RELATED = 0.4
"""Share of arguments that are drawn out of the ones before them: unrelated ones would seldom, say, be a prefix."""
_CHARACTERS = string.ascii_lowercase * 2 + string.ascii_uppercase + string.digits + "    -_.,"


@dataclass(frozen=True, slots=True)
class Literals:
    """Values that the source and the known inputs hold: where they are, behaviour changes."""

    ints: tuple[int, ...]
    floats: tuple[float, ...]
    strings: tuple[str, ...]


def literals_of(tree: ast.AST, known: Iterable[Args]) -> Literals:
    """Return the literals of a source and of known inputs, in a fixed order."""
    values: list[object] = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and not _is_long(n.value)]
    for args in known:
        values += _inner(args)
    ints = {v for v in values if type(v) is int and abs(v) < 10**6}
    floats = {v for v in values if type(v) is float and abs(v) < 10**6}
    strings = {v for v in values if type(v) is str and v.isprintable()}
    return Literals(tuple(sorted(ints)), tuple(sorted(floats)), tuple(sorted(strings)))


def _is_long(value: object) -> bool:
    return isinstance(value, str) and len(value) > _LONGEST_STRING


def _inner(value: object) -> list[object]:
    if isinstance(value, list):
        return [inner for item in value for inner in _inner(item)]
    if isinstance(value, dict):
        return [*value, *(inner for item in value.values() for inner in _inner(item))]
    return [] if _is_long(value) else [value]


def _largest(value: object) -> int:
    """Return the largest whole number within a value, signs left aside; 0 if there is none."""
    return max((abs(v) for v in _inner(value) if type(v) is int), default=0)


class Drawer:
    """Draws values; what it draws depends on its generator alone."""

    def __init__(self, rng: random.Random, literals: Literals, *, small: bool = False) -> None:
        """With `small` no whole number is larger than a dozen: for functions that take long on larger ones."""
        self._rng, self._literals, self._small = rng, literals, small

    def inputs(self, signature: Signature, count: int, near: Sequence[Args] = ()) -> list[Args]:
        """Return up to `count` inputs, no two alike; half of them near those given, if any are."""
        found: dict[str, Args] = {}
        for _ in range(4 * count):
            args = self.near(self._rng.choice(near)) if near and self._rng.random() < 0.5 else self.fresh(signature)
            text = json.dumps(args)
            if len(text) <= LONGEST_ARGS and not (self._small and _largest(args) > _SMALL):
                found.setdefault(text, args)
            if len(found) == count:
                break
        return list(found.values())

    def fresh(self, signature: Signature) -> Args:
        """Return arguments of the kinds that the parameters take; now and then optional ones are left out."""
        length = self._rng.randint(signature.num_required, len(signature.parameters))
        args = []
        for parameter in signature.parameters[:length]:
            kind = self._rng.choice(parameter.kinds or TRIED)
            if parameter.has_literal_default and self._rng.random() < 0.3:
                args.append(parameter.default)
            elif related := self._related(kind, args) if self._rng.random() < _RELATED else []:
                args.append(self._rng.choice(related))
            else:
                args.append(self.value(kind))
        if signature.takes_more and length == len(signature.parameters):
            kind = kind_of(args[-1]) if args and self._rng.random() < 0.7 else self._rng.choice(TRIED)
            args += [self.value(kind) for _ in range(self._rng.randint(0, 3))]
        return args

    def _related(self, kind: Kind, args: Args) -> list[object]:
        """Return values of a kind that have to do with the arguments so far: a prefix, an item, a key, a length."""
        found: list[object] = []
        for value in args:
            match kind.name, value:
                case "str", str() if value:
                    at = self._rng.randint(0, len(value))
                    found += [value[:at], value[at:], value[at : at + 2], value[len(value) // 2]]
                case "int", str() | list():
                    found += [len(value), len(value) - 1, len(value) // 2]
                case "list", list() if value:
                    found += [value[: self._rng.randint(0, len(value))], value[::-1]]
            if isinstance(value, list | dict):
                found += [item for item in value if kind_of(item) == kind]
        return found

    def near(self, args: Args) -> Args:
        """Return arguments of which one, seldom two, are changed a little."""
        changed = json.loads(json.dumps(args))
        for _ in range(self._rng.choice((1, 1, 2))):
            if changed:
                place = self._rng.randrange(len(changed))
                changed[place] = self.varied(changed[place])
        assert isinstance(changed, list)
        return changed

    def value(self, kind: Kind) -> object:
        """Return a value of a kind."""
        rng = self._rng
        match kind.name:
            case "int":
                return self._int()
            case "float":
                pool = self._literals.floats
                near = rng.choice(pool) + rng.choice((-0.5, 0.0, 0.0, 0.5)) if pool else 0.5
                return rng.choice((near, round(rng.uniform(-10, 100), 2), float(self._int()), rng.randint(-20, 20) / 4))
            case "str":
                return self._string()
            case "bool":
                return rng.random() < 0.5
            case "list":
                inner = rng.choice(kind.of or TRIED[:2])
                return [self.value(inner) for _ in range(rng.choice((0, 1, 2, 3, 3, 4, 5, _LONGEST_LIST)))]
            case "dict":
                inner = rng.choice(kind.of or TRIED[:2])
                return {self._word(): self.value(inner) for _ in range(rng.randint(0, 4))}
        return None

    def _int(self) -> int:
        rng, pool = self._rng, self._literals.ints
        if self._small:
            return rng.randint(-3, _SMALL)
        near = rng.choice(pool) + rng.choice((-1, 0, 0, 1)) if pool else rng.randint(-2, _SMALL)
        return rng.choice((near, rng.randint(-3, _SMALL), rng.randint(0, _SMALL), rng.randint(-150, 1500)))

    def _word(self) -> str:
        pool = [s for s in self._literals.strings if s and len(s) < 12]
        if pool and self._rng.random() < 0.6:
            return self._rng.choice(pool)
        return "".join(self._rng.choices(string.ascii_lowercase, k=self._rng.randint(1, 5)))

    def _string(self) -> str:
        rng, pool = self._rng, self._literals.strings
        draw = rng.random()
        if pool and draw < 0.25:
            return rng.choice(pool)
        if pool and draw < 0.5:
            pieces = [rng.choice(pool) if rng.random() < 0.6 else self._word() for _ in range(rng.randint(1, 4))]
            return rng.choice(("", "", " ", "-", "_")).join(pieces)[:_LONGEST_STRING]
        if draw < 0.75:
            return " ".join(self._word() for _ in range(rng.randint(1, 4)))[:_LONGEST_STRING]
        alphabet = _CHARACTERS + "".join(pool)[:60] + rng.choice(("", "", "é", "\t"))
        return "".join(rng.choices(alphabet, k=rng.randint(0, 10)))

    def varied(self, value: object) -> object:
        """Return a value of the same kind that differs a little."""
        rng = self._rng
        match value:
            case bool():
                return not value
            case int():
                return rng.choice((value + 1, value - 1, -value, 0, 2 * value, value + 10, self._int()))
            case float():
                return rng.choice((value + 0.5, -value, value * 2, round(value), round(value, 1), 0.0))
            case str():
                return self._varied_string(value)
            case list():
                return self._varied_list(value)
            case dict():
                return self._varied_dict(value)
        return value

    def _varied_string(self, value: str) -> str:
        rng = self._rng
        at = rng.randint(0, len(value))
        other = rng.choice(value) if value else rng.choice(_CHARACTERS)
        changed = (
            value[:at] + value[at + 1 :],
            value[:at] + other + value[at:],
            value[:at] + rng.choice(_CHARACTERS) + value[at + 1 :],
            value[:at] + self._word() + value[at:],
            value.upper() if rng.random() < 0.3 else value.swapcase(),
            value[at:] + value[:at],
            value + value if len(value) < _LONGEST_STRING else value[: len(value) // 2],
            f" {value}" if rng.random() < 0.5 else f"{value} ",
        )
        return rng.choice(changed)

    def _varied_list(self, value: list[object]) -> list[object]:
        rng = self._rng
        if not value:
            return [self.value(rng.choice(TRIED[:2]))]
        at = rng.randrange(len(value))
        changed = (
            [*value[:at], *value[at + 1 :]],
            [*value[:at], self.varied(value[at]), *value[at + 1 :]],
            [*value[:at], value[at], *value[at:]],
            [*value[:at], self.value(kind_of(value[at])), *value[at:]],
            value[::-1],
            [*value[at:], *value[:at]],
            [*value, rng.choice(value)],
        )
        return rng.choice(changed)

    def _varied_dict(self, value: dict[str, object]) -> dict[str, object]:
        rng = self._rng
        if not value:
            return {self._word(): self._int()}
        key = rng.choice(list(value))
        changed = (
            {k: v for k, v in value.items() if k != key},
            {**value, key: self.varied(value[key])},
            {**value, self._word(): self.value(kind_of(value[key]))},
        )
        return rng.choice(changed)
