"""Likely causes of what a rule found, ranked by what else moved at the same time. Pure.

A suspect is a series and a direction. It is a cause with evidence if the series moved that way between the level before
the finding and the level in it, by more than its own noise; the evidence says from what to what. Usual causes without
evidence come last, and say nothing of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.doctor.curve import Curve
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Cause

UP, DOWN = 1, -1
SPIKE = 5.0
"""Factor over the median that makes a gradient a spike here: Adam bounds a step, but not its moments' memory."""
CAPPED = 99.0
"""Largest strength of a piece of evidence: beyond it, noise was too small to rank by."""


@dataclass(frozen=True, slots=True)
class Move:
    """How a series' level changed between two stretches of steps."""

    curve: Curve
    before: float
    after: float
    z: float

    @property
    def factor(self) -> float:
        """Return after over before; infinite from nothing."""
        return self.after / self.before if self.before > 0 else math.inf

    @property
    def counts(self) -> bool:
        return abs(self.z) > self.curve.needed

    def told(self) -> str:
        """Return the move as a sentence."""
        word = "rose" if self.after > self.before else "fell"
        return f"{self.curve.name} {word} from {short(self.before)} to {short(self.after)}"


def short(value: float) -> str:
    """Return a number with three digits."""
    if not math.isfinite(value):
        return str(value)
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def moved(evidence: Evidence, name: str, before: int, after: int, *, log: bool = False) -> Move | None:
    """Return how the level of a series changed from that at step `before` to that at step `after`."""
    curve = evidence.curve(name, log=log)
    if curve is None:
        return None
    a, b, half = curve.at(before), curve.at(after), curve.edge // 2
    low = curve.level(a - half, a + half + 1)
    high = curve.level(b - half, b + half + 1)
    return Move(curve, curve.real(low), curve.real(high), curve.z(high - low))


@dataclass(frozen=True, slots=True)
class Suspect:
    """A series whose move speaks for a cause."""

    name: str
    direction: int
    factor: float
    """Least factor of the move; 1 where any move beyond noise counts."""
    text: str
    log: bool = True


SUSPECTS_OF_A_FALL: tuple[Suspect, ...] = (
    Suspect("kl/ref", UP, 2.0, "The policy ran away from where it started: the update steps are too large."),
    Suspect("entropy", UP, 1.5, "The policy lost its certainty: it is being pushed away from its own answers."),
    Suspect("entropy", DOWN, 0.5, "Exploration ended: the policy gives nearly the same answer every time."),
    Suspect("len/truncated_frac", UP, 1.5, "Answers run into the token limit and earn nothing.", log=False),
    Suspect("len/response/mean", UP, 1.25, "Answers grow without being better."),
    Suspect("len/response/mean", DOWN, 0.75, "Answers have become too short to be right."),
    Suspect("kl/old", UP, 3.0, "The samples are too old for the weights that are trained on them."),
    Suspect("stale/mean", UP, 1.5, "The samples are too old for the weights that are trained on them.", log=False),
    Suspect("kl/sampler", UP, 3.0, "Sampler and trainer no longer compute the same."),
    Suspect("clip/frac", UP, 2.0, "Much of the batch is clipped: the policy moved too far for one batch.", log=False),
    Suspect("signal/token_advantage", DOWN, 1.0, "Pushing wrong answers down outweighs pushing right ones up.",
            log=False),
    Suspect("signal/zero_groups_frac", UP, 1.5, "Most groups teach nothing, so noise steers.", log=False),
    Suspect("opt/grad_norm", UP, 2.0, "The gradient grew before: a step was too large."),
)  # fmt: skip
"""What may make a reward fall, and how it shows."""


def causes_of_fall(evidence: Evidence, before: int, after: int) -> tuple[Cause, ...]:
    """Return likely causes of a reward's fall between two steps, those with the strongest evidence first."""
    return ranked([*suspected(evidence, SUSPECTS_OF_A_FALL, before, after), *fallen_parts(evidence, before, after),
                   *lost_rollouts(evidence, before, after), *spiked(evidence, before, after)])  # fmt: skip


