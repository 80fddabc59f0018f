"""Rules about the length of answers: growth, explosion, shrinking, a dip, a surge that costs reward, the token limit.

Lengths are looked at as logarithms, so that thresholds are factors and hold for 40 tokens as for 8,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ratchet.doctor.causes import causes_of_fall, moved, ranked, short
from ratchet.doctor.curve import Curve
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Cause, Finding, Severity, Wanted
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.told import found
from ratchet.doctor.shape import Shape

GROWN = math.log(1.15)
"""RM-R1's judge grows by 40 % in 70 steps, Kimi-Dev by 100 % in 500; 15 % is where a figure begins to show it."""
EXPLODED, WITHIN = math.log(1.8), 0.15
"""Kimi-Dev's steepest stretch, from 300 to 400 of 500 steps, is 1.4-fold in a fifth of the run with rising reward; 1.8
in 15 % is twice that rate."""
SHRUNK = -math.log(0.75)
DIPPED = -math.log(0.9)
"""RM-R1's dip at step 60 is 9 %, of the warm start's first phase 15 %."""
BACK = 0.6
"""Share of a dip that must be made good."""
SURGE = math.log(1.25)
COST = 0.25
"""Share of the reward's gain that must be lost in a surge: what is called more than a slip elsewhere too."""
CUT, MOSTLY_CUT = 0.10, 0.5
"""Shares of truncated answers: 5 % is normal (metric page); at twice that the limit takes part in what is learned, and
where half is cut it decides it."""
AT_CAP, NEAR_CAP = 0.9, 0.5
"""Without a count of truncated answers: share of steps whose longest answer has the same length to a token, and the
mean's share of that length."""

KIMI_DEV = "Kimi-Dev (arXiv 2509.23045): length and reproduced rate rise together over 500 steps"
DR_GRPO = "Dr. GRPO (arXiv 2503.20783), section 3: the length bias makes wrong answers longer"
DAPO = "DAPO (arXiv 2503.14476), section 3.4: truncated answers and the overlong penalty"
CUT_THREADS = "trl#5697: a small default cuts 97 % of the answers, and nothing is learned"
NAME = "len/response/mean"


def length_growth(evidence: Evidence) -> Iterator[Finding]:
    """Find answers that grew by 15 % or more over the run."""
    curve = evidence.curve(NAME, log=True)
    if curve is None or curve.end - curve.start < GROWN or not curve.counts(curve.end - curve.start):
        return
    last, reward = len(curve) - 1, evidence.reward
    with_it = reward is not None and reward.has_risen
    yield found(
        "length_growth", Severity.INFO, curve, (0, last),
        f"Answers grew from {short(curve.real(curve.start))} to {short(curve.real(curve.end))} tokens "
        f"({math.expm1(curve.end - curve.start):+.0%}); the reward {'rose with them' if with_it else 'did not rise'}.",
        numbers=_ends(curve),
        causes=() if with_it else _why_longer(evidence),
        sources=(KIMI_DEV,),
    )  # fmt: skip


def steepest(curve: Curve, width: int, begin: int = 0) -> tuple[int, float]:
    """Return the bin from which a smoothed series rises most over `width` bins, and by how much."""
    rises = curve.s[begin + width :] - curve.s[begin:-width]
    if len(rises) == 0:
        return begin, 0.0
    at = int(np.argmax(rises))
    return begin + at, float(rises[at])


def length_explosion(evidence: Evidence) -> Iterator[Finding]:
    """Find a stretch of 15 % of the run in which answers grew 1.8-fold and more and the reward did not."""
    curve, reward = evidence.curve(NAME, log=True), evidence.reward
    if curve is None:
        return
    width = curve.window(WITHIN)
    at, rise = steepest(curve, width)
    if rise < EXPLODED or not curve.counts(rise) or curve.end < curve.s[at] + BACK * rise:
        return
    if reward is not None and _gained(reward, curve.first_step(at), curve.last_step(len(curve) - 1)):
        return
    onset = curve.onset(at, min(at + width, len(curve) - 1), 1)
    before, after = curve.real(float(curve.s[at])), curve.real(float(curve.s[min(at + width, len(curve) - 1)]))
    yield found(
        "length_explosion", Severity.WARNING, curve, (onset, len(curve) - 1),
        f"Answers grew from {short(before)} to {short(after)} tokens between step {curve.first_step(at)} and "
        f"{curve.last_step(min(at + width, len(curve) - 1))}, and the reward gained nothing from it.",
        numbers={"before": before, "after": after, "factor": after / before},
        causes=_why_longer(evidence),
        check=("Read the longest answers: do they repeat themselves?", "Do they end by themselves?"),
        change=(change(evidence, "Let length cost something", Option.LENGTH_TERM),
                change(evidence, "Lower the learning rate", Option.LR)),
        sources=(DR_GRPO, DAPO),
        wanted=Wanted(curve.first_step(onset), curve.last_step(len(curve) - 1), "longest"),
    )  # fmt: skip


