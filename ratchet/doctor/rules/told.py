"""How a rule says what it found: a finding about a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet.doctor.curve import Curve
from ratchet.doctor.finding import Cause, Finding, Severity, Wanted


def found(
    rule: str,
    severity: Severity,
    curve: Curve,
    stretch: tuple[int, int],
    sentence: str,
    *,
    numbers: Mapping[str, float] | None = None,
    causes: Sequence[Cause] = (),
    check: Sequence[str] = (),
    change: Sequence[str] = (),
    sources: Sequence[str] = (),
    wanted: Wanted | None = None,
) -> Finding:
    """Return a finding about the bins ``stretch[0] .. stretch[1]`` of a curve."""
    first, last = curve.first_step(stretch[0]), curve.last_step(min(stretch[1], len(curve) - 1))
    return Finding(
        rule,
        severity,
        curve.name,
        curve.key,
        first,
        last,
        sentence,
        {name: float(value) for name, value in (numbers or {}).items()},
        tuple(causes),
        tuple(check),
        tuple(change),
        tuple(sources),
        wanted,
    )


def stretch_of(curve: Curve, stretch: tuple[int, int]) -> str:
    """Return ``step a to b`` for bins of a curve."""
    first, last = curve.first_step(stretch[0]), curve.last_step(min(stretch[1], len(curve) - 1))
    return f"step {first} to {last}" if last > first else f"step {first}"
