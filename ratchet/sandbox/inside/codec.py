"""Plain values across the border between a test and the module under test.

Only data crosses, by exact type: a value cannot bring an `__eq__` or any other code with it. Owns the translation to
JSON and back; never unpickles or evaluates.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any


class CannotCross(BaseException):
    """A value that is not plain data. Not an `Exception`, so that no test takes it for a behaviour of the module."""


_LARGEST_PLAIN = 1 << 256
"""Integers beyond this go as hexadecimal text: decimal conversion is quadratic, and limited by the interpreter."""


def encode(value: object) -> object:
    """Return `value` as what JSON can hold. **Raises** `CannotCross` for anything that is not plain data."""
    try:
        return _encode(value)
    except RecursionError as error:
        raise CannotCross("a value nested too deep, or one that holds itself") from error


def _encode(value: object) -> object:
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        assert isinstance(value, int)
        return value if -_LARGEST_PLAIN < value < _LARGEST_PLAIN else {"t": "int", "v": hex(value)}
    if kind is list:
        assert isinstance(value, list)
        return [_encode(item) for item in value]
    if kind in (tuple, set, frozenset, deque):
        return {"t": kind.__name__, "v": [_encode(item) for item in value]}  # type: ignore[attr-defined]
    if kind in (dict, OrderedDict, Counter, defaultdict):
        name = "dict" if kind is defaultdict else kind.__name__
        return {"t": name, "v": [[_encode(k), _encode(v)] for k, v in value.items()]}  # type: ignore[attr-defined]
    if kind in (bytes, bytearray):
        return {"t": kind.__name__, "v": value.hex()}  # type: ignore[attr-defined]
    if kind is complex:
        assert isinstance(value, complex)
        return {"t": "complex", "v": [value.real, value.imag]}
    if kind is range:
        assert isinstance(value, range)
        return {"t": "range", "v": [_encode(n) for n in (value.start, value.stop, value.step)]}
    raise CannotCross(f"a value of type {kind.__name__} is not plain data")


def decode(value: object) -> object:
    """Return what `encode` was given. **Raises** ValueError, TypeError or KeyError for anything else."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    return _DECODERS[value["t"]](value["v"])


def _pairs(value: list[list[object]]) -> list[tuple[object, object]]:
    return [(decode(k), decode(v)) for k, v in value]


_DECODERS: dict[str, Callable[[Any], object]] = {
    "int": lambda v: int(v, 16),
    "tuple": lambda v: tuple(decode(i) for i in v),
    "set": lambda v: {decode(i) for i in v},
    "frozenset": lambda v: frozenset(decode(i) for i in v),
    "deque": lambda v: deque(decode(i) for i in v),
    "dict": lambda v: dict(_pairs(v)),
    "OrderedDict": lambda v: OrderedDict(_pairs(v)),
    "Counter": lambda v: Counter(dict(_pairs(v))),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda v: complex(*v),
    "range": lambda v: range(*map(int, map(decode, v))),  # type: ignore[arg-type]
}
