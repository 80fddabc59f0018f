"""Key observations and what they may mean: pairs of series, parts of the reward, held-out results. All computed.

An observation is what the numbers are; an interpretation says what they may come from, and what would tell. Neither
speaks of a move that noise explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ratchet.charts.analysis import FALLING, FLAT, change, is_clear, lost, phases, slope
from ratchet.charts.document import code
from ratchet.charts.relations import Relation, relation, strength
from ratchet.charts.series import CLEAR, Series, move
from ratchet.charts.source import Source
from ratchet.charts.story import series_named, signed, span, trend_sentence, valued

REWARD, LENGTH = "reward/mean", "len/response/mean"
PARTNERS = (LENGTH, "entropy", "kl/ref", "clip/frac", "opt/grad_norm", "env/parallelism")
"""What the reward is held against."""
WITH_FALL = ("reward/parts/*", *PARTNERS, "kl/old", "len/truncated_frac", "signal/zero_groups_frac")
"""What may fall or rise together with a fall of the reward."""
MOST_PAIRS = 6
ADDS_UP = 0.02
"""Share of the reward's range by which parts may miss it and still be called its sum."""
HALVED = 0.5


def relations(source: Source) -> list[Relation]:
    """Return how the reward goes with its partners, and length with entropy."""
    reward = source.nearest(REWARD)
    if reward is None or not reward.values:
        return []
    partners = [s for s in series_named(source, PARTNERS) if s.values and s.name != reward.name]
    found = [r for s in partners if (r := relation(reward, s)) is not None]
    length, entropy = source.nearest(LENGTH), source.nearest("entropy")
    if length is not None and entropy is not None and length.values and entropy.values:
        found += [r] if (r := relation(length, entropy)) is not None else []
    return found[:MOST_PAIRS]


def observations(source: Source, found: Sequence[Relation]) -> list[str]:
    """Return the key observations: how reward and length went, and how pairs of series go together."""
    said = []
    for name in (REWARD, LENGTH):
        series = source.nearest(name)
        if series is not None and series.values:
            said.append(trend_sentence(series))
    said += [sentence for r in found for sentence in relation_sentences(r)]
    return [*said, *_explained(source), *_held_out(source)] or ["Too little is recorded to say anything."]


def relation_sentences(r: Relation) -> Iterator[str]:
    """Say how strongly two series go together, which leads, and where they part, with the caution that is due."""
    one, other, steps = code(r.one), code(r.other), f"steps {r.first} to {r.last}"
    v, p = r.values, r.ripples
    said = (
        f"{one} and {other} ({steps}): correlation of the values {v.value:+.2f} ({strength(v.value)}), of what is left "
        f"around their moving means {p.value:+.2f} (95 % band {p.low:+.2f} to {p.high:+.2f})"
    )
    if not p.is_clear:
        said += (
            ": the band includes 0, so beyond a common trend nothing joins them"
            if abs(v.value) >= 0.4
            else ": the band includes 0, so nothing is shown to join them"
        )
    else:
        ways = "the same way" if p.value > 0 else "opposite ways"
        said += f": from step to step they move {ways} ({strength(p.value)}), which is no proof of a cause"
        if v.value * p.value < 0 and strength(v.value) != "none":
            said += "; over the run it is the other way round, so the trend is not one's pull on the other"
    yield f"{said}."
    if r.lead is not None:
        first, second = (one, other) if r.lead.steps > 0 else (other, one)
        yield (
            f"{first} goes {abs(r.lead.steps)} steps before {second} ({steps}): correlation {r.lead.correlation:+.2f} "
            f"at that lag, where chance gives up to {r.lead.doubt:.2f}. What goes before need not be the cause."
        )
    for apart in r.apart if r.other.startswith("len/") else ():
        yield (
            f"**They part** over steps {apart.first} to {apart.last}: {code(apart.rising)} rises while "
            f"{code(apart.falling)} falls, both by more than their noise."
        )


def interpretation(source: Source, found: Sequence[Relation]) -> list[str]:
    """Return what the observations may mean. Each sentence stands on moves that exceed their noise."""
    reward = source.nearest(REWARD)
    if reward is None or not reward.values:
        return ["Without a finite reward nothing can be said about learning."]
    band = change(reward)
    if band is None:
        return [
            f"{code(reward.name)} has {len(reward.values)} finite values ({span(reward.steps)}): too few to tell "
            "learning from noise. Train longer before reading anything into it."
        ]
    said = list(_learning(source, reward))
    said += _with_length(source, reward, found)
    said += _with_policy(source, reward)
    return said


def _learning(source: Source, reward: Series) -> Iterator[str]:
    name, steps, m = code(reward.name), span(reward.steps), move(reward)
    if (gone := lost(reward)) is not None:
        verb = "What it had learned it lost" if gone.start - m.start > CLEAR * m.standard_error else "It got worse"
        yield (
            f"{verb}: {name} held {valued(reward.name, gone.start)} from step {gone.first} on and ends at "
            f"{valued(reward.name, gone.end)} (steps {gone.first} to {gone.last}). An earlier checkpoint is the better "
            "one."
        )
        yield from _fall(source, reward, gone.first)
    elif not is_clear(reward):
        yield f"No learning is shown: {name} ends where it began, within its noise ({steps})."
        lean = slope(reward)
        if lean is not None and lean.is_clear:
            yield (
                f"Between its ends {name} leans {'up' if lean.value > 0 else 'down'} yet (Theil-Sen, {steps}); "
                "more steps would tell."
            )
    elif m.difference > 0:
        yield f"It learned: {name} rose by more than its noise over {steps} ({signed(reward.name, m.difference)})."
    else:
        yield (
            f"It got worse: {name} fell by more than its noise over {steps} ({signed(reward.name, m.difference)}). "
            "Look at what changed before the fall."
        )
    held = [s for s in series_named(source, ("eval/*/reward_mean", "eval/*/pass@1")) if len(s.values) >= 2]
    for series in held[:1]:
        rose = series.values[-1] - series.values[0]
        if is_clear(reward) and m.difference > 0 and rose <= 0:
            yield (
                f"Held-out {code(series.name)} did not rise with it ({valued(series.name, series.values[0])} at step "
                f"{series.steps[0]}, {valued(series.name, series.values[-1])} at step {series.steps[-1]}): what was "
                "learned may hold on training tasks alone, or please the reward without doing the task."
            )


