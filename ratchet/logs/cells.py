"""Numbers as logs write them: quoted, as NumPy or torch print them, with a unit behind; and rows of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json  # three times as fast as the standard library's, and here already

WRAPPED = re.compile(
    r"^(?:np\.|numpy\.)?(?:u?int|float|bfloat|bool)\d*_?\((.*)\)$|^tensor\(\s*\[?([^],)]*)\]?.*\)$", re.S
)
LEADING = re.compile(r"\s*([-+]?(?:\d[\d,_]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?))", re.I)
INNER = ("data", "metrics", "logs")
"""Keys whose nested rows are the row itself: some writers put the numbers beside the step in one of these."""
LONG_TEXT = 300
"""A text of so many characters is a prompt or an answer, not a label."""
MAX_DEPTH = 4


def number(text: str) -> float | None:
    """Return the number a text stands for, or None: plain, quoted, ``np.float64(0.1)``, ``tensor(0.1)``."""
    text = text.strip().strip("'\"")
    try:
        return float(text)
    except ValueError:
        pass
    if found := WRAPPED.match(text):
        return number(found.group(1) or found.group(2) or "")
    return None


def parsed(text: str | bytes) -> Any:
    """Return what a text of JSON holds, NaN and infinities among it; None if it is no JSON."""
    try:
        return from_json(text)
    except ValueError:
        return None


def leading_number(text: str) -> float | None:
    """Return the number a text begins with, such as 35.7 of ``35.70s (12 %)``, or None."""
    found = LEADING.match(text)
    return number(found.group(1).replace(",", "").replace("_", "")) if found else None


def row_of(tree: Mapping[Any, Any]) -> tuple[tuple[str, ...], list[float], bool]:
    """Return keys, numbers, and whether long texts stood beside them, of a row as JSON or Python has it.

    Nested rows are flattened, ``{"a": {"b": 1}}`` to ``a/b``, but for those under ``data``, ``metrics`` or ``logs``.
    Texts that are no numbers, lists and nulls are left out: a key without a number is missing, not NaN.
    """
    try:  # most rows hold numbers and nothing else
        return tuple(tree), [float(value) for value in tree.values()], False
    except (TypeError, ValueError, OverflowError):
        pass
    for name in INNER:
        inner = tree.get(name)
        if isinstance(inner, Mapping) and inner:
            keys, values, texts = row_of(inner)
            rest = row_of({k: v for k, v in tree.items() if k != name and k not in inner}) if len(tree) > 1 else None
            return (keys, values, texts) if rest is None else (rest[0] + keys, rest[1] + values, texts or rest[2])
    pairs = dict(_pairs(tree, "", 0))
    return tuple(pairs), list(pairs.values()), _has_texts(tree)


def _pairs(tree: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, Mapping):
            if depth < MAX_DEPTH:
                yield from _pairs(value, f"{key}/", depth + 1)
        elif isinstance(value, int | float):
            try:
                yield key, float(value)
            except OverflowError:
                continue
        elif isinstance(value, str) and len(value) < 40:
            if key == "global_step/max_steps" and "/" in value:  # ms-swift: "5/3766"
                key, value = "global_step", value.partition("/")[0]
            if (read := number(value)) is not None:
                yield key, read


def _has_texts(tree: Mapping[Any, Any]) -> bool:
    return any(
        (isinstance(v, str) and len(v) > LONG_TEXT)
        or (isinstance(v, list) and bool(v) and isinstance(v[0], Mapping) and "role" in v[0])
        for v in tree.values()
    )
