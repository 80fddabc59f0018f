"""Rules about what is trained on: groups without a signal, old samples, the beat of the refreshes, negatives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ratchet.doctor.causes import DOWN, UP, Suspect, causes_of_fall, ranked, short, suspected
from ratchet.doctor.curve import Array, Curve
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Cause, Finding, Severity, Wanted
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.told import found

EMPTY = 0.8
"""Share of groups without a signal: four of five rollouts then cost and teach nothing."""
RUNAWAY = 2.0
"""Factor by which staleness must have grown, with a trend that goes on: a queue that fills has no bound."""
FEW_LEFT = 0.5
"""Effective share of a batch after its importance weights (metric page: above 0.5)."""
FAR = 0.1
"""KL to the sampler at which a token's ratio is off by about sqrt(2 * 0.1) = 0.45: beyond every usual clip."""
DELIVERED = 0.9
"""Growth of staleness per step from which on no refresh arrives at all; another rule tells that."""
PERIODS, SEARCHED = 3, 6
"""Full periods that must be seen: of a known period, and where many are tried on noise that is not quite white."""
LONGEST = 64
"""Longest period that is searched for where no log says it."""
CHANCE, CHANCE_SEARCHED = 1e-4, 1e-8
"""p of the F-test on phases, with the period known and with 62 of them tried on several series."""
EXPLAINED = 0.3
"""Share of the variance around the running mean that the phase must explain: less is no saw-tooth to the eye."""
NEGATIVE = 0.1
"""Mean advantage per token, as a share of its spread in a group, below which negatives dominate."""
LOPSIDED = 3.0
"""Factor of low over high clips that speaks for the same."""

DAPO = "DAPO (arXiv 2503.14476), section 3.2: dynamic sampling"
STALE = "Group-relative REINFORCE off policy (arXiv 2509.24203); AReaL#1388, verl#3895: staleness without a bound"
NEGATIVES = "TOPR (arXiv 2503.14286) and AsymRE (arXiv 2506.20520): pushing wrong answers down off policy"


def zero_signal(evidence: Evidence) -> Iterator[Finding]:
    """Find four of five groups or more without a signal over the last fifth of the run."""
    curve, mixed = evidence.curve("signal/zero_groups_frac"), evidence.curve("signal/mixed_groups_frac")
    if curve is None and mixed is not None:
        curve = Curve(mixed.name, mixed.key, mixed.first_steps, mixed.last_steps, 1 - mixed.y, online=mixed.online)
    if curve is None or float(np.max(curve.y)) > 1.01:  # a count, not a share
        return
    first = len(curve) - curve.window(0.2)
    share = curve.level(first, len(curve))
    if share < EMPTY:
        return
    reward = evidence.reward
    solved = reward is not None and reward.has_gained and reward.lost <= 0.1 * reward.gain
    below = np.flatnonzero(curve.s < EMPTY)
    since = int(below[-1]) + 1 if len(below) else 0
    easy, hard = evidence.curve("signal/solved_all_frac"), evidence.curve("signal/solved_none_frac")
    causes = [Cause(text, (f"{c.name} is {c.end:.0%} at the end.",), 20 * c.end)
              for c, text in ((easy, "The tasks have become too easy."), (hard, "The tasks are too hard."))
              if c is not None and c.end >= 0.4]  # fmt: skip
    told = "; the reward was gained before, so these tasks are used up" if solved else ""
    yield found(
        "zero_signal", Severity.INFO if solved else Severity.WARNING, curve, (min(since, first), len(curve) - 1),
        f"{share:.0%} of the groups teach nothing, because all their attempts earn the same{told}.",
        numbers={"share": share, "start": curve.start},
        causes=ranked(causes, ("The tasks are all solved or never solved by this policy.",
                               "The attempts of a group are alike.", "The reward cannot tell answers apart.")),
        check=("Is the reward of such groups high (too easy) or low (too hard)?",),
        change=(change(evidence, "Drop such groups before training, and choose harder or easier tasks", Option.FILTER),
                change(evidence, "Sample more attempts at each", Option.GROUP),
                change(evidence, "Sample at a higher temperature", Option.TEMPERATURE)),
        sources=(DAPO,), wanted=Wanted(curve.first_step(first), curve.last_step(len(curve) - 1), "lowest"),
    )  # fmt: skip


def too_stale(evidence: Evidence) -> Iterator[Finding]:
    """Find samples that get older and older, or that are so old that little of a batch is left."""
    yield from _runaway(evidence)
    yield from _spent(evidence)


