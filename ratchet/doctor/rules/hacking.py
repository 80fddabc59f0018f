"""Rules about what the reward is made of: hacking, a component that dies, form without content."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ratchet.doctor.causes import DOWN, UP, Suspect, causes_of_fall, moved, ranked, short, suspected
from ratchet.doctor.curve import Curve
from ratchet.doctor.evidence import MIN_EVALS, Evidence, is_format, is_task
from ratchet.doctor.finding import Finding, Severity, Wanted
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.told import found
from ratchet.doctor.shape import LEAST, Shape, shape_of

FOLLOWS = 1 / 3
"""Share of the reward's rise, each as a share of its scale, that the task's measure must be able to have made (upper
end of its slope's interval): below it, two thirds of the gain are not on the task."""
TOP = 0.95
"""Measure above which the task has no room to follow."""
DEAD = 0.5
"""Share of its best level above its lowest that a component must lose."""
FORM = 0.7
"""Share of the total gain that form must make up."""

HACKING = "Gao et al. 2023 (arXiv 2210.10760): proxy reward against gold reward; trl#6350 on what cannot be foreseen"
FORMAT = "open-r1#239 and many like it: format is learned first, and may be all that is learned"


def hacking_suspicion(evidence: Evidence) -> Iterator[Finding]:
    """Find a reward that rises while what measures the task does not."""
    shape = evidence.reward
    if shape is None or not shape.has_risen:
        return
    for name in _measures(evidence):
        curve = evidence.curve(name, least=MIN_EVALS)
        if curve is None:
            continue
        task = shape_of(curve, 1.0 if _is_share(curve) else shape.scale)
        if not _stays_behind(shape, task, is_part=name in evidence.parts()):
            return  # the best measure there is follows: no suspicion
        yield _hacked(evidence, shape, task)
        return


def _measures(evidence: Evidence) -> list[str]:
    """Return what measures the task apart from the reward, best first."""
    names = [n for n in evidence.parts() if is_task(n)]
    return [*evidence.evaluations(), *(names if len(evidence.parts()) > 1 else [])]


def _stays_behind(shape: Shape, task: Shape, *, is_part: bool) -> bool:
    """Return whether the task's measure cannot have risen with the reward, and had room to.

    A part of the reward has its unit, so what it made of the rise is known without either scale.
    """
    curve = task.curve
    most = task.end - task.start + 2 * curve.error(curve.edge)
    if is_part and most >= FOLLOWS * shape.risen:
        return False
    if _is_share(curve) and curve.end >= TOP:
        return False
    first, last = shape.curve.first_step(0), shape.curve.last_step(len(shape.curve) - 1)
    if curve.first_step(0) > first + (last - first) / 3 or curve.last_step(len(curve) - 1) < last - (last - first) / 3:
        return False  # measured on another stretch of the run
    trend = curve.trend()
    if trend.rises() and trend.change >= LEAST * task.scale:
        return False
    return max(trend.high, most) / task.scale < FOLLOWS * shape.risen / shape.scale


def _is_share(curve: Curve) -> bool:
    return bool(curve.y.min() >= 0 and curve.y.max() <= 1)


def _hacked(evidence: Evidence, shape: Shape, task: Shape) -> Finding:
    curve, last = shape.curve, len(shape.curve) - 1
    fell = task.end < task.start and task.curve.counts(task.end - task.start)
    suspects = (
        Suspect("len/response/mean", UP, 1.25, "The reward pays for length."),
        Suspect("len/response/mean", DOWN, 0.75, "The reward pays for short answers."),
        Suspect("kl/ref", UP, 3.0, "The policy went far from its start to where the reward is wrong."),
        Suspect("entropy", DOWN, 0.4, "All answers became alike: one trick that pays."),
    )
    causes = suspected(evidence, suspects, curve.first_step(0), curve.last_step(last))
    return found(
        "hacking_suspicion", Severity.ERROR if fell else Severity.WARNING, curve, (0, last),
        f"{curve.name} rose from {short(shape.start)} to {short(shape.end)}, but {task.curve.name} "
        f"{'fell' if fell else 'did not follow'}: {short(task.start)} to {short(task.end)}. The reward may pay for "
        "something that is not the task.",
        numbers={"reward_start": shape.start, "reward_end": shape.end, "task_start": task.start, "task_end": task.end},
        causes=ranked(causes, ("A loophole in the reward.", "The evaluation asks for something else than training.")),
        check=("Read the highest rewarded answers of the last steps: would you pay for them?",
               "Score them with the evaluation's own judge."),
        change=("Close the loophole in the reward, or add a judge that sees it.",
                change(evidence, "Hold the policy near its start", Option.KL)),
        sources=(HACKING,),
        wanted=Wanted(curve.first_step(max(0, last - curve.edge)), curve.last_step(last), "highest"),
    )  # fmt: skip


def component_dying(evidence: Evidence) -> Iterator[Finding]:
    """Find components of the reward that lose half of what they had while another one does not fall."""
    parts = [(name, c) for name in evidence.parts() if (c := evidence.curve(name)) is not None]
    if len(parts) < 2:
        return
    dying = []
    for name, curve in parts:
        shape = shape_of(curve, None)
        floor = min(0.0, float(curve.s.min()))
        enough = shape.lost >= max(DEAD * (shape.best - floor), 0.1 * _widest(parts))
        if enough and curve.counts(shape.lost):
            dying.append((name, shape))
    if len(dying) == len(parts):
        return  # all of it fell: that is a collapse, told there
    for name, shape in dying:
        curve, last = shape.curve, len(shape.curve) - 1
        onset = curve.onset(shape.peak, last, DOWN)
        others = [m.told() for other, _ in parts if other != name
                  and (m := moved(evidence, other, curve.first_step(shape.peak), curve.last_step(last))) is not None
                  and not (m.counts and m.after < m.before)]  # fmt: skip
        yield found(
            "component_dying", Severity.WARNING, curve, (onset, last),
            f'The component "{name.removeprefix("reward/parts/")}" fell from {short(shape.best)} to {short(shape.end)} '
            f"since step {curve.first_step(shape.peak)}, while others did not.",
            numbers={"best": shape.best, "end": shape.end},
            causes=ranked(causes_of_fall(evidence, curve.first_step(shape.peak), curve.last_step(last))[:3],
                          ("The other components pay more for what makes this one fall.",)),
            check=(*(f"Compare: {told}." for told in others[:2]), "Read answers that lost it."),
            change=(change(evidence, "Give this component more weight", Option.WEIGHTS),),
            sources=(FORMAT,), wanted=Wanted(curve.first_step(onset), curve.last_step(last), "lowest"),
        )  # fmt: skip


def _widest(parts: list[tuple[str, Curve]]) -> float:
    """Return the largest magnitude of a component."""
    return max(float(np.max(np.abs(c.s))) for _, c in parts)


def format_only(evidence: Evidence) -> Iterator[Finding]:
    """Find a reward whose gain is form: components named after a format rise, those named after the task do not."""
    shape = evidence.reward
    forms, tasks = ([n for n in evidence.parts() if test(n)] for test in (is_format, is_task))
    if shape is None or not shape.has_risen or not forms or not tasks:
        return
    first, last = shape.curve.first_step(0), shape.curve.last_step(len(shape.curve) - 1)
    moves = {n: m for n in (*forms, *tasks) if (m := moved(evidence, n, first, last)) is not None}
    if not any(n in moves for n in forms) or not any(n in moves for n in tasks):
        return
    gain = {n: m.after - m.before for n, m in moves.items()}
    form = sum(gain[n] for n in forms if n in gain)
    task = sum(gain[n] for n in tasks if n in gain)
    solved = all(moves[n].after >= TOP * float(np.max(moves[n].curve.y)) and moves[n].after >= TOP
                 for n in tasks if n in moves)  # fmt: skip
    rising = any(moves[n].curve.trend().rises() and moves[n].curve.trend().high > FOLLOWS * form
                 for n in tasks if n in moves)  # fmt: skip
    if form < FORM * (form + max(task, 0.0)) or form <= 0 or solved or rising:
        return
    name = next(n for n in forms if n in moves)
    curve, told = moves[name].curve, next(moves[n] for n in tasks if n in moves)
    yield found(
        "format_only", Severity.WARNING, curve, (0, len(curve) - 1),
        f"What was gained is form: {curve.name} rose from {short(moves[name].before)} to {short(moves[name].after)}, "
        f"{told.curve.name} went from {short(told.before)} to {short(told.after)}.",
        numbers={"form": form, "task": task},
        causes=ranked((), ("Form is easier to learn and pays as much.", "The task is too hard for this policy yet.")),
        check=("Read answers that are well formed and wrong.",),
        change=(change(evidence, "Pay less for form, or only together with a right answer", Option.WEIGHTS),
                change(evidence, "Give it easier tasks first", Option.FILTER)),
        sources=(FORMAT,), wanted=Wanted(last, last, "highest"),
    )  # fmt: skip
