"""Rules about how the policy's distribution moves: entropy, the KL to its start, clipped tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ratchet.doctor.causes import CAPPED, causes_of_fall, moved, ranked, short
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Cause, Finding, Severity, Wanted
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.length import steepest
from ratchet.doctor.rules.reward import KEPT
from ratchet.doctor.rules.spikes import spikes
from ratchet.doctor.rules.told import found
from ratchet.doctor.shape import Shape

FALLEN = math.log(5)
"""Entropy falls two- to threefold in runs that go well (study `stale`: 7.5 to 2.5); fivefold is more than that."""
EXPLODED = math.log(2)
"""DAPO's clip-higher lets entropy rise by half over a run that goes well; twofold is more than that."""
BLOWN, WITHIN, AFTER = math.log(6), 0.15, 0.15
"""KL that grows like t^p doubles p times from 15 % of a run to 30 %; sixfold needs p above 2.5, while runs that go well
grow like t or slower."""
HARMLESS = 0.02
"""Nats per token below which no KL matters: by Pinsker's inequality the distributions differ by at most
sqrt(0.02 / 2) = 0.1 in total variation."""
FAR = 1.0
"""Nats per token: each token that the policy says is e times less likely to its start. The recorded runs of the studies
that go well stay below 0.4."""
SPIKE = 8.0
"""Factor over its neighbours that makes a KL a spike: estimates from samples vary two- to threefold."""
SATURATED = 0.3
"""Share of clipped tokens. 0 to 0.2 is normal (metric page), sequence methods clip 0.15 as a rule (GSPO, section 5)."""
STUCK = 0.25
"""Share of the run, at its end, in which the clip fraction has exactly one value."""
DRIFT = 1e-2
"""KL to the sampler at which the mean ratio of a token deviates by about sqrt(2 * 0.01) = 0.14: a clip at 0.2 acts."""

CUI = "Cui et al. 2025 (arXiv 2505.22617): entropy is spent for reward, and no reward is left when it is gone"
DAPO = "DAPO (arXiv 2503.14476), section 3.1: clip-higher against the collapse of entropy"
KL_SOURCE = "verl#5953, Search-R1#88: KL runs away before the reward falls"
CLIP_SOURCE = "trl#3120, trl#5231: clip ratios that are always 0, and what that means; GSPO (arXiv 2507.18071)"


def entropy_collapse(evidence: Evidence) -> Iterator[Finding]:
    """Find an entropy that fell to a fifth or less of where it began."""
    curve, reward = evidence.curve("entropy", log=True), evidence.reward
    if curve is None or curve.start - curve.end < FALLEN or not curve.counts(curve.start - curve.end):
        return
    low = np.flatnonzero(curve.s <= curve.start - FALLEN)
    at, last = int(low[0]) if len(low) else len(curve) - 1, len(curve) - 1
    bought = reward is not None and _has_bought(reward)
    stuck = reward is not None and _stuck_low(evidence, reward, curve.first_step(at))
    bad = not bought or stuck
    told = ("the reward rose with it: certainty was spent on it" if not bad else
            "the reward gained nothing after it" if bought else "the reward has nothing to show for it")  # fmt: skip
    yield found(
        "entropy_collapse", Severity.WARNING if bad else Severity.INFO, curve, (at, last),
        f"{curve.name} fell from {short(curve.real(curve.start))} to {short(curve.real(curve.end))} and was at a fifth "
        f"by step {curve.first_step(at)}; {told}.",
        numbers={"start": curve.real(curve.start), "end": curve.real(curve.end), "step": curve.first_step(at)},
        causes=ranked(_no_spread(evidence), ("Every update makes likely tokens likelier; nothing holds against it.",))
        if bad else (),
        check=("Are the attempts of a group alike, word for word?",) if bad else (),
        change=(change(evidence, "Let unlikely tokens grow (a wider upper clip)", Option.CLIP),
                change(evidence, "Add an entropy bonus", Option.ENTROPY),
                change(evidence, "Sample at a higher temperature", Option.TEMPERATURE),
                change(evidence, "Lower the learning rate", Option.LR)) if bad else (),
        sources=(CUI, DAPO), wanted=Wanted(curve.first_step(at), curve.last_step(last), "lowest") if bad else None,
    )  # fmt: skip