def _runaway(evidence: Evidence) -> Iterator[Finding]:
    curve = evidence.first_of("stale/mean", "stale/max")
    if curve is None or len(curve) < 20 or float(curve.y.max()) <= evidence.planned_age:
        return
    n = len(curve)
    early, half = curve.level(n // 10, n // 4 + 1), n // 2
    trend = curve.trend(half)
    per_step = trend.change / max(1, curve.last_step(n - 1) - curve.first_step(half))
    if curve.end < max(RUNAWAY * early, early + 1) or not trend.rises(0.001) or per_step >= DELIVERED:
        return
    if not curve.counts(curve.end - early):
        return
    yield found(
        "too_stale", Severity.WARNING, curve, (half, n - 1),
        f"The samples get older and older: {curve.name} went from {short(early)} to {short(curve.end)} steps and still "
        "grows.",
        numbers={"early": early, "end": curve.end, "per_step": per_step},
        causes=ranked((), ("The sampler makes more than the trainer takes, and the queue grows.",
                           "A few long rollouts hold everything up.")),
        check=("How long is the queue between sampler and trainer?",),
        change=(change(evidence, "Bound the age of samples", Option.STALE),
                change(evidence, "Refresh the sampler more often", Option.SYNC)),
        sources=(STALE,),
    )  # fmt: skip


def _spent(evidence: Evidence) -> Iterator[Finding]:
    for name, sign, bound, told in (
        ("correction/ess_frac", DOWN, FEW_LEFT, "the effective share of a batch"),
        ("kl/old", UP, FAR, "the KL to the policy that sampled"),
    ):
        curve = evidence.curve(name)
        if curve is None:
            continue
        first = len(curve) - curve.window(0.2)
        level = curve.level(first, len(curve))
        middle = float(np.median(curve.y[first:]))
        if sign * (level - bound) <= 0 or sign * (middle - bound) <= 0:
            continue
        reward = evidence.reward
        fell = reward is not None and reward.lost > max(reward.worth, 0.25 * reward.gain) and reward.curve.counts(
            reward.lost)  # fmt: skip
        age = evidence.first_of("stale/max", "stale/mean")
        old = f" (samples are up to {short(float(age.y.max()))} steps old)" if age is not None else ""
        causes = causes_of_fall(evidence, evidence.span[0], evidence.span[1]) if fell else ()
        yield found(
            "too_stale", Severity.WARNING, curve, (first, len(curve) - 1),
            f"The samples are too far from the policy that trains on them: {told}, {curve.name}, is {short(level)}"
            f"{old}{', and the reward fell' if fell else ''}.",
            numbers={"level": level},
            causes=ranked(causes, ("Weights are handed over too seldom for this learning rate.",
                                   "Too many updates are made on one batch.")),
            check=("How far does the policy move between two refreshes?",),
            change=(change(evidence, "Refresh the sampler more often", Option.SYNC, Option.STALE),
                    change(evidence, "Make fewer updates per batch", Option.UPDATES),
                    change(evidence, "Correct with truncated importance weights", Option.CORRECTION),
                    change(evidence, "Lower the learning rate", Option.LR)),
            sources=(STALE,),
        )  # fmt: skip
        return


def sync_sawtooth(evidence: Evidence) -> Iterator[Finding]:
    """Find series that move with the period in which the sampler gets new weights."""
    known = _period(evidence)
    for name in ("reward/mean", "kl/old", "kl/sampler", "entropy", "clip/frac"):
        here = evidence.values(name)
        if here is None or len(here[1]) < 20:
            continue
        values = here[1][-2048:]
        periods = [known] if known else range(3, min(LONGEST, len(values) // SEARCHED) + 1)
        beat = _best(values, periods, CHANCE if known else CHANCE_SEARCHED)
        curve = evidence.curve(name)
        if beat is None or curve is None:
            continue
        period, share, swing = beat
        whose = "that of the weight refreshes" if known else "as it does where weights are handed over so seldom"
        reward = evidence.reward
        bad = name == "reward/mean" and reward is not None and swing >= max(reward.worth, 0.25 * reward.gain)
        yield found(
            "sync_sawtooth", Severity.WARNING if bad else Severity.INFO, curve, (0, len(curve) - 1),
            f"{name} moves with a period of {period} steps, {whose}: "
            f"the phase explains {share:.0%} of its variation, {short(swing)} from lowest to highest.",
            numbers={"period": period, "explained": share, "swing": swing},
            causes=ranked((), ("Between two refreshes the samples come from older and older weights.",)),
            check=("Does the reward at the end of an interval fall below that at its beginning?",),
            change=(change(evidence, "Refresh the sampler more often", Option.SYNC),
                    change(evidence, "Lower the learning rate", Option.LR)) if bad else (),
            sources=(STALE,),
        )  # fmt: skip
        return


def _period(evidence: Evidence) -> int | None:
    """Return the steps between two refreshes: as set, or as staleness falls back, if that is regular."""
    interval = evidence.setting("sync.interval")
    if isinstance(interval, int) and interval > 2:
        return interval
    here = evidence.values("stale/max") or evidence.values("stale/mean")
    if here is None:
        return None
    falls = np.flatnonzero(np.diff(here[1]) < -0.5)
    gaps = np.diff(falls)
    if len(gaps) < PERIODS - 1:
        return None
    usual = int(np.median(gaps))
    return usual if usual >= 3 and float(np.mean(np.abs(gaps - usual) <= 0.2 * usual)) >= 0.7 else None


def _best(values: Array, periods: Iterable[int], chance: float) -> tuple[int, float, float] | None:
    """Return period, explained share and swing of the period whose phases explain most, or None by chance."""
    best: tuple[float, int, Array] | None = None
    for period in periods:
        n = len(values) // period * period
        if n < PERIODS * period:
            continue
        x = values[-n:]
        rest = (x - _running_mean(x, period)).reshape(-1, period)
        rest = rest[1:-1] if len(rest) > PERIODS + 1 else rest
        total = float(((rest - rest.mean()) ** 2).sum())
        means = rest.mean(axis=0)
        between = len(rest) * float(((means - rest.mean()) ** 2).sum())
        if total <= 0 or len(rest) < 2:
            continue
        share = between / total
        if share < EXPLAINED or (best is not None and share <= best[0] + 0.02):
            continue
        from scipy.special import fdtrc  # half a second that few series need

        within = max(total - between, 1e-12 * total) / (rest.size - period)
        if float(fdtrc(period - 1, rest.size - period, between / (period - 1) / within)) < chance:
            best = (share, period, means)
    return None if best is None else (best[1], best[0], float(np.ptp(best[2])))


def _running_mean(x: Array, width: int) -> Array:
    """Return the mean of the `width` values around each; at the ends, of those there are."""
    until = np.concatenate([[0.0], np.cumsum(x - x.mean())])
    last = np.arange(len(x)) + (width - 1) // 2 + 1
    begin, end = np.maximum(last - width, 0), np.minimum(last, len(x))
    mean: Array = x.mean() + (until[end] - until[begin]) / (end - begin)
    return mean


def negatives_dominate(evidence: Evidence) -> Iterator[Finding]:
    """Find a mean advantage per token that is well below 0: most of the gradient pushes answers down."""
    curve = evidence.first_of("signal/token_advantage", "advantage/mean")
    if curve is None:
        return
    spread = evidence.curve("signal/group_std")
    scale = max(1e-9, spread.level(0, len(spread))) if spread is not None else 1.0
    if evidence.setting("algorithm.name") == "grpo" and evidence.setting("algorithm.std") is not False:
        scale = 1.0  # its advantages are in standard deviations
    first = len(curve) - curve.window(1 / 3)
    level = curve.level(first, len(curve))
    count = len(curve) - first
    if level > -NEGATIVE * scale or -curve.z(level, count, count) < 3.0:
        return
    suspects = (
        Suspect("entropy", UP, 1.3, "Pushing tokens down spreads their mass over all others."),
        Suspect("len/response/mean", UP, 1.2, "Wrong answers are the longer ones, so they have more tokens."),
        Suspect("reward/mean", DOWN, 1.0, "Ever fewer answers are right.", log=False),
    )
    causes = suspected(evidence, suspects, *evidence.span)
    low, high = evidence.curve("clip/low"), evidence.curve("clip/high")
    if low is not None and high is not None and low.end > LOPSIDED * max(high.end, 1e-4):
        causes.append(Cause("Tokens of wrong answers leave the clip range first.",
                            (f"clip/low is {short(low.end)}, clip/high {short(high.end)}.",), 5.0))  # fmt: skip
    yield found(
        "negatives_dominate", Severity.WARNING, curve, (first, len(curve) - 1),
        f"The mean advantage of a token is {short(level)} over the last third: what is pushed down outweighs what is "
        "pushed up.",
        numbers={"level": level, "scale": scale},
        causes=ranked(causes, ("Wrong answers are longer than right ones.", "Most attempts fail.")),
        check=("How long are right and wrong answers of the same group?",),
        change=(change(evidence, "Give it tasks it solves more often", Option.FILTER),
                change(evidence, "Use a method that holds negatives back (clip, TOPR, RED-Weight)", Option.CLIP)),
        sources=(NEGATIVES,), wanted=Wanted(curve.first_step(first), curve.last_step(len(curve) - 1), "longest"),
    )  # fmt: skip
