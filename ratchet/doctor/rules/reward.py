"""Rules about the course of the reward: growth, plateau, none at all, collapse, recovery, a peak before the end."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ratchet.doctor.causes import (
    DOWN,
    LOST,
    Suspect,
    causes_of_fall,
    lost_rollouts,
    ranked,
    short,
    suspected,
)
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Cause, Finding, Severity, Wanted
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.told import found, stretch_of
from ratchet.doctor.shape import FALLING, Shape

KEPT = 0.25
"""Share of the gain that may be lost again while growth is still called healthy: half of what is called a collapse."""
COLLAPSE = 0.5
"""Share of the gain whose loss is a collapse: where half is gone, the earlier checkpoint is nearer to what you want
than this one is to the start. The same half is what `ratchet compare` calls a collapse."""
NO_GAIN = (0.3, 0.2)
"""For a reward that never rose: shares of the scale and of the best level that a collapse must lose."""
FEW = 30
"""Points below which neither a plateau nor the absence of learning is claimed: a run must have had the chance."""
FLAT_GAIN = 0.15
"""Share of the gain that a plateau may still promise (upper end of the slope's 95 % interval)."""
UNLEARNED = 0.25
"""Share of the scale, or of the level, that the upper end of the slope's interval must stay below: then no learning
is a finding, and not a lack of data."""
DIP = 0.25
"""Share of the gain that a drop must cost, and of the drop that may stay lost for a recovery to be whole."""
SLIPPED = 0.1
"""Share of the gain that must be lost since a peak for the peak to be worth a word."""
AT_TOP = 0.9
"""Share of the scale from which on nothing much is left to gain."""

RM_R1 = "RM-R1 (arXiv 2505.02387), figure of the cold start: a late cliff after a plateau"
DAPO = "DAPO (arXiv 2503.14476), section 3: groups without a signal, entropy, length"
THREADS = "verl#5953, trl#2980, open-r1#257: users who ask what a collapsed curve means"
FLAT_THREADS = "torchforge#556, ms-swift#4789, trl#3892: a flat reward, and whether reward, loss or data is at fault"


def healthy_growth(evidence: Evidence) -> Iterator[Finding]:
    """Find a reward that rose by more than noise and kept most of it."""
    shape = evidence.reward
    if shape is None or not shape.has_risen or shape.lost > KEPT * shape.gain:
        return
    curve, z = shape.curve, shape.curve.z(shape.risen)
    beside = f"{z:.0f} standard errors of its noise" if math.isfinite(z) else "without any noise"
    yield found(
        "healthy_growth", Severity.INFO, curve, (0, len(curve) - 1),
        f"{curve.name} rose from {short(shape.start)} to {short(shape.end)}, {beside}.",
        numbers={"start": shape.start, "end": shape.end, "best": shape.best, "noise": curve.sigma},
    )  # fmt: skip


def collapsed(shape: Shape) -> bool:
    """Return whether a reward ends far below its best."""
    if shape.gain >= shape.worth and shape.curve.counts(shape.gain):
        enough = shape.lost >= max(COLLAPSE * shape.gain, shape.worth)
    else:
        enough = shape.lost >= max(NO_GAIN[0] * shape.scale, NO_GAIN[1] * abs(shape.best))
    return enough and shape.has_lost


def reward_collapse(evidence: Evidence) -> Iterator[Finding]:
    """Find a reward that lost half or more of its gain and did not get it back."""
    shape = evidence.reward
    if shape is None or not collapsed(shape):
        return
    curve, last = shape.curve, len(shape.curve) - 1
    onset = curve.onset(shape.peak, last, DOWN)
    before, after = curve.first_step(max(shape.peak, onset - 1)), curve.last_step(last)
    share = shape.lost / shape.gain if shape.gain >= shape.worth else shape.lost / shape.scale
    of_what = "the gain" if shape.gain >= shape.worth else "the scale"
    yield found(
        "reward_collapse", Severity.ERROR, curve, (onset, last),
        f"{curve.name} fell from {short(shape.best)} (around step {curve.first_step(shape.peak)}) to "
        f"{short(shape.end)}, {share:.0%} of {of_what}; the fall is steepest at step {curve.first_step(onset)}, and "
        "it did not come back.",
        numbers={"best": shape.best, "end": shape.end, "lost": shape.lost, "z": curve.z(shape.lost)},
        causes=ranked(causes_of_fall(evidence, curve.first_step(shape.peak), after),
                      ("The update steps are too large, or pull on too old samples.",)),
        check=(f"Read rollouts of the steps around {before} and of the end, side by side.",
               "See which part of the reward fell first, and whether length or entropy moved before it."),
        change=(f"Go back to the checkpoint before step {curve.first_step(onset)}.",
                change(evidence, "Lower the learning rate", Option.LR),
                change(evidence, "Hold the policy near its start", Option.KL),
                change(evidence, "Refresh the sampler more often", Option.SYNC, Option.STALE)),
        sources=(RM_R1, THREADS), wanted=Wanted(before, after, "lowest"),
    )  # fmt: skip


def drop_then_recovery(evidence: Evidence) -> Iterator[Finding]:
    """Find the deepest drop of the reward that was made good again."""
    shape = evidence.reward
    if shape is None or collapsed(shape) or len(shape.curve) < 2 * shape.curve.edge + 4:
        return
    curve, s = shape.curve, shape.curve.s
    best = np.maximum.accumulate(s)
    after = np.maximum.accumulate(s[::-1])[::-1]
    refilled = np.minimum(best, after) - s  # depth below the lower of the two rims
    valley = int(np.argmax(refilled))
    rim = int(np.argmax(s[: valley + 1]))
    back = valley + int(np.argmax(s[valley:]))
    drop, gained = shape.around(rim) - shape.around(valley), shape.around(back) - shape.around(valley)
    gain = max(float(best[valley] - s[: rim + 1].min()), shape.gain)
    if drop < max(DIP * gain, shape.worth) or gained < COLLAPSE * drop:
        return
    if not (shape.fell(rim, valley) and shape.rose(valley, back)):
        return
    whole = shape.end >= shape.around(rim) - DIP * drop
    causes = causes_of_fall(evidence, curve.first_step(rim), curve.first_step(valley))
    yield found(
        "drop_then_recovery", Severity.INFO if whole else Severity.WARNING, curve, (rim, back),
        f"{curve.name} dropped from {short(shape.around(rim))} to {short(shape.around(valley))} at step "
        f"{curve.first_step(valley)} and came back to {short(shape.around(back))} by step {curve.first_step(back)}"
        f"{'' if whole else f', but ends at {short(shape.end)}'}.",
        numbers={"before": shape.around(rim), "lowest": shape.around(valley), "after": shape.around(back)},
        causes=ranked(causes, ("New data or a new phase of a curriculum was harder for a while.",)),
        check=("Is there a resumed run, a refresh of the sampler or new data at this step?",),
        change=(change(evidence, "If it comes again, lower the learning rate", Option.LR),),
        sources=(RM_R1,), wanted=Wanted(curve.first_step(rim), curve.first_step(valley), "lowest"),
    )  # fmt: skip


def peak_before_end(evidence: Evidence) -> Iterator[Finding]:
    """Find a best level that stands well before the end, where the reward has been falling since."""
    shape = evidence.reward
    if shape is None or collapsed(shape) or not shape.has_gained:
        return
    curve, n = shape.curve, len(shape.curve)
    if n - shape.peak < max(curve.window(0.15), 2 * curve.edge) or shape.lost < SLIPPED * shape.gain:
        return
    if not shape.has_lost or not curve.trend(shape.peak).falls(0.05):
        return
    severity = Severity.WARNING if shape.lost >= KEPT * shape.gain else Severity.INFO
    step = curve.first_step(shape.peak)
    yield found(
        "peak_before_end", severity, curve, (shape.peak, n - 1),
        f"{curve.name} was best around step {step} ({short(shape.best)}) and has fallen since, to {short(shape.end)}: "
        f"{shape.lost / shape.gain:.0%} of the gain.",
        numbers={"best": shape.best, "end": shape.end, "lost": shape.lost},
        causes=causes_of_fall(evidence, step, curve.last_step(n - 1)),
        check=("Evaluate the checkpoint of the peak beside the last one, on held-out tasks.",),
        change=(f"Use the checkpoint nearest to step {step}.", change(evidence, "Save more often", Option.SAVE),
                change(evidence, "Let the learning rate decay", Option.LR)),
        sources=(RM_R1, THREADS),
    )  # fmt: skip


def plateau(evidence: Evidence) -> Iterator[Finding]:
    """Find a reward that rose and then stayed level for a third of the run or more."""
    shape = evidence.reward
    if shape is None or not shape.has_gained or shape.lost > KEPT * shape.gain or len(shape.curve) < FEW:
        return
    curve, n = shape.curve, len(shape.curve)
    for part in (0.75, 0.6, 0.5, 0.4, 1 / 3):
        first = n - round(part * n)
        trend = curve.trend(first)
        if trend.high <= FLAT_GAIN * shape.gain and not trend.rises(0.001) and trend.low >= -KEPT * shape.gain:
            break
    else:
        return
    level = curve.level(first, n)
    done = _height(evidence, shape, level) >= AT_TOP
    low = part >= 0.6 and _height(evidence, shape, level) < 0.5
    yield found(
        "plateau", Severity.WARNING if low else Severity.INFO, curve, (first, n - 1),
        f"{curve.name} has been level at {short(level)} since step {curve.first_step(first)}: the slope promises "
        f"{short(trend.low)} to {short(trend.high)} over as many steps again"
        f"{'; nearly everything is solved' if done else ''}.",
        numbers={"level": level, "gain": shape.gain, "slope_low": trend.low, "slope_high": trend.high},
        causes=ranked(_why_flat(evidence, curve.first_step(first), curve.last_step(n - 1)),
                      ("The policy does all it can with these tasks.",)),
        check=("Does a held-out evaluation still rise?", "Are the tasks solved, or out of reach?"),
        change=(change(evidence, "Give it tasks it solves sometimes", Option.FILTER),
                change(evidence, "Sample more attempts at each", Option.GROUP)),
        sources=(DAPO,), wanted=Wanted(curve.first_step(first), curve.last_step(n - 1), "lowest"),
    )  # fmt: skip


def no_learning(evidence: Evidence) -> Iterator[Finding]:
    """Find a reward that has not moved by more than its noise in the whole run."""
    shape = evidence.reward
    if shape is None or len(shape.curve) < FEW or shape.has_gained or collapsed(shape) or _came_and_went(shape):
        return
    curve = shape.curve
    trend = curve.trend()
    bound = UNLEARNED * max(shape.scale, abs(curve.level(0, len(curve))))
    if trend.rises() or (trend.falls() and curve.counts(trend.change)) or max(trend.high, abs(shape.risen)) > bound:
        return
    level = curve.level(0, len(curve))
    solved = _height(evidence, shape, level) >= AT_TOP
    causes = _why_flat(evidence, curve.first_step(0), curve.last_step(len(curve) - 1))
    because = f", because {causes[0].evidence[0][0].lower()}{causes[0].evidence[0][1:-1]}" if causes else ""
    yield found(
        "no_learning", Severity.INFO if solved else Severity.WARNING, curve, (0, len(curve) - 1),
        f"{curve.name} is flat at {short(level)} over {stretch_of(curve, (0, len(curve) - 1))}: no trend beyond noise "
        f"(p = {trend.p:.2g}){', and there is little left to gain' if solved else because}.",
        numbers={"level": level, "noise": curve.sigma, "p": trend.p, "slope_low": trend.low, "slope_high": trend.high},
        causes=ranked(causes, ("The reward pays for something this policy never does.",
                               "The learning rate is far too small.", "The tasks are too hard or too easy.")),
        check=("Ask the reward about a right answer of yours: does it pay?",
               "Look whether groups hold both better and worse attempts.",
               "Do the weights change, and does the sampler get them?"),
        change=(change(evidence, "Raise the learning rate", Option.LR),
                change(evidence, "Give it tasks it solves sometimes", Option.FILTER),
                change(evidence, "Sample more attempts at each", Option.GROUP)),
        sources=(FLAT_THREADS, DAPO),
        wanted=Wanted(curve.first_step(0), curve.last_step(len(curve) - 1), _kind(causes)),
    )  # fmt: skip


def _came_and_went(shape: Shape) -> bool:
    """Return whether the reward fell in a trend from a peak well before the end: it had moved, and is no flat one."""
    room = len(shape.curve) - shape.peak > shape.curve.window(0.15)
    return room and shape.lost >= 2 * shape.worth and shape.curve.trend(shape.peak).falls(FALLING)


def _kind(causes: tuple[Cause, ...]) -> str:
    """Return which rollouts would show why a reward is flat."""
    text = causes[0].text if causes else ""
    return "lost" if "lost" in text or "time out" in text else "truncated" if "limit" in text else "lowest"


def _height(evidence: Evidence, shape: Shape, level: float) -> float:
    """Return where a level lies between the lowest and the highest reward of a rollout; 0.5 where that is unknown."""
    top, bottom = evidence.values("reward/max"), evidence.values("reward/min")
    if top is not None and bottom is not None:
        low, high = float(bottom[1].min()), float(top[1].max())
        return (level - low) / (high - low) if high > low else 1.0
    return AT_TOP if evidence.reward is not None and _solved(evidence) else 0.5


def _solved(evidence: Evidence) -> bool:
    """Return whether most groups are all right at the end."""
    curve = evidence.curve("signal/solved_all_frac")
    return curve is not None and curve.end >= AT_TOP


_FLAT_SUSPECTS = (
    Suspect("entropy", DOWN, 0.3, "Exploration ended: the policy gives nearly the same answer every time."),
    Suspect("opt/lr", DOWN, 0.1, "The learning rate has decayed to almost nothing."),
)


def _why_flat(evidence: Evidence, first: int, last: int) -> tuple[Cause, ...]:
    """Return why nothing was learned between two steps: lost rollouts, no signal, truncation, no gradient."""
    causes = [*lost_rollouts(evidence, first, last), *suspected(evidence, _FLAT_SUSPECTS, evidence.span[0], last)]
    for name, least, text in (
        ("signal/zero_groups_frac", 0.5, "Most groups teach nothing: all their attempts earn the same."),
        ("len/truncated_frac", 2 * LOST, "Answers run into the token limit before they are done."),
        ("clip/frac", 0.4, "Most of the gradient is clipped away."),
    ):
        curve = evidence.curve(name)
        if curve is not None:
            share = curve.level(curve.at(first), curve.at(last) + 1)
            if share >= least:
                causes.append(Cause(text, (f"{curve.name} was {share:.0%} on average from step {first} to {last}.",),
                                    10 * share))  # fmt: skip
    for name in ("opt/grad_norm", "opt/lr"):
        found_here = evidence.values(name)
        if found_here is not None and float(np.median(np.abs(found_here[1]))) == 0:
            causes.append(Cause("No gradient reaches the weights.", (f"{name} is 0 on most steps.",), 50.0))
    return ranked(causes)