def _has_bought(reward: Shape) -> bool:
    """Return whether there is a rise to show and it was kept.

    By the levels, or by the trend, which need not be certain: doubt is for the run here.
    """
    rises = reward.has_risen or (reward.risen >= reward.worth and reward.curve.trend().rises(0.05))
    return rises and reward.lost <= KEPT * reward.gain


def _stuck_low(evidence: Evidence, reward: Shape, since: int) -> bool:
    """Return whether the reward is known to be far from its top and has not risen since a step."""
    top, bottom = evidence.values("reward/max"), evidence.values("reward/min")
    if top is None or bottom is None:
        return False
    low, high = float(bottom[1].min()), float(top[1].max())
    if high <= low or (reward.end - low) / (high - low) >= 0.5:
        return False
    return not reward.rose(reward.curve.at(since), len(reward.curve) - 1)


def _no_spread(evidence: Evidence) -> list[Cause]:
    """Return how few groups still differ, as evidence that exploration ended."""
    curve = evidence.curve("signal/zero_groups_frac")
    if curve is None or curve.end < 0.5:
        return []
    return [Cause("Groups hold the same answer many times.", (f"{curve.name} is {curve.end:.0%} at the end.",), 10.0)]


def entropy_explosion(evidence: Evidence) -> Iterator[Finding]:
    """Find an entropy that ends at twice its lowest level or more while the reward does not rise."""
    curve, reward = evidence.curve("entropy", log=True), evidence.reward
    if curve is None:
        return
    last, low = len(curve) - 1, int(np.argmin(curve.s))
    rise = curve.end - curve.level(low - curve.edge // 2, low + curve.edge // 2 + 1)
    if rise < EXPLODED or not curve.counts(rise):
        return
    first = curve.first_step(low)
    fell = reward is not None and _lost(reward, first)
    if reward is not None and not fell and _rose(reward, first):
        return
    onset = curve.onset(low, last, 1)
    yield found(
        "entropy_explosion", Severity.ERROR if fell else Severity.WARNING, curve, (onset, last),
        f"{curve.name} rose from {short(curve.real(float(curve.s[low])))} at step {first} to "
        f"{short(curve.real(curve.end))}{', and the reward fell' if fell else ', and the reward did not rise'}: the "
        "policy becomes less sure of everything.",
        numbers={"lowest": curve.real(float(curve.s[low])), "end": curve.real(curve.end)},
        causes=ranked(causes_of_fall(evidence, first, curve.last_step(last)),
                      ("An entropy bonus is too large.", "Unlikely tokens of wrong answers are pushed down too hard.")),
        check=("Read answers of the last steps: is it still language?",),
        change=(change(evidence, "Lower the entropy bonus", Option.ENTROPY),
                change(evidence, "Lower the learning rate", Option.LR),
                change(evidence, "Clip or mask tokens far off the sampler", Option.CLIP, Option.CORRECTION)),
        sources=(CUI, KL_SOURCE), wanted=Wanted(curve.first_step(onset), curve.last_step(last), "lowest"),
    )  # fmt: skip


def _lost(reward: Shape, since: int) -> bool:
    """Return whether the reward at the end is worth a word below that at a step, beyond noise."""
    a, last = reward.curve.at(since), len(reward.curve) - 1
    return reward.around(a) - reward.end >= reward.worth and reward.fell(a, last)


def _rose(reward: Shape, since: int) -> bool:
    a, last = reward.curve.at(since), len(reward.curve) - 1
    return reward.end - reward.around(a) >= reward.worth and reward.rose(a, last)


def kl_blow_up(evidence: Evidence) -> Iterator[Finding]:
    """Find a KL to the start that grew sixfold within 15 % of the run, after its first 15 %, and stayed.

    In those first 15 % any KL grows from nothing, so there it is the level that tells, where the reward has nothing to
    show for it.
    """
    curve, reward = evidence.first_of("kl/ref", "kl/unsaid", log=True), evidence.reward
    if curve is None or len(curve) < 20:
        return
    width, last = curve.window(WITHIN), len(curve) - 1
    at, rise = steepest(curve, width, round(AFTER * len(curve)))
    grew = rise >= BLOWN and curve.counts(rise) and curve.end >= curve.s[at] + rise / 2
    if not grew:
        at, rise = steepest(curve, width)
        gone = curve.real(curve.end) >= FAR and rise >= BLOWN and curve.counts(rise)
        if not gone or reward is None or _has_bought(reward):
            return
    if curve.real(curve.end) < HARMLESS:
        return
    fell = reward is not None and _lost(reward, curve.first_step(at))
    onset, to = curve.onset(at, min(last, at + width), 1), min(last, at + width)
    yield found(
        "kl_blow_up", Severity.ERROR if fell else Severity.WARNING, curve, (onset, last),
        f"{curve.name} went from {short(curve.real(float(curve.s[at])))} at step {curve.first_step(at)} to "
        f"{short(curve.real(float(curve.s[to])))} at step {curve.last_step(to)}"
        f"{', and the reward fell' if fell else ''}: the policy has left the neighbourhood of its start.",
        numbers={"before": curve.real(float(curve.s[at])), "end": curve.real(curve.end), "factor": math.exp(rise)},
        causes=ranked(causes_of_fall(evidence, curve.first_step(at), curve.last_step(last)),
                      ("The update steps are too large.", "Nothing holds the policy near its start.")),
        check=("Did the gradient or the data change at the onset?",),
        change=(change(evidence, "Lower the learning rate", Option.LR),
                change(evidence, "Raise the KL coefficient", Option.KL)),
        sources=(KL_SOURCE,), wanted=Wanted(curve.first_step(onset), curve.last_step(last), "lowest"),
    )  # fmt: skip


def kl_spikes(evidence: Evidence) -> Iterator[Finding]:
    """Find single steps whose KL is eight times that of their neighbours, and say whether they did harm."""
    for name in ("kl/ref", "kl/old", "kl/unsaid"):
        here, curve = evidence.values(name), evidence.curve(name)
        if here is None or curve is None:
            continue
        steps, values = here
        at = spikes(values, SPIKE)
        at = at[values[at] >= HARMLESS / 2]
        if not len(at):
            continue
        judged = {int(steps[i]): evidence.reward and harmed(evidence.reward, int(steps[i])) for i in at}
        harm = [step for step, was in judged.items() if was]
        if harm:
            after = f"the reward fell after step {harm[0]}"
        elif False in judged.values():
            after = "the reward went on as before"
        else:
            after = "there is no reward before and after to tell what it did"
        many = f"{len(at)} spikes" if len(at) > 1 else "a spike"
        told = ", ".join(str(int(s)) for s in steps[at[:5]])
        yield found(
            "kl_spikes", Severity.WARNING if harm else Severity.INFO, curve,
            (curve.at(int(steps[at[0]])), curve.at(int(steps[at[-1]]))),
            f"{name} has {many} (step {told}{', ...' if len(at) > 5 else ''}), up to {short(float(values[at].max()))}; "
            f"{after}.",
            numbers={"count": len(at), "largest": float(values[at].max()), "harmful": len(harm)},
            causes=ranked((), ("One batch held very long or very unlikely answers.",
                               "The estimate from sampled tokens has heavy tails (k3).")),
            check=("Which rollouts of that step are far off?",) if harm else (),
            change=(change(evidence, "Clip the gradient harder", Option.GRAD),) if harm else (),
            sources=("Schulman 2020, Approximating KL divergence: the estimators and their tails",),
        )  # fmt: skip
        return


def harmed(reward: Shape, step: int) -> bool | None:
    """Return whether the reward after a step is below that before it, by more than noise and by a word's worth.

    None for the first and the last step, which have nothing before or nothing after them.
    """
    curve = reward.curve
    at, width = curve.at(step), max(3, curve.edge)
    if not 0 < at < len(curve) - 1:
        return None
    before, after = curve.level(at - width, at), curve.level(at + 1, at + 1 + width)
    return before - after >= reward.worth and curve.counts(before - after, width)


def clip_saturated(evidence: Evidence) -> Iterator[Finding]:
    """Find 30 % of the tokens or more clipped over the last fifth of the run."""
    curve = evidence.curve("clip/frac")
    if curve is None:
        return
    first = len(curve) - curve.window(0.2)
    share = curve.level(first, len(curve))
    if share - 2 * curve.error(len(curve) - first) < SATURATED or float(np.ptp(curve.y)) == 0:
        return
    below = np.flatnonzero(curve.s < SATURATED)
    since = int(below[-1]) + 1 if len(below) else 0
    drift = moved(evidence, "kl/old", curve.first_step(0), curve.last_step(len(curve) - 1), log=True)
    causes = [Cause("The policy drifts far from the samples before they are used up.", (f"{drift.told()}.",),
                    min(CAPPED, drift.z))] if drift is not None and drift.counts and drift.z > 0 else []  # fmt: skip
    yield found(
        "clip_saturated", Severity.WARNING, curve, (min(since, first), len(curve) - 1),
        f"{share:.0%} of the tokens are clipped: most of what was sampled no longer moves the policy.",
        numbers={"share": share, "start": curve.start},
        causes=ranked(causes, ("Too many updates on one batch, or too large ones.", "The samples are too old.")),
        check=("Is the ratio 1 at the first update of a batch?",),
        change=(change(evidence, "Make fewer updates per batch", Option.UPDATES),
                change(evidence, "Lower the learning rate", Option.LR),
                change(evidence, "Refresh the sampler more often", Option.SYNC, Option.STALE)),
        sources=(CLIP_SOURCE,),
    )  # fmt: skip


def clip_stuck(evidence: Evidence) -> Iterator[Finding]:
    """Find a clip fraction with exactly one value: not 0, or 0 although the ratios are far from 1."""
    here, curve = evidence.values("clip/frac"), evidence.curve("clip/frac")
    if here is None or curve is None or len(here[0]) < 20:
        return
    steps, values = here
    changes = np.flatnonzero(np.diff(values) != 0)
    first = int(changes[-1]) + 1 if len(changes) else 0
    if len(values) - first < max(20, STUCK * len(values)):
        return
    old, stuck_at = evidence.curve("kl/old"), float(values[-1])
    drifts = old is not None and old.level(old.at(int(steps[first])), len(old)) > DRIFT
    if stuck_at == 0 and not drifts:
        return  # normal with fresh data and one update
    told = (f"although kl/old is {short(old.end)}: nothing is clipped" if stuck_at == 0 and old is not None
            else "to the last digit, which no batch of samples gives")  # fmt: skip
    yield found(
        "clip_stuck", Severity.INFO if stuck_at == 0 else Severity.WARNING, curve, (curve.at(int(steps[first])),
                                                                                    len(curve) - 1),
        f"{curve.name} has been exactly {short(stuck_at)} since step {int(steps[first])}, {told}.",
        numbers={"value": stuck_at},
        causes=ranked((), ("The method has no clip.", "The clip range is never reached as configured.")
                      if stuck_at == 0 else ("The same batch is trained on again and again.",
                                             "The number is not of this step (a stale metric).")),
        check=("Is the ratio computed against the policy that sampled?",),
        change=(change(evidence, "Set a clip range that acts", Option.CLIP),),
        sources=(CLIP_SOURCE,),
    )  # fmt: skip
