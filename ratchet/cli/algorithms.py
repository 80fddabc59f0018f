"""The table of algorithms as text, read from the rows themselves: docstring, parameters, defaults, bounds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from pydantic.fields import FieldInfo

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.table import ALGORITHMS
from ratchet.core.errors import ConfigError, nearest

SHARED = (
    "[algorithm] also takes, whatever its name: lr; kl_coef and kl (to the starting policy); sampler_kl_coef and "
    "sampler_kl;\nentropy_coef; correction, correction_mode, correction_high, correction_low (importance weights "
    "against the sampler).\nSee docs/configuration.md."
)
"""What every row has, in words."""


def list_text() -> str:
    """Return one paragraph per row: name, summary, equation, source."""
    return "\n".join(
        f"{name}\n    {_summary(row)}\n    {_equation(row)}\n    {_source(row)}" for name, row in ALGORITHMS.items()
    )


def row_text(name: str) -> str:
    """Return the full description of one row. Raises `ConfigError` with the nearest name if there is none."""
    if name not in ALGORITHMS:
        raise ConfigError(f'There is no algorithm "{name}".{nearest(name, ALGORITHMS)}')
    row = ALGORITHMS[name]
    lines = [name, "=" * len(name), inspect.getdoc(row) or "", "", "Options in [algorithm]:"]
    parameters = _parameters(row)
    lines += parameters or ["  none"]
    return "\n".join([*lines, "", SHARED])


def _parameters(row: Callable[..., Algorithm]) -> list[str]:
    """Return a line for each keyword: name, default, bounds, sentence."""
    hints = get_type_hints(row, include_extras=True)
    lines = []
    for name, parameter in inspect.signature(row).parameters.items():
        kind, *extra = get_args(hints[name]) or (hints[name],)
        field = next((e for e in extra if isinstance(e, FieldInfo)), None)
        limits = [getattr(kind, "__name__", str(kind)), *(_bound(m) for m in (field.metadata if field else ()))]
        lines.append(f"  {name} = {_shown(parameter.default)}  ({', '.join(limits)})")
        if field is not None and field.description:
            lines.append(f"      {field.description}")
    return lines


def _bound(constraint: Any) -> str:
    signs = {"Gt": ">", "Ge": "≥", "Lt": "<", "Le": "≤"}
    name = type(constraint).__name__
    if name in signs:
        return f"{signs[name]} {getattr(constraint, name.lower())}"
    return "finite" if str(constraint) == "allow_inf_nan=False" else str(constraint)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _paragraph(row: Callable[..., Algorithm]) -> str:
    return " ".join((inspect.getdoc(row) or "").split())


def _summary(row: Callable[..., Algorithm]) -> str:
    return (inspect.getdoc(row) or "").split("\n", 1)[0]


def _equation(row: Callable[..., Algorithm]) -> str:
    return next((e for e in re.findall(r"``(.+?)``", _paragraph(row)) if "=" in e), "")


def _source(row: Callable[..., Algorithm]) -> str:
    found = re.search(r"Source: (.+)$", _paragraph(row))
    return f"Source: {found[1]}" if found else ""
