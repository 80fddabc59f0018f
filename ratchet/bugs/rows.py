"""A kept mutant as a line that the environment `reproduce` reads."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.bugs.choose import Case, Judged
from ratchet.bugs.closure import OneFile

_FEW_WORDS = 4
"""A docstring of fewer says too little to test by; examples are put under it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One line."""

    content: Mapping[str, object]
    operator: str
    line: int
    function: str


def specification(node: ast.FunctionDef, examples: Sequence[Case], level: int) -> str:
    """Return what a function is meant to do: its signature and docstring, or its signature and examples without one."""
    docstring = inspect.cleandoc(ast.get_docstring(node) or "")
    parts = [_signature(node), *([docstring] if docstring else [])]
    if len(docstring.split()) < _FEW_WORDS:
        shown = [_example(node.name, case, level) for case in examples]
        parts.append("Examples:\n" + "\n".join(shown))
    return "\n\n".join(parts)


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def _example(name: str, case: Case, level: int) -> str:
    call = f"{name}({', '.join(map(repr, case.args))})"
    asked = (call, f"list({call})", f"[list(row) for row in {call}]")[level]
    return f">>> {asked}\n{case.expected!r}"


@dataclass(frozen=True, slots=True)
class Origin:
    """What the lines of a function have in common."""

    function: str
    """Dotted."""
    file: OneFile
    version: str
    """Distribution and version; empty if unknown."""
    num_inputs: int
    """Inputs that its mutants were run over."""
    level: int


def pair_of(origin: Origin, number: int, spec: str, cases: Sequence[Case], one: Judged) -> Pair:
    """Return the line of a kept mutant; `number` tells it from others of the same operator on the same line."""
    mutant = one.mutant
    content: dict[str, object] = {
        "name": f"{origin.function} {number}: {mutant.operator}, line {mutant.line}",
        "entry_point": origin.file.entry,
        "spec": spec,
        "buggy": mutant.source,
        "fixed": origin.file.text,
        "testcases": [{"args": case.args, "expected": case.expected} for case in cases],
        "raises": list(one.raises),
        **({"listed": origin.level} if origin.level else {}),
        "function": origin.function,
        "operator": mutant.operator,
        "line": mutant.line,
        "reveals": round(len(one.reveals) / origin.num_inputs, 4),
        "inputs": origin.num_inputs,
        **({"from": origin.version} if origin.version else {}),
    }
    return Pair(content, mutant.operator, mutant.line, origin.function)
