"""What a rollback may change: one setting at a time, chosen from those that are allowed. Pure functions of a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.config.curve import at, values_of
from ratchet.config.guard import RemedyName
from ratchet.config.schema import RunConfig

SLOWER = 0.3
"""What the learning rate is multiplied by."""
FRESHER = 4
"""What the interval between refreshes of the sampler is divided by."""
LEAST_KL = 0.01
"""Coefficient of the KL term where there was none; a larger one is doubled."""
MASK = (0.5, 2.0)
"""Importance weights outside are masked: the bounds of IcePop (arXiv 2510.18855)."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the config, and why it may help."""

    name: RemedyName
    changes: Mapping[str, Any]
    """Nested, to be laid over the config."""
    sentence: str
    fresh_optimiser: bool = False
    """Whether the optimiser's moments are forgotten as well."""


def choose_remedy(config: RunConfig, step: int, used: Sequence[str], wanted: Sequence[str] = ()) -> Remedy | None:
    """Return what is to be changed at a step, or None if nothing that is allowed applies.

    `wanted` names what a finding asks for, most likely first; after it comes the config's own order. What was not tried
    yet comes before what was (`used`).
    """
    allowed = config.guard.remedies
    order = [name for name in (*wanted, *allowed) if name in allowed]
    fresh, again = [n for n in order if n not in used], [n for n in order if n in used]
    for name in dict.fromkeys((*fresh, *again)):
        if (remedy := REMEDIES[name](config, step)) is not None:
            return remedy
    return None


def _sync(config: RunConfig, step: int) -> Remedy | None:
    largest = int(max(values_of(config.sync.interval)))
    if config.sync.offline or config.data.from_run or largest == 1:
        return None
    interval = max(1, largest // FRESHER)
    return Remedy(
        "sync",
        {"sync": {"interval": interval}},
        f"sample with weights that are at most {interval} steps old (sync.interval, at most {largest} before)",
    )


def _lr(config: RunConfig, step: int) -> Remedy:
    now = at(config.algorithm.lr, step)
    return Remedy(
        "lr",
        {"algorithm": {"lr": float(f"{SLOWER * now:.3g}")}},
        f"smaller steps (algorithm.lr {now:.3g} -> {SLOWER * now:.3g})",
    )


def _kl(config: RunConfig, step: int) -> Remedy | None:
    if not config.train.reference_kl:
        return None
    now = at(config.algorithm.kl_coef, step)
    after = max(LEAST_KL, 2 * now)
    return Remedy(
        "kl",
        {"algorithm": {"kl_coef": after}},
        f"stay nearer to the starting policy (algorithm.kl_coef {now:g} -> {after:g})",
    )


def _mask(config: RunConfig, step: int) -> Remedy | None:
    algorithm, (low, high) = config.algorithm, MASK
    if config.data.from_run:
        return None
    if algorithm.correction == "token" and algorithm.correction_mode == "mask":
        low, high = (1 + algorithm.correction_low) / 2, (1 + algorithm.correction_high) / 2
    changes = {"correction": "token", "correction_mode": "mask", "correction_low": low, "correction_high": high}
    return Remedy(
        "mask",
        {"algorithm": changes},
        f"leave out tokens whose importance weight lies outside {low:g} to {high:g} (algorithm.correction)",
    )


def _optimiser(config: RunConfig, step: int) -> Remedy:
    return Remedy("optimiser", {}, "forget the optimiser's moments", fresh_optimiser=True)


REMEDIES: Mapping[RemedyName, Callable[[RunConfig, int], Remedy | None]] = {
    "sync": _sync, "lr": _lr, "kl": _kl, "mask": _mask, "optimiser": _optimiser,
}  # fmt: skip
