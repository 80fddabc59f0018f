"""Rules about sub-agents: none are used any more, many are used for nothing, or fewer at first and more later."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ratchet.doctor.causes import DOWN, UP, Suspect, ranked, short, suspected
from ratchet.doctor.curve import Curve
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Finding, Severity, Wanted
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.told import found
from ratchet.doctor.shape import FALLING

SERIAL = 0.4
"""Share of the parallelism beyond 1 that is left in a serial collapse."""
SPURIOUS = 1.5
"""Factor of parallelism that the task must have something to show for."""
DIP, SURGED = 0.07, 1.25
"""Share of the start lost in the dip, and factor over its lowest level at the end. The published curve falls from 8.3
to 7.5 (10 %) and ends at 13.5."""

K2_5 = "Kimi K2.5 (PARL): serial collapse and spurious parallelism as the two ways to fail"
NAMES = ("env/parallelism", "parallelism", "agents/spawned")


def _parallelism(evidence: Evidence) -> Curve | None:
    return evidence.first_of(*NAMES, *evidence.names("*parallelism*"))


def serial_collapse(evidence: Evidence) -> Iterator[Finding]:
    """Find parallelism that has gone back to nearly one agent at a time."""
    curve = _parallelism(evidence)
    if curve is None or curve.name == "agents/spawned" or curve.start <= 1.5:
        return
    best = max(curve.start, float(np.max(curve.s)))
    if curve.end - 1 > SERIAL * (best - 1) or not curve.counts(best - curve.end):
        return
    last = len(curve) - 1
    onset = curve.onset(int(np.argmax(curve.s)), last, DOWN)
    suspects = (
        Suspect(
            "env/finish_rate", UP, 1.05, "Finishing pays more than searching: few agents finish more often.", log=False
        ),
        Suspect("reward/parts/finish", UP, 1.05, "Finishing pays more than searching.", log=False),
    )
    causes = suspected(evidence, suspects, *evidence.span)
    yield found(
        "serial_collapse", Severity.WARNING, curve, (onset, last),
        f"Agents work one after the other: parallelism fell from {short(best)} to {short(curve.end)}.",
        numbers={"best": best, "end": curve.end},
        causes=ranked(causes, ("Parallel work is paid too little, or for too short a time.",
                               "Delegation fails so often that doing it alone pays.")),
        check=("Do agents fail more often when many run at once?",),
        change=(change(evidence, "Pay parallel work longer, and finishing less", Option.WEIGHTS),),
        sources=(K2_5,), wanted=Wanted(curve.first_step(onset), curve.last_step(last), "lowest"),
    )  # fmt: skip


def spurious_parallelism(evidence: Evidence) -> Iterator[Finding]:
    """Find parallelism that grew by half and more while the task gained nothing."""
    curve, task = _parallelism(evidence), evidence.task
    if curve is None or task is None or curve.start <= 0:
        return
    if curve.end < SPURIOUS * curve.start or not curve.counts(curve.end - curve.start):
        return
    gained = task.end - task.start
    if gained >= 0.5 * task.worth and (task.curve.counts(gained) or task.curve.trend().rises()):
        return
    suspects = (
        Suspect("env/duplicates", UP, 1.2, "The same work is given out several times.", log=False),
        Suspect("env/finish_rate", DOWN, 0.95, "Ever fewer of the agents finish.", log=False),
        Suspect("reward/parts/parallel", UP, 1.1, "Agents are paid for being there.", log=False),
    )
    causes = suspected(evidence, suspects, *evidence.span)
    last = len(curve) - 1
    yield found(
        "spurious_parallelism", Severity.WARNING, curve, (0, last),
        f"Parallelism grew from {short(curve.start)} to {short(curve.end)}, but {task.curve.name} went from "
        f"{short(task.start)} to {short(task.end)}: agents are launched for their own sake.",
        numbers={"start": curve.start, "end": curve.end, "task_start": task.start, "task_end": task.end},
        causes=ranked(causes, ("Parallel work is paid for whatever it brings.",)),
        check=("Are there agents whose result is never used?",),
        change=(change(evidence, "Pay parallel work less, or only different and finished work", Option.WEIGHTS),),
        sources=(K2_5,), wanted=Wanted(curve.first_step(last), curve.last_step(last), "longest"),
    )  # fmt: skip


def parallel_dip_surge(evidence: Evidence) -> Iterator[Finding]:
    """Find parallelism that first falls and then rises well above where it began.

    As a logarithm: numbers of agents vary in proportion to what they are, so twice as many vary twice as much.
    """
    plain = _parallelism(evidence)
    curve = None if plain is None else evidence.curve(plain.name, log=True)
    if curve is None or len(curve) < 3 * curve.edge:
        return
    valley, half = int(np.argmin(curve.s)), curve.edge // 2
    low = curve.level(valley - half, valley + half + 1)
    before = float(np.max(curve.s[: valley + 1])) if valley else curve.start
    if before - low < -math.log(1 - DIP) or curve.end < max(low + math.log(SURGED), before):
        return
    # A valley of a short run is as long as its noise seems to be, but down to it goes a trend.
    dips = curve.counts(before - low) or curve.trend(0, valley + 1).falls(FALLING)
    if not (dips and curve.counts(curve.end - low)):
        return
    before, low, end = (curve.real(level) for level in (before, low, curve.end))
    yield found(
        "parallel_dip_surge", Severity.INFO, curve, (0, len(curve) - 1),
        f"Parallelism fell from {short(before)} to {short(low)} at step {curve.first_step(valley)} and then rose to "
        f"{short(end)}: what pays at first (agents that finish) is not what pays later (the task).",
        numbers={"start": before, "lowest": low, "end": end},
        sources=(K2_5,),
    )  # fmt: skip
