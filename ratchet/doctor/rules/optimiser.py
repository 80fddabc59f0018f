"""Rules about the optimiser: spikes of the gradient, numbers that are none, a learning rate of zero."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ratchet.doctor.causes import ranked, short
from ratchet.doctor.curve import Array, Curve, Steps, curve_of
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Finding, Severity, Wanted
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.spikes import spikes
from ratchet.doctor.rules.spread import harmed
from ratchet.doctor.rules.told import found

SPIKE = 8.0
"""Factor over its neighbours. Gradient norms of RL vary two- to threefold between batches of different difficulty, and
fivefold now and then without anything coming of it."""
MANY = 0.02
"""Share of steps with a spike, from which on they are a habit."""
SEVERAL = 3
FINITE = ("reward/mean", "reward/*/mean", "loss/*", "opt/grad_norm", "kl/ref*", "kl/old*", "kl/sampler*", "entropy*",
          "critic/loss")  # fmt: skip
"""What must be a number at every step. Other series may have none where nothing was counted."""
NO_RATE = 1e-3
"""Share of its highest value below which a learning rate moves nothing any more."""
RESTS = 0.1
"""Share of the run that a rate must be that low for; a cosine to zero is there for 2 % of it."""

SPIKE_SOURCE = "Zhao et al. 2023 and others on loss spikes; verl#2738: the step after a spike is where it broke"
NAN_SOURCE = "open-r1#704, trl#2703: NaN in KL and gradient, and the advice to skip the check"


def gradient_spikes(evidence: Evidence) -> Iterator[Finding]:
    """Find steps whose gradient is eight times that of their neighbours, and say whether the reward suffered."""
    here, curve = evidence.values("opt/grad_norm"), evidence.curve("opt/grad_norm")
    if here is None or curve is None:
        return
    steps, values = here
    at = spikes(values, SPIKE)
    if not len(at):
        return
    harm = [int(steps[i]) for i in at if evidence.reward is not None and harmed(evidence.reward, int(steps[i]))]
    bad = bool(harm) or (len(at) >= SEVERAL and len(at) > MANY * len(values))
    clip = evidence.setting("train.grad_clip")
    held = f" The clip at {clip} scaled them down." if clip and not harm else ""
    yield found(
        "gradient_spikes", Severity.WARNING if bad else Severity.INFO, curve,
        (curve.at(int(steps[at[0]])), curve.at(int(steps[at[-1]]))),
        f"The gradient is far above its neighbours at {len(at)} of {len(values)} steps "
        f"({', '.join(str(int(s)) for s in steps[at[:5]])}{', ...' if len(at) > 5 else ''}): up to "
        f"{short(float(values[at].max()))}, {short(float(np.median(values)))} as a rule"
        f"{f'; the reward fell after step {harm[0]}' if harm else ''}.{held}",
        numbers={"count": len(at), "largest": float(values[at].max()), "typical": float(np.median(values)),
                 "harmful": len(harm)},
        causes=ranked((), ("A batch with one very long or very unlikely answer.",
                           "Sampler and trainer disagree on single tokens, so ratios explode.")),
        check=("Look at the rollouts of such a step: longest, and least likely.",) if bad else (),
        change=(change(evidence, "Clip the gradient harder", Option.GRAD),
                change(evidence, "Lower the learning rate", Option.LR)) if bad else (),
        sources=(SPIKE_SOURCE,), wanted=Wanted(int(steps[at[0]]), int(steps[at[0]]), "longest"),
    )  # fmt: skip


def not_finite(evidence: Evidence) -> Iterator[Finding]:
    """Find series that must be numbers and are NaN or infinite somewhere."""
    broken: list[tuple[int, str, str, Steps, Array]] = []
    for name in evidence.names(*FINITE):
        key, steps, values = evidence.raw[name]
        bad = ~np.isfinite(values)
        if bad.any():
            broken.append((int(steps[np.argmax(bad)]), name, key, steps, bad))
    if not broken:
        return
    first, name, key, steps, bad = min(broken, key=lambda b: (b[0], b[1]))
    for_good = any(bool(b[-1]) for *_, b in broken)
    others = sorted({n for _, n, *_ in broken} - {name})
    curve: Curve = curve_of(name, key, steps, np.nan_to_num(bad.astype(np.float64)))
    also = f"; then also {', '.join(others[:4])}" if others else ""
    last = int(steps[len(bad) - 1 - int(np.argmax(bad[::-1]))])
    yield Finding(
        "not_finite", Severity.ERROR if for_good else Severity.WARNING, curve.name, key, first, last,
        f"{name} is NaN or infinite at {int(bad.sum())} of {len(bad)} steps, first at step {first}"
        f"{also}"
        f"{': the run does not come back from it' if for_good else ', and a number again later'}.",
        {"count": float(bad.sum())},
        ranked((), ("An update blew the weights up.", "A probability of 0 was logged.", "A batch was empty.")),
        (f"Repeat step {first} alone and name the first tensor that is not finite.",),
        (f"Go back to a checkpoint before step {first}.", change(evidence, "Lower the learning rate", Option.LR),
         change(evidence, "Clip the gradient harder", Option.GRAD), "Do not switch the check for NaN off."),
        (NAN_SOURCE,), Wanted(first, first, "longest"),
    )  # fmt: skip


def lr_zero(evidence: Evidence) -> Iterator[Finding]:
    """Find a learning rate that is nothing for a tenth of the run or more."""
    here = evidence.values("opt/lr")
    if here is None:
        names = evidence.names("opt/lr/*")
        here = evidence.values(names[0]) if names else None
    if here is None or len(here[0]) < 10:
        return
    steps, values = here
    nothing = np.abs(values) <= NO_RATE * float(np.abs(values).max())
    always = float(np.abs(values).max()) == 0
    count = len(nothing) - 1 - int(np.flatnonzero(~nothing)[-1]) if not always else len(values)
    if count < max(5, RESTS * len(values)):
        return
    first = len(values) - count
    curve = evidence.first_of("opt/lr", *evidence.names("opt/lr/*"))
    if curve is None:
        return
    yield found(
        "lr_zero", Severity.ERROR if always else Severity.WARNING, curve, (curve.at(int(steps[first])), len(curve) - 1),
        f"{curve.name} is {'0 throughout' if always else f'as good as 0 since step {int(steps[first])}'}: "
        f"{count} of {len(values)} steps change no weight.",
        numbers={"steps": count, "highest": float(values.max())},
        causes=ranked((), ("The schedule was made for fewer steps than the run takes.",) if not always else
                      ("The learning rate is not set, or the schedule begins at its end.",)),
        check=("For how many steps was the schedule made?",),
        change=(change(evidence, "Set the learning rate, or a schedule as long as the run", Option.LR),),
        sources=("open-r1#450, trl#3247: schedules after a resume",),
    )  # fmt: skip
