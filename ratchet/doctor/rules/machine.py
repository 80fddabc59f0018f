"""Rules about what is lost on the way: timeouts of the reward, dropped rollouts, memory, time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ratchet.doctor.causes import LOST, losses, ranked, reasons, share_lost, short, timeouts
from ratchet.doctor.curve import Curve
from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Finding, Severity, Wanted
from ratchet.doctor.options import Option, change
from ratchet.doctor.rules.told import found

MOST = 0.25
"""Share of lost rollouts from which on what is left no longer stands for the policy."""
SETTLED, LEAK = 0.1, 0.15
"""Share of the run before memory is looked at, and its growth after that: caches fill in the first steps."""
IDLE = 0.5
"""Share of a step spent waiting: half of what is paid for."""
GENERATES = 0.7
"""Share of a step spent generating; verl#6747 reports 72 % as what hurts."""

HANG = "verl#5839, simpleRL-reason#95: a verifier that never returns; here a timeout is a counted outcome"
LEAKS = "verl#429, OpenRLHF#1013: host memory grows until the process is killed"
IDLENESS = "trl#2610, verl#6747, ROLL#394: who waits for whom"


def reward_timeouts(evidence: Evidence) -> Iterator[Finding]:
    """Find rewards that did not return for a twentieth of the rollouts or more."""
    yield from _lost(evidence, "reward_timeouts", timeouts(evidence), "The reward did not return in time for")


def drops(evidence: Evidence) -> Iterator[Finding]:
    """Find a twentieth of the rollouts or more lost before they were scored, timeouts of the reward left out."""
    late = set(timeouts(evidence))
    yield from _lost(evidence, "drops", [n for n in losses(evidence) if n not in late], "Lost before they had a score:")


def _lost(evidence: Evidence, rule: str, names: Sequence[str], told: str) -> Iterator[Finding]:
    curve = share_lost(evidence, names)
    if curve is None:
        return
    n = len(curve)
    whole, late = curve.level(0, n), curve.level(n - curve.window(0.2), n)
    if max(whole, late) < LOST:
        return
    some = np.flatnonzero(curve.y >= LOST)
    stretch = (int(some[0]) if len(some) else 0, int(some[-1]) if len(some) else n - 1)
    share = max(whole, late)
    status = names[0].partition("/")[2]
    limit = evidence.setting("environment.reward_timeout_s") or evidence.setting("explore.rollout_timeout_s")
    yield found(
        rule, Severity.ERROR if share >= MOST else Severity.WARNING, curve, stretch,
        f"{told} {share:.0%} of the rollouts ({reasons(names)}): they are not trained on, and the rest is a biased "
        "sample.",
        numbers={"share": whole, "share_at_end": late},
        causes=ranked((), ("The reward hangs on some answers (a regular expression, a symbolic solver).",
                           "Too many rewards run at once for this machine.")
                      if rule == "reward_timeouts" else ("Prompts are too long.", "The environment fails.")),
        check=("Score the rollouts named here by hand, and time it.",),
        change=((f"Give the reward more time (now {limit} s), or make it end by itself." if limit else
                 "Give the reward a limit of its own, and make it end by itself.")
                if rule == "reward_timeouts" else "See the reason of each in the log, and mend the commonest.",),
        sources=(HANG,), wanted=Wanted(curve.first_step(stretch[0]), curve.last_step(stretch[1]), f"status:{status}"),
    )  # fmt: skip


def memory_growth(evidence: Evidence) -> Iterator[Finding]:
    """Find memory that rises steadily, also in the second half of the run."""
    curve = evidence.first_of("mem/rss_bytes", *_memory(evidence))
    if curve is None or len(curve) < 20:
        return
    n, first = len(curve), round(SETTLED * len(curve))
    half = (n + first) // 2
    begin = curve.level(first, first + curve.edge)
    grown = curve.end - begin
    if begin <= 0 or grown < LEAK * begin or not curve.counts(grown):
        return
    late = curve.trend(half)
    if not curve.trend(first).rises(1e-4) or not late.rises(0.01) or late.low < 0.2 * grown:
        return
    per_step = late.change / max(1, curve.last_step(n - 1) - curve.first_step(half))
    double = curve.end / per_step if per_step > 0 else float("inf")
    yield found(
        "memory_growth", Severity.WARNING, curve, (first, n - 1),
        f"Memory rises steadily: {short(begin)} to {short(curve.end)} ({grown / begin:+.0%}), and still by "
        f"{short(per_step)} a step; it will have doubled in {short(double)} more steps.",
        numbers={"begin": begin, "end": curve.end, "per_step": per_step},
        causes=ranked((), ("Something is kept from every step: rollouts, log-probabilities, a cache without bound.",)),
        check=("Which objects are more after a hundred steps?",),
        change=(change(evidence, "Until it is mended, save often enough to go on after a kill", Option.SAVE),),
        sources=(LEAKS,),
    )  # fmt: skip


def _memory(evidence: Evidence) -> list[str]:
    """Return names of series that measure the memory of the host."""
    names = [n for n in evidence.names("system/*", "mem/*", "speed/*") if "mem" in n.lower()]
    return [n for n in names if not any(word in n.lower() for word in ("gpu", "max", "peak", "percent_of"))]


def idle_time(evidence: Evidence) -> Iterator[Finding]:
    """Find half of a step or more spent waiting, or nearly all of it generating."""
    step = evidence.curve("time/step")
    if step is None:
        return
    waits = evidence.names("wait/trainer_for_*") or evidence.names("wait/*")
    # That a person paused the run says nothing about how it is set.
    waits = [n for n in waits if "explorer" not in n and "queue" not in n and not n.endswith("_for_pause")]
    overlapped = bool(evidence.setting("sync.offset") or evidence.setting("train.overlap")) or (
        evidence.framework != "ratchet"
    )
    share = evidence.share(waits, "time/step") if waits else None
    if share is not None and _late(share) >= IDLE:
        yield found(
            "idle_time", Severity.WARNING if overlapped else Severity.INFO, share, (0, len(share) - 1),
            f"{_late(share):.0%} of a step is waiting ({', '.join(n.removeprefix('wait/') for n in waits[:3])})"
            f"{'' if overlapped else ': with no overlap set, that is the time of sampling'}.",
            numbers={"share": _late(share)},
            causes=ranked((), ("Sampling is slower than training, and not enough of it runs ahead.",
                               "One long rollout holds the batch up.")),
            change=(change(evidence, "Let the sampler run ahead", Option.STALE, Option.SYNC),),
            sources=(IDLENESS,),
        )  # fmt: skip
        return
    made = [n for n in evidence.names("time/gen", "time/generate*", "time/rollout*", "time/generation*")
            if "step" not in n][:1]  # fmt: skip
    share = evidence.share(made, "time/step") if made else None
    if share is not None and GENERATES <= _late(share) <= 1.05:
        yield found(
            "idle_time", Severity.INFO, share, (0, len(share) - 1),
            f"{_late(share):.0%} of a step is generation: whoever trains waits for it.",
            numbers={"share": _late(share)},
            change=(change(evidence, "Let the sampler run ahead of the trainer", Option.STALE),
                    change(evidence, "Bound the longest answers", Option.LENGTH)),
            sources=(IDLENESS,),
        )  # fmt: skip


def _late(curve: Curve) -> float:
    """Return the level of the second half."""
    return curve.level(len(curve) // 2, len(curve))
