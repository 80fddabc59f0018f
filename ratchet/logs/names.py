"""Canonical names of what logs hold: those of our own metric dictionary, and those that only other frameworks log.

Quantities that differ in meaning have different names here, however alike their keys look. `describe` finds the entry
of a name, and `STAND_INS` says what may be drawn in its place.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratchet.core.metric import Better, Metric
from ratchet.core.metric import describe as describe_own
from ratchet.logs.names_agreement import AGREEMENT
from ratchet.logs.names_learning import LEARNING

FOREIGN: tuple[Metric, ...] = (*LEARNING, *AGREEMENT)
"""What no run of ours writes."""

STAND_INS: Mapping[str, tuple[str, ...]] = {
    "reward/mean": ("reward/total/mean", "reward/filtered/mean", "reward/shaped/mean"),
    "len/response/mean": ("len/generated/mean", "len/per_turn/mean"),
    "len/response/max": ("len/generated/max",),
    "len/response/min": ("len/generated/min",),
    "kl/ref": ("kl/ref_reward", "kl/ref_k1", "kl/ref_sequence"),
    "kl/old": ("kl/old_k1",),
    "kl/sampler": ("kl/sampler_k2", "kl/sampler_reverse", "sampler/js"),
    "entropy": ("entropy/sampled", "entropy/rollout"),
    "loss/policy": ("loss/pg",),
    "signal/zero_groups_frac": ("signal/filter/zero_groups",),
    "sampler/logp_diff_max": ("sampler/logp_diff_mean", "sampler/prob_diff_max"),
}
"""Canonical name -> what comes nearest to it, nearest first. Never merged: the series keeps its own name."""


def describe(name: str) -> Metric | None:
    """Return the dictionary's entry for a canonical name, or None. The longest pattern that fits counts."""
    own = describe_own(name)
    foreign = max((m for m in FOREIGN if m.fits(name)), key=lambda m: (m.pattern == name, len(m.pattern)), default=None)
    if own is None or foreign is None:
        return own or foreign
    # Of equals the foreign one: ours speaks of what our runs log under it.
    return own if (own.pattern == name, len(own.pattern)) > (foreign.pattern == name, len(foreign.pattern)) else foreign


def better(name: str) -> Better:
    """Return which way a quantity should move."""
    found = describe(name)
    return found.better if found else Better.NEITHER
