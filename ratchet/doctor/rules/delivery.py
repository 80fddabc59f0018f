"""Rules about sampler and trainer: do they compute the same, and do new weights arrive?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ratchet.doctor.causes import UP, Suspect, ranked, short, suspected
from ratchet.doctor.curve import Curve
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Finding, Severity
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.reward import collapsed
from ratchet.doctor.rules.told import found

BOUNDS = {
    "kl/sampler": 0.01,
    "kl/sampler_k2": 0.01,
    "kl/sampler_reverse": 0.01,
    "sampler/js": 0.003,
    "sampler/logp_diff_mean": 0.05,
    "sampler/prob_diff_mean": 0.02,
    "sampler/prob_error": 1.05,
    "sampler/logp_diff_max": 1.0,
}
"""What healthy runs stay below. 0.05 for the mean difference and 1.05 for the factor are NeMo-RL's documentation;
0.01 for a KL is ten times what bfloat16 makes (metric page, 1e-3), because FP8 and other kernels make more; the rest
follows from these (JS is about a quarter of KL; a probability differs by less than its logarithm)."""
OURS = {"kl/sampler": 1e-3, "sampler/logp_diff_max": 0.25}
"""Where both sides are this project's decoder: the metric page's bounds for bfloat16."""
GROWN = 5.0
"""Factor of growth that is worth a word once a tenth of the bound is reached."""
STANDS = 0.3
"""Share of the run, at its end, without any new weights."""
APART = np.log(5.0)
"""Growth of the KL between sampler and trainer, with a flat reward, that looks like weights which do not arrive."""

MISMATCH = "trl#4159 (temperature), trl#6789 (top-p), verl#2996, NeMo-RL#1801: log-probabilities that differ"
DELIVERY = "verl#7495, trl#5312, trl#3189: new weights never reached the sampler, and it looked like the algorithm"


def sampler_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Find sampler and trainer that disagree more than precision explains, or ever more."""
    bounds = OURS if evidence.framework == "ratchet" else BOUNDS
    for name, bound in bounds.items():
        curve = evidence.curve(name)
        if curve is None or curve.name != name:
            continue
        n = len(curve)
        first = n - curve.window(0.2)
        base = 1.0 if name == "sampler/prob_error" else 0.0
        early, level = curve.level(0, curve.window(0.2)) - base, curve.level(first, n) - base
        limit = bound - base
        above = level > limit and float(np.median(curve.y[first:])) - base > limit
        log = evidence.curve(name, log=True)
        grows = (log is not None and level > limit / 10 and early > 0 and level / early > GROWN
                 and log.trend().rises(1e-3) and curve.counts(level - early, n - first))  # fmt: skip
        if not (above or grows):
            continue
        yield _mismatch(evidence, curve, (early + base, level + base, bound), grows)
        return


def _mismatch(evidence: Evidence, curve: Curve, numbers: tuple[float, float, float], grows: bool) -> Finding:
    early, level, bound = numbers
    age = evidence.first_of("stale/mean", "stale/max")
    stale = age is not None and age.level(0, len(age)) > 0.5
    severity = Severity.INFO if stale and level < 5 * bound else Severity.WARNING
    always = early > bound
    below = np.flatnonzero(curve.s < bound)
    since = 0 if always or not len(below) else min(int(below[-1]) + 1, len(curve) - 1)
    suspects = (
        Suspect("len/response/mean", UP, 1.25, "The difference adds up over longer answers."),
        Suspect("stale/mean", UP, 1.5, "The samples became older.", log=False),
    )
    causes = suspected(evidence, suspects, *evidence.span)
    usual = (
        ("A setting reaches one side only: temperature, top-p, a chat template, precision.",)
        if always
        else ("Precision: small differences grow with the weights.", "The sampler missed an update of the weights.")
    )
    told = f"{short(early)} at first, " if grows else ""
    return found(
        "sampler_mismatch", severity, curve, (since, len(curve) - 1),
        f"Sampler and trainer disagree: {curve.name} is {told}{short(level)} at the end, normal is below {short(bound)}"
        f"{'; part of it is the age of the samples' if stale else ''}.",
        numbers={"early": early, "level": level, "bound": bound},
        causes=ranked(causes, usual),
        check=("Compare the log-probabilities of one answer, token by token, on fresh weights.",
               "Are temperature, top-p and top-k the same on both sides?"),
        change=(change(evidence, "Sample at temperature 1 without top-p, or tell the trainer", Option.TEMPERATURE),
                change(evidence, "Correct with truncated importance weights", Option.CORRECTION)),
        sources=(MISMATCH,),
    )  # fmt: skip