def length_shrink(evidence: Evidence) -> Iterator[Finding]:
    """Find answers that lost a quarter of their length or more."""
    curve, reward = evidence.curve(NAME, log=True), evidence.reward
    if curve is None or curve.start - curve.end < SHRUNK or not curve.counts(curve.start - curve.end):
        return
    last = len(curve) - 1
    cost = reward is not None and reward.lost >= max(COST * reward.gain, reward.worth) and reward.curve.counts(
        reward.lost)  # fmt: skip
    told = "and the reward fell" if cost else "and the reward did not suffer"
    yield found(
        "length_shrink", Severity.WARNING if cost else Severity.INFO, curve, (0, last),
        f"Answers shrank from {short(curve.real(curve.start))} to {short(curve.real(curve.end))} tokens "
        f"({math.expm1(curve.end - curve.start):+.0%}), {told}.",
        numbers=_ends(curve),
        causes=ranked((), ("The reward or its penalty prefers short answers.",
                           "The policy stops thinking and guesses.")) if cost else (),
        check=("Read short answers: is the working gone?",) if cost else (),
        change=(change(evidence, "Take the length penalty back", Option.LENGTH_TERM),) if cost else (),
        sources=(DR_GRPO,), wanted=Wanted(curve.first_step(last), curve.last_step(last), "lowest") if cost else None,
    )  # fmt: skip


def length_dip(evidence: Evidence) -> Iterator[Finding]:
    """Find answers that became a tenth shorter for a while and then as long again."""
    curve = evidence.curve(NAME, log=True)
    if curve is None or len(curve) < 3 * curve.edge:
        return
    s = curve.s
    depth = np.minimum(np.maximum.accumulate(s), np.maximum.accumulate(s[::-1])[::-1]) - s
    valley = int(np.argmax(depth))
    rim = int(np.argmax(s[: valley + 1]))
    back = valley + int(np.argmax(s[valley:]))
    half = curve.edge // 2
    low, before, after = (curve.level(i - half, i + half + 1) for i in (valley, rim, back))
    if before - low < DIPPED or after - low < max(BACK * (before - low), DIPPED):
        return
    if not (curve.counts(before - low) and curve.counts(after - low)):
        return
    yield found(
        "length_dip", Severity.INFO, curve, (rim, back),
        f"Answers became shorter for a while: {short(curve.real(before))} tokens at step {curve.first_step(rim)}, "
        f"{short(curve.real(low))} at step {curve.first_step(valley)}, {short(curve.real(after))} at step "
        f"{curve.first_step(back)}.",
        numbers={"before": curve.real(before), "lowest": curve.real(low), "after": curve.real(after)},
        sources=("RM-R1 (arXiv 2505.02387): the warm start first shortens, then grows",),
    )  # fmt: skip


def length_surge_reward_fall(evidence: Evidence) -> Iterator[Finding]:
    """Find answers that grew by a quarter and more over the steps in which the reward fell."""
    reward = evidence.reward
    if reward is None or reward.lost < max(COST * reward.gain, reward.worth) or not reward.has_lost:
        return
    first, last = reward.curve.first_step(reward.peak), reward.curve.last_step(len(reward.curve) - 1)
    move = moved(evidence, NAME, first, last, log=True)
    if move is None or move.z <= 0 or not move.counts or math.log(move.factor) < SURGE:
        return
    curve = move.curve
    yield found(
        "length_surge_reward_fall", Severity.ERROR, curve, (curve.at(first), len(curve) - 1),
        f"While answers grew from {short(move.before)} to {short(move.after)} tokens, {reward.curve.name} fell from "
        f"{short(reward.best)} to {short(reward.end)} (step {first} to {last}).",
        numbers={"length_before": move.before, "length_after": move.after, "reward_before": reward.best,
                 "reward_after": reward.end},
        causes=ranked([*_why_longer(evidence), *causes_of_fall(evidence, first, last)]),
        check=("Read the longest answers of the last steps.", "Are they cut off at the limit?"),
        change=(f"Go back to a checkpoint before step {first}.",
                change(evidence, "Let length cost something", Option.LENGTH_TERM),
                change(evidence, "Lower the learning rate", Option.LR)),
        sources=(DR_GRPO, DAPO), wanted=Wanted(first, last, "longest"),
    )  # fmt: skip