def _fall(source: Source, reward: Series, top: int) -> Iterator[str]:
    """Say in which steps a reward fell, and what else moved by more than its noise in just those."""
    falls = [s for s in phases(reward) if s.direction == FALLING and s.last > top]
    if not falls:
        yield f"The fall of {code(reward.name)} after step {top} is spread: no part of it alone exceeds the noise."
        return
    worst = min(falls, key=lambda s: s.end - s.start)
    moved = []
    for series in series_named(source, WITH_FALL):
        here = [s for s in phases(series) if s.direction != FLAT and s.first < worst.last and s.last > worst.first]
        moved += [f"{code(series.name)} {s.direction} (steps {s.first} to {s.last})" for s in here[:1]]
    beside = f"Beside it: {', '.join(moved)}." if moved else "None of the other usual series moved clearly then."
    yield f"{code(reward.name)} falls over steps {worst.first} to {worst.last}. {beside}"


def _with_length(source: Source, reward: Series, found: Sequence[Relation]) -> list[str]:
    length = source.nearest(LENGTH)
    if length is None or not length.values or not is_clear(reward) or lost(reward) is not None:
        return []
    up, m = move(reward).difference > 0, move(length)
    names = f"{code(reward.name)} and {code(length.name)} ({span(length.steps)})"
    if not is_clear(length):
        return [f"{names}: length moves inside its noise, so the change of the reward is not one of length."]
    together = next((r for r in found if r.other == length.name), None)
    joined = together is not None and together.ripples.is_clear and together.ripples.value > 0
    if up and m.difference > 0:
        tells = (
            "steps with longer answers also earn more, so length may be part of what pays"
            if joined
            else "but from step to step longer answers do not earn more, so length may merely have grown alongside"
        )
        return [f"{names} both rose: {tells}. Whether length itself pays, a run with a cap on it would tell."]
    if up:
        return [f"{names}: it earns more with shorter answers ({signed(length.name, m.difference)})."]
    if m.difference > 0:
        return [
            f"{names}: answers grew by {signed(length.name, m.difference)} while the reward fell. Longer answers do "
            "not pay here; look at truncation and at what the late answers say."
        ]
    return [f"{names} both fell: the answers lost what was paid for, or were cut short."]


def _with_policy(source: Source, reward: Series) -> list[str]:
    said = []
    entropy, kl = source.nearest("entropy"), source.nearest("kl/ref")
    if entropy is not None and len(entropy.values) > 1 and is_clear(entropy):
        m = move(entropy)
        if m.start > 0 and m.end < HALVED * m.start:
            said.append(
                f"{code(entropy.name)} fell to {100 * m.end / m.start:.0f} % of its start ({span(entropy.steps)}): the "
                "policy has grown sure of itself and tries little that is new; more steps will find less."
            )
    if kl is not None and len(kl.values) > 1 and is_clear(kl) and not is_clear(reward) and lost(reward) is None:
        m = move(kl)
        said.append(
            f"{code(kl.name)} moved by {signed(kl.name, m.difference)} ({span(kl.steps)}) while {code(reward.name)} "
            "did not: the policy changes without earning more, as with a signal that is mostly noise."
        )
    return said


def _explained(source: Source) -> list[str]:
    """Say which part of the reward made its change, where the parts add up to it."""
    reward = source.get(REWARD)
    parts = [s for s in series_named(source, ("reward/parts/*",)) if s.values]
    if reward is None or len(parts) < 2 or any(s.steps != reward.steps for s in parts) or not is_clear(reward):
        return []
    sums = [sum(values) for values in zip(*(s.values for s in parts), strict=True)]
    reach = max(reward.values) - min(reward.values)
    if max(abs(a - b) for a, b in zip(sums, reward.values, strict=True)) > ADDS_UP * reach:
        return []
    told = ", ".join(f"{code(s.name)} {signed(s.name, move(s).difference)}" for s in parts)
    return [
        f"The parts add up to {code(reward.name)} ({span(reward.steps)}); of its change of "
        f"{signed(reward.name, move(reward).difference)} they bring: {told}."
    ]


def _held_out(source: Source) -> list[str]:
    """Say how held-out pass rates moved, inside or outside their binomial intervals."""
    said = []
    for series in series_named(source, ("eval/*/pass@1",)):
        low, high = source.get(f"{series.name}_low"), source.get(f"{series.name}_high")
        if len(series.values) < 2 or low is None or high is None or len(low.values) != len(series.values):
            continue
        apart = low.values[-1] > high.values[0] or high.values[-1] < low.values[0]
        said.append(
            f"Held out, {code(series.name)} goes from {valued(series.name, series.values[0])} (step {series.steps[0]}) "
            f"to {valued(series.name, series.values[-1])} (step {series.steps[-1]}); the 95 % intervals "
            + ("do not touch." if apart else "overlap, so that is **inside the noise**.")
        )
    return said
