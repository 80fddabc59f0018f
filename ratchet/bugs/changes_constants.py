"""The changes of a mutant to constants: numbers, truth values, and texts as people mistype them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_STRING = re.compile(r"([rRuU]*)('''|\"\"\"|'|\")(.*)\2", re.DOTALL)
_SIBLINGS = {
    " ": "",
    "_": "-",
    "-": "_",
    ",": ";",
    ";": ",",
    ".": ",",
    "/": "-",
    ":": ";",
    "\\n": " ",
    "": " ",
    "0": "1",
}
"""What stands for a text of one character instead."""
_IN_PATTERNS = (
    ("+", "*"), ("*", "+"), ("?", ""), (r"\d", r"\w"), (r"\w", r"\d"), (r"\s", r"\w"), ("[^", "["), ("^", ""),
    ("$", ""), ("A-Z", "a-z"), ("a-z", "A-Z"), ("0-9", "1-9"), (r"\b", ""),
)  # fmt: skip
"""Slips in regular expressions: the first is written as the second."""
_LARGEST = 10**12


def constant_changes(node: ast.Constant, text: str, function: ast.FunctionDef | None) -> Iterator[tuple[str, str]]:
    """Yield (operator, text instead) for a constant that is written as `text`."""
    value = node.value
    match value:
        case bool():
            yield "constant", str(not value)
        case int() if value < _LARGEST:
            yield from _integer(value, text)
        case float():
            yield from (("constant", repr(other)) for other in (value * 2, value + 1) if other != value)
        case str():
            yield from _string(value, text, function)


def _integer(value: int, text: str) -> Iterator[tuple[str, str]]:
    for other in (value + 1, value - 1):
        if other >= 0:
            yield "constant", hex(other) if text[:2] in ("0x", "0X") else str(other)


def _string(value: str, text: str, function: ast.FunctionDef | None) -> Iterator[tuple[str, str]]:
    found = _STRING.fullmatch(text)
    if found is None or "\n" in text or value != _read(text):
        return  # several pieces, or lines: not worth the trouble
    prefix, quote, inner = found.groups()
    if "r" in prefix.lower():
        for old, new in _IN_PATTERNS:
            at = inner.find(old)
            while at >= 0:
                yield "pattern", f"{prefix}{quote}{inner[:at]}{new}{inner[at + len(old) :]}{quote}"
                at = inner.find(old, at + len(old))
        return
    if inner in _SIBLINGS:
        yield "string", f"{prefix}{quote}{_SIBLINGS[inner]}{quote}"
    elif len(value) > 1:
        yield "string", f"{prefix}{quote}{inner[:-1]}{quote}"
        if inner[0] != "\\":
            yield "string", f"{prefix}{quote}{inner[0].swapcase()}{inner[1:]}{quote}"
    elif inner.isalpha():
        yield "string", f"{prefix}{quote}{inner.swapcase()}{quote}"
    yield from (("string", other) for other in _others(value, function))


def _read(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _others(value: str, function: ast.FunctionDef | None) -> list[str]:
    """Return up to two other texts of the same function, of about the same length: the wrong one of several."""
    if function is None:
        return []
    texts = {n.value for n in ast.walk(function) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    near = sorted(
        (abs(len(t) - len(value)), t) for t in texts - {value, ast.get_docstring(function, clean=False) or ""}
    )
    return [repr(t) for distance, t in near[:2] if distance <= 3]