def weights_not_delivered(evidence: Evidence) -> Iterator[Finding]:
    """Find a sampler that gets no new weights: its version stands, its samples age, or it drifts from the trainer."""
    if evidence.setting("sync.offline") is True:
        return  # as asked for
    for test in (_version_stands, _age_grows, _drifts_apart):
        finding = test(evidence)
        if finding is not None:
            yield finding
            return


def _version_stands(evidence: Evidence) -> Finding | None:
    for name in evidence.names("version/*"):
        here, curve = evidence.values(name), evidence.curve(name)
        if here is None or curve is None:
            continue
        steps, values = here
        changes = np.flatnonzero(np.diff(values) != 0)
        first = int(changes[-1]) + 1 if len(changes) else 0
        usual = float(np.median(np.diff(changes))) if len(changes) > 2 else 1.0
        if len(values) - first < max(20, STANDS * len(values), 4 * usual):
            continue
        return _undelivered(evidence, curve, curve.at(int(steps[first])), Severity.ERROR,
                            f"{name} has been {short(float(values[-1]))} since step {int(steps[first])}, for "
                            f"{len(values) - first} steps")  # fmt: skip
    return None


def _age_grows(evidence: Evidence) -> Finding | None:
    for name in ("stale/min", "stale/mean", "stale/max"):
        here, curve = evidence.values(name), evidence.curve(name)
        if here is None or curve is None:
            continue
        steps, values = here
        if values.max() <= evidence.planned_age:
            continue  # as asked for
        rate = np.diff(values) / np.maximum(np.diff(steps), 1)
        falls = np.flatnonzero(rate < 0.5)
        first = int(falls[-1]) + 1 if len(falls) else 0
        usual = float(np.median(np.diff(falls))) if len(falls) > 2 else 1.0
        if len(values) - first < max(20, STANDS * len(values), 4 * usual):
            continue
        return _undelivered(evidence, curve, curve.at(int(steps[first])), Severity.ERROR,
                            f"{name} has grown by one a step since step {int(steps[first])}, to "
                            f"{short(float(values[-1]))}")  # fmt: skip
    return None


def _drifts_apart(evidence: Evidence) -> Finding | None:
    """Return a finding where the trainer moves away from the sampler, steadily, and the reward stays flat."""
    reward = evidence.reward
    if reward is None or len(reward.curve) < 30 or reward.has_gained or collapsed(reward):
        return None
    if reward.curve.trend().rises():
        return None
    for name in ("kl/sampler", "kl/old", "sampler/logp_diff_mean"):
        curve = evidence.curve(name, log=True)
        if curve is None:
            continue
        trend = curve.trend()
        if trend.tau > 0.6 and trend.p < 1e-4 and curve.end - curve.start > APART and curve.counts(
                curve.end - curve.start):  # fmt: skip
            return _undelivered(evidence, curve, 0, Severity.WARNING,
                                f"{curve.name} grows all the time, from {short(curve.real(curve.start))} to "
                                f"{short(curve.real(curve.end))}, while the reward is flat")  # fmt: skip
    return None


def _undelivered(evidence: Evidence, curve: Curve, first: int, severity: Severity, told: str) -> Finding:
    return found(
        "weights_not_delivered", severity, curve, (first, len(curve) - 1),
        f"New weights seem not to reach the sampler: {told}.",
        numbers={"end": curve.real(curve.end)},
        causes=ranked((), ("The hand-over of weights failed and nobody looked at its answer.",
                           "An adapter was trained, and the sampler holds the weights without it.",
                           "The sampler slept, or restarted with the first weights.")),
        check=("Ask the sampler for the log-probability of one answer before and after an update: did it change?",),
        change=(change(evidence, "Check the hand-over of weights", Option.SYNC),), sources=(DELIVERY,),
    )  # fmt: skip