def truncation(evidence: Evidence) -> Iterator[Finding]:
    """Find a tenth or more of the answers cut off at the token limit in the last fifth of the run."""
    curve = evidence.curve("len/truncated_frac")
    if curve is None:
        yield from _pinned(evidence)
        return
    first = len(curve) - curve.window(0.2)
    share = curve.level(first, len(curve))
    if share - 2 * curve.error(len(curve) - first) < CUT:
        return
    above = np.flatnonzero(curve.s < CUT)
    since = int(above[-1]) + 1 if len(above) else 0
    yield found(
        "truncation", Severity.ERROR if share >= MOSTLY_CUT else Severity.WARNING, curve,
        (min(since, first), len(curve) - 1),
        f"{share:.0%} of the answers are cut off at the token limit: what they would have earned is not known, and "
        "what is learned is to be short.",
        numbers={"share": share, "start": curve.start},
        causes=_why_longer(evidence),
        check=("Would the cut answers have become right?",),
        change=(change(evidence, "Allow more tokens", Option.LENGTH),
                change(evidence, "Let coming near the limit cost something", Option.LENGTH_TERM)),
        sources=(CUT_THREADS, DAPO),
        wanted=Wanted(curve.first_step(first), curve.last_step(len(curve) - 1), "truncated"),
    )  # fmt: skip


def _pinned(evidence: Evidence) -> Iterator[Finding]:
    """Find longest answers that have one and the same length, with the mean not far below: a limit, uncounted."""
    found_here, mean = evidence.values("len/response/max"), evidence.curve(NAME)
    if found_here is None or mean is None or len(found_here[0]) < 20:
        return
    cap = float(found_here[1].max())
    pinned = float(np.mean(found_here[1] >= cap - 1))
    if pinned < AT_CAP or mean.end < NEAR_CAP * cap:
        return
    yield found(
        "truncation", Severity.WARNING, mean, (0, len(mean) - 1),
        f"The longest answer has {short(cap)} tokens at {pinned:.0%} of the steps and the mean is {short(mean.end)}: "
        "answers are cut off at that limit, and the log does not count how many.",
        numbers={"limit": cap, "mean": mean.end},
        change=(change(evidence, "Allow more tokens", Option.LENGTH),), sources=(CUT_THREADS,),
    )  # fmt: skip


def _gained(reward: Shape, first: int, last: int) -> bool:
    """Return whether the reward rose by more than noise between two steps, and by enough to be worth a word."""
    a, b = reward.curve.at(first), reward.curve.at(last)
    return reward.around(b) - reward.around(a) >= reward.worth and reward.rose(a, b)


def _ends(curve: Curve) -> dict[str, float]:
    return {"start": curve.real(curve.start), "end": curve.real(curve.end)}


def _why_longer(evidence: Evidence) -> tuple[Cause, ...]:
    """Return why answers may grow: no end token, cut answers, the method's own bias."""
    causes = []
    first, last = evidence.span
    for name, text in (("len/truncated_frac", "Answers no longer end by themselves."),
                       ("entropy", "The text dissolves: entropy grows with length.")):  # fmt: skip
        move = moved(evidence, name, first, last, log=name == "entropy")
        if move is not None and move.counts and move.z > 0:
            causes.append(Cause(text, (f"{move.told()}.",), min(99.0, move.z)))
    usual = ["The reward pays for length, directly or by a part of it."]
    if evidence.setting("algorithm.name") in (None, "grpo"):
        usual.append("A mean over each answer's tokens makes long wrong answers cheap (GRPO's length bias).")
    return ranked(causes, usual)