def suspected(evidence: Evidence, suspects: Iterable[Suspect], before: int, after: int) -> list[Cause]:
    """Return the causes whose series moved."""
    found = []
    for suspect in suspects:
        move = moved(evidence, suspect.name, before, after, log=suspect.log)
        if move is None or not move.counts or move.z * suspect.direction < 0:
            continue
        if suspect.factor != 1.0 and not math.isinf(move.factor):
            enough = move.factor >= suspect.factor if suspect.direction == UP else move.factor <= suspect.factor
            if not enough:
                continue
        found.append(Cause(suspect.text, (f"{move.told()} over the same steps.",), min(abs(move.z), CAPPED)))
    return found


def fallen_parts(evidence: Evidence, before: int, after: int) -> list[Cause]:
    """Return which components of the reward fell; one cause for each."""
    found = []
    moves = [m for name in evidence.parts() if (m := moved(evidence, name, before, after)) is not None]
    whole = sum(max(0.0, m.before - m.after) for m in moves)
    for move in moves:
        fall = move.before - move.after
        if fall > 0 and move.counts and fall >= 0.25 * whole and len(moves) > 1:
            name = move.curve.name.removeprefix("reward/parts/")
            told = f"{move.told()}: {fall / whole:.0%} of what the parts lost together."
            found.append(Cause(f'The component "{name}" fell.', (told,), min(abs(move.z), CAPPED)))
    return found


def lost_rollouts(evidence: Evidence, before: int, after: int) -> list[Cause]:
    """Return losses of rollouts over the steps: timeouts of the reward first."""
    found = []
    for text, names in (
        ("Rewards time out, so what is trained on is a biased rest.", timeouts(evidence)),
        ("Rollouts are lost before they are scored.", losses(evidence)),
    ):
        curve = share_lost(evidence, names)
        if curve is None:
            continue
        a, b = curve.at(min(before, after)), curve.at(max(before, after))
        share = curve.level(a, b + 1)
        if share >= LOST:
            told = f"{share:.0%} of the rollouts were lost to {reasons(names)} from step {before} to {after}."
            found.append(Cause(text, (told,), CAPPED))
    return found[:1]


LOST = 0.05
"""Share of lost rollouts from which on a loss is worth a word: the rest is no longer a fair sample of the attempts."""


def timeouts(evidence: Evidence) -> list[str]:
    """Return the series that count rewards which did not return."""
    return [n for n in losses(evidence) if "timeout" in n and "rollout_timeout" not in n]


def losses(evidence: Evidence) -> list[str]:
    """Return the series that count or measure lost rollouts, those that were refused for their age left out."""
    return [n for n in evidence.names("drop/*", "drop_frac/*") if "stale" not in n]


def share_lost(evidence: Evidence, names: Sequence[str]) -> Curve | None:
    """Return the share of the rollouts asked for that some series count as lost."""
    counts = [n for n in names if n.startswith("drop/")]
    found = evidence.share(counts, "rollouts/asked") if counts else None
    return found or next((c for n in names if n.startswith("drop_frac/") and (c := evidence.curve(n))), None)


def reasons(names: Sequence[str]) -> str:
    """Return reasons as words."""
    return ", ".join(n.partition("/")[2].replace("_", " ") for n in names) or "no reason given"


def spiked(evidence: Evidence, before: int, after: int) -> list[Cause]:
    """Return a spike of the gradient shortly before or while the reward fell."""
    found = evidence.values("opt/grad_norm")
    if found is None or len(found[0]) < 8:
        return []
    steps, values = found
    reach = max(1, (after - before) // 2)
    inside = (steps >= before - reach) & (steps <= after)
    typical = float(np.median(values))
    if not inside.any() or typical <= 0 or float(values[inside].max()) < SPIKE * typical:
        return []
    at = int(steps[inside][int(np.argmax(values[inside]))])
    told = f"opt/grad_norm was {short(float(values[inside].max()))} at step {at}, {short(typical)} as a rule."
    return [Cause("One update was far too large.", (told,), float(values[inside].max()) / typical)]


def ranked(causes: Iterable[Cause], usual: Sequence[str] = ()) -> tuple[Cause, ...]:
    """Return causes strongest first, one of each text, then the usual ones without evidence."""
    best: dict[str, Cause] = {}
    for cause in sorted(causes, key=lambda c: -c.strength):
        held = best.setdefault(cause.text, cause)
        if held is not cause:
            best[cause.text] = Cause(cause.text, (*held.evidence, *cause.evidence), held.strength)
    return (*best.values(), *(Cause(text) for text in usual if text not in best))
