"""Coefficients that change over steps, as values: a plain number, or a table naming its kind.

lr = 3e-4
lr = { kind = "cosine", start = 3e-3, end = 1.5e-4, steps = 1400, warmup = 50 }
interval = { kind = "steps", values = { 0 = 1, 40 = 20 } }
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Linear(_Table):
    """A straight line from `start` to `end` over `steps`, then `end`."""

    kind: Literal["linear"]
    start: float
    end: float
    steps: int = Field(ge=1, description="Length of the line, in steps.")
    warmup: int = Field(0, ge=0, description="Steps of linear rise from 0 to the line, in steps.")

    def at(self, step: int) -> float:
        done = min(1.0, step / self.steps)
        return _warm(step, self.warmup) * (self.start + (self.end - self.start) * done)


class Cosine(_Table):
    """Half a cosine from `start` to `end` over `steps`, then `end`."""

    kind: Literal["cosine"]
    start: float
    end: float
    steps: int = Field(ge=1, description="Length of the half wave, in steps.")
    warmup: int = Field(0, ge=0, description="Steps of linear rise from 0 to the curve, in steps.")

    def at(self, step: int) -> float:
        done = min(1.0, step / self.steps)
        return _warm(step, self.warmup) * (self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * done)))


class Steps(_Table):
    """A staircase: each value holds from its step on."""

    kind: Literal["steps"]
    values: dict[int, float] = Field(min_length=1, description="Step -> value; must hold step 0.")

    def at(self, step: int) -> float:
        return self.values[max(s for s in self.values if s <= step)]

    def model_post_init(self, _: object) -> None:
        if 0 not in self.values or min(self.values) < 0:
            raise ValueError("values must hold step 0 and no negative step")


class Constant(_Table):
    """The same value at every step."""

    kind: Literal["constant"]
    value: float

    def at(self, step: int) -> float:
        return self.value


def _warm(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _tag(value: object) -> str:
    if isinstance(value, int | float):
        return "number"
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return str(kind)


Curve = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Constant, Tag("constant")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Steps, Tag("steps")],
    Discriminator(
        _tag,
        custom_error_type="curve",
        custom_error_message='must be a number or a table with kind = "constant", "linear", "cosine" or "steps"',
    ),
]
"""A number, or a table that gives one for each step."""


KINDS = ("constant", "linear", "cosine", "steps")


def is_curve(value: object) -> bool:
    """Return whether a mapping is one value that changes over steps, and not a set of keys."""
    return isinstance(value, Mapping) and value.get("kind") in KINDS


def at(curve: float | Constant | Linear | Cosine | Steps, step: int) -> float:
    """Return the value of a curve at a step."""
    return float(curve) if isinstance(curve, int | float) else curve.at(step)


def values_of(curve: Curve) -> list[float]:
    """Return values that include a curve's smallest and largest (warm-up from 0 aside)."""
    match curve:
        case Linear() | Cosine():
            return [curve.start, curve.end]
        case Steps():
            return list(curve.values.values())
        case Constant():
            return [curve.value]
        case _:
            return [float(curve)]


def positive(curve: Curve) -> Curve:
    """Validator: every value of the curve is above 0."""
    if min(values_of(curve)) <= 0:
        raise ValueError("must be above 0 at every step")
    return curve


def whole(curve: Curve) -> Curve:
    """Validator: every value of the curve is a whole number, at least 1."""
    if any(v < 1 or v != int(v) for v in values_of(curve)) or not isinstance(curve, int | float | Constant | Steps):
        raise ValueError("must be a whole number, at least 1, at every step (a number or a staircase)")
    return curve


PositiveCurve = Annotated[Curve, AfterValidator(positive)]
WholeCurve = Annotated[Curve, AfterValidator(whole)]
