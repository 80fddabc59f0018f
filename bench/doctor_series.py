"""Generated runs for `bench/doctor.py`: for every rule runs that have what it looks for, and runs that nearly have it.

A run is a dict of series by canonical name. It starts as one that goes well; a case then changes what it is about and
leaves the rest alone. Noise is AR(1), of random strength and correlation, in half of the runs with heavy tails; lengths
go from 30 to 10,000 steps, scales of rewards and lengths over orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.signal import lfilter

Values = np.ndarray
Rng = np.random.Generator


@dataclass
class Run:
    """A made-up run: what is known of its making, and its series."""

    rng: Rng
    n: int
    series: dict[str, tuple[Values, Values]] = field(default_factory=dict)
    scale: float = 1.0
    low: float = 0.0
    sigma: float = 0.03
    rho: float = 0.0
    tails: bool = False
    also: frozenset[str] = frozenset()
    """Rules that hold of this very run too."""

    @property
    def t(self) -> Values:
        return np.linspace(0.0, 1.0, self.n)

    def noise(self, sigma: float, *, tails: bool = True) -> Values:
        """Return AR(1) noise of this deviation; of a logarithm without heavy tails, for these would be spikes."""
        heavy = self.tails and tails
        e = self.rng.standard_t(4, self.n) / np.sqrt(2) if heavy else self.rng.standard_normal(self.n)
        e[1:] *= np.sqrt(1 - self.rho**2)
        return sigma * np.asarray(lfilter([1.0], [1.0, -self.rho], e))

    def put(self, name: str, values: Values, every: int = 1) -> None:
        at = np.arange(0, self.n, every)
        self.series[name] = (at, np.asarray(values, dtype=float)[at])

    def get(self, name: str) -> Values:
        return self.series[name][1]

    def reward(self, shape: Values) -> None:
        """Set the reward to a shape between 0 and 1; noise is smaller near the ends of the scale."""
        p = np.clip(shape, 0, 1)
        self.task = p
        noisy = p + self.noise(self.sigma) * np.sqrt(np.clip(4 * p * (1 - p), 0.1, 1))
        self.put("reward/mean", self.low + self.scale * np.clip(noisy, 0, 1))
        self.put("reward/std", self.scale * np.sqrt(np.clip(p * (1 - p), 0.01, 1)))
        every = max(1, self.n // 12)
        seen = np.clip(p + self.rng.normal(0, 0.02, self.n), 0, 1)
        self.put("eval/test/accuracy", seen, every)


def u(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def logu(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def rising(run: Run, tau: float | None = None) -> Values:
    """Return a reward that goes well: saturating, linear or S-shaped."""
    rng, t = run.rng, run.t
    start, gain = u(rng, 0.05, 0.35), u(rng, 0.25, 0.55)
    kind = rng.integers(3)
    if kind == 0 or tau is not None:
        return start + gain * (1 - np.exp(-t / (tau or u(rng, 0.15, 0.5))))
    if kind == 1:
        return start + gain * t
    return start + gain / (1 + np.exp(-(t - u(rng, 0.3, 0.6)) / 0.1))


def well(rng: Rng, n: int | None = None, quick: bool = False) -> Run:
    """Return a run that goes well. `quick` runs have gained all by a third of their steps."""
    n = n or round(logu(rng, 30, 10_000))
    scale = float(rng.choice([1.0, 2.0, 100.0, 0.01]))
    run = Run(rng, n, scale=scale, low=float(rng.choice([0.0, 0.0, -1.0])) * scale, sigma=u(rng, 0.01, 0.04),
              rho=u(rng, 0, 0.5), tails=bool(rng.integers(2)))  # fmt: skip
    t = run.t
    run.reward(rising(run, 0.07 if quick else None))
    run.put("len/response/mean", logu(rng, 30, 5000) * np.exp(u(rng, -0.08, 0.08) * t + run.noise(u(rng, 0.01, 0.05))))
    run.put("entropy", logu(rng, 0.05, 3) * np.exp(-u(rng, 0, 0.9) * t + run.noise(u(rng, 0.02, 0.08))))
    run.put(
        "kl/ref",
        logu(rng, 0.005, 0.2) * np.maximum(t, 0.2 / n) ** u(rng, 0.5, 1.1) * np.exp(run.noise(0.15, tails=False)),
    )
    run.put("opt/grad_norm", logu(rng, 0.05, 5) * np.exp(run.noise(u(rng, 0.1, 0.3), tails=False)))
    run.put("clip/frac", np.clip(u(rng, 0.005, 0.1) * np.exp(run.noise(0.2, tails=False)), 0, 1))
    decay = int(rng.integers(3))
    run.put("opt/lr", logu(rng, 1e-7, 1e-3) * (np.ones(n) if decay == 0 else 1 - t if decay == 1 else
                                               0.5 + 0.5 * np.cos(np.pi * t)))  # fmt: skip
    run.put("len/truncated_frac", np.clip(u(rng, 0, 0.03) + np.abs(run.noise(0.008)), 0, 1))
    run.put("signal/zero_groups_frac", np.clip(u(rng, 0.1, 0.3) + u(rng, 0, 0.25) * t + run.noise(0.03), 0, 1))
    run.put("signal/token_advantage", run.noise(0.01))
    run.put("kl/old", logu(rng, 1e-4, 5e-3) * np.exp(run.noise(0.2, tails=False)))
    run.put("kl/sampler", logu(rng, 1e-5, 1e-3) * np.exp(run.noise(0.2, tails=False)))
    run.put("stale/mean", np.zeros(n) if rng.integers(2) else np.clip(u(rng, 0.5, 2) + run.noise(0.2), 0, None))
    run.put("time/step", logu(rng, 1, 300) * np.exp(run.noise(0.1, tails=False)))
    run.put("wait/trainer_for_groups", run.get("time/step") * u(rng, 0.05, 0.3))
    run.put("mem/rss_bytes", logu(rng, 1e9, 5e10) * (1 + 0.2 * (1 - np.exp(-t / 0.03)) + run.noise(0.005)))
    run.put("rollouts/asked", np.full(n, 256.0))
    run.put("drop/rollout_timeout", rng.poisson(2.0, n))
    run.also = frozenset({"healthy_growth", "plateau"})
    return run


def parts(run: Run, accuracy: Values, form: Values, name: str = "format") -> None:
    run.put("reward/parts/accuracy", np.clip(accuracy + run.noise(run.sigma), 0, 1))
    run.put(f"reward/parts/{name}", np.clip(form + run.noise(run.sigma / 2), 0, 1))
    run.put("reward/mean", run.get("reward/parts/accuracy") + run.get(f"reward/parts/{name}"))
    del run.series["reward/std"]
    every = max(1, run.n // 12)
    run.put("eval/test/accuracy", np.clip(accuracy + run.rng.normal(0, 0.02, run.n), 0, 1), every)


def step_at(t: Values, c: float, width: float) -> Values:
    return np.clip((t - c) / width, 0, 1)


def bump(t: Values, c: float, width: float) -> Values:
    return np.exp(-0.5 * ((t - c) / width) ** 2)


def flat(run: Run) -> None:
    run.reward(np.full(run.n, u(run.rng, 0.05, 0.6)))
    run.also = frozenset({"no_learning"})


def collapse(run: Run, share: float, width: float | None = None) -> None:
    rng, t = run.rng, run.t
    c = u(rng, 0.45, 0.85)
    fall = share * step_at(t, c, width or u(rng, 0.005, 0.1))
    start = run.task[0]
    top = float(run.task[int(c * (run.n - 1))])
    run.reward(np.where(t < c, run.task, top) - (top - start) * fall)


def mult(run: Run, name: str, factor: Values) -> None:
    at, values = run.series[name]
    run.series[name] = (at, values * factor)


def spiky(run: Run, name: str, low: float, high: float) -> None:
    count = int(run.rng.integers(1, 4))
    at = run.rng.choice(np.arange(8, run.n), size=count, replace=False)
    if name == "kl/ref":
        mult(run, name, np.full(run.n, 0.05 / np.median(run.get(name))))
    factor = np.ones(run.n)
    factor[at] = run.rng.uniform(low, high, count)
    typical = np.median(run.get(name)[5:])
    values = run.get(name).copy()
    values[at] = np.maximum(values[at], typical) * factor[at]
    run.put(name, values)


def agents(run: Run, course: Values) -> None:
    run.put("env/parallelism", np.maximum(1.0, course * np.exp(run.noise(0.04))))


def sawtooth(run: Run, amplitude: float) -> None:
    period = int(run.rng.integers(4, max(5, min(20, run.n // 7)) + 1))
    phase = np.arange(run.n) % period
    run.put("kl/old", 1e-3 * (1 + phase) * np.exp(run.noise(0.2, tails=False)))
    at, values = run.series["reward/mean"]
    run.series["reward/mean"] = (at, values - amplitude * run.scale * phase / period)
    run.put("stale/mean", phase.astype(float))
    if run.rng.integers(2):
        del run.series["stale/mean"]


def fill(run: Run, name: str, start: float, end: float, sigma: float, c: float = 0.2) -> None:
    """Set a share that goes from one level to another around a point of the run."""
    run.put(name, np.clip(start + (end - start) * step_at(run.t, c, 0.3) + run.noise(sigma), 0, 1))


def broken(run: Run) -> None:
    name = str(run.rng.choice(["opt/grad_norm", "kl/ref", "entropy"]))
    values = run.get(name).copy()
    at = int(run.rng.integers(run.n // 3, run.n - 1))
    values[at : (None if run.rng.integers(2) else at + 1)] = run.rng.choice([np.nan, np.inf])
    run.put(name, values)


def undelivered(run: Run) -> None:
    flat(run)
    if run.rng.integers(2):
        version = np.full(run.n, 3.0)
        version[: run.n // 6] = np.minimum(np.arange(run.n // 6), 3)
        run.put("version/sampled/mean", version)
    else:
        run.put("kl/old", 1e-3 * (1 + u(run.rng, 20, 200) * run.t) * np.exp(run.noise(0.1, tails=False)))
    run.also = frozenset({"no_learning", "too_stale", "sampler_mismatch"})


def surge(run: Run) -> None:
    rng, t = run.rng, run.t
    c = u(rng, 0.5, 0.7)
    top = run.task[int(c * (run.n - 1))]
    lost = u(rng, 0.6, 1.1) * (top - run.task[0])
    run.reward(np.where(t < c, run.task, top) - lost * step_at(t, c, 1 - c))
    mult(run, "len/response/mean", np.exp(np.log(u(rng, 1.6, 3)) * step_at(t, c, 1 - c)))
    run.also = frozenset({"reward_collapse", "peak_before_end", "length_growth", "length_explosion"})


def explosion(run: Run) -> None:
    c = u(run.rng, 0.5, 0.75)
    mult(run, "len/response/mean", np.exp(np.log(u(run.rng, 2.4, 5)) * step_at(run.t, c, 0.08)))
    run.also |= {"length_growth"}


def dying(run: Run) -> None:
    t = run.t
    parts(run, u(run.rng, 0.2, 0.4) + 0.4 * t, 0.85 - u(run.rng, 0.55, 0.75) * step_at(t, u(run.rng, 0.3, 0.6), 0.2),
          str(run.rng.choice(["citations", "brevity", "politeness"])))  # fmt: skip
    run.also = frozenset({"healthy_growth", "plateau", "no_learning", "reward_collapse", "peak_before_end",
                          "drop_then_recovery"})  # fmt: skip


def hacked(run: Run) -> None:
    down = u(run.rng, 0, 0.2)
    level = u(run.rng, 0.3, 0.6)
    every = max(1, run.n // 12)
    seen = level - down * run.t + run.rng.normal(0, 0.02, run.n)
    run.put("eval/test/accuracy", np.clip(seen, 0, 1), every)


def settle(run: Run, *also: str) -> None:
    run.also |= set(also)


def _has_negatives(run: Run) -> None:
    level = u(run.rng, 0.2, 0.6)
    run.put("signal/token_advantage", -level * step_at(run.t, 0.1, 0.4) + run.noise(0.03))


def _old(run: Run) -> None:
    if run.rng.integers(2):
        top = min(u(run.rng, 6, 30), 0.5 * run.n)
        run.put("stale/mean", np.clip(top * run.t + run.noise(0.3), 0, None))
    else:
        run.put("kl/old", u(run.rng, 0.25, 2) * np.exp(run.noise(0.2, tails=False)))


def _mismatch(run: Run) -> None:
    if run.rng.integers(2):
        run.put("kl/sampler", u(run.rng, 0.03, 0.5) * np.exp(run.noise(0.2, tails=False)))
    else:
        run.put("kl/sampler", 2e-3 * np.exp(np.log(u(run.rng, 10, 60)) * run.t + run.noise(0.2)))


def _exhausted(run: Run) -> None:
    flat(run) if run.rng.integers(2) else None
    mult(run, "entropy", np.exp(-np.log(u(run.rng, 12, 80)) * step_at(run.t, 0.05, u(run.rng, 0.15, 0.5))))


def _recovers(run: Run) -> None:
    c, gain = u(run.rng, 0.4, 0.65), run.task.max() - run.task[0]
    run.reward(run.task - u(run.rng, 0.5, 0.9) * gain * bump(run.t, c, u(run.rng, 0.05, 0.08)))


def _peaks(run: Run) -> None:
    c = u(run.rng, 0.45, 0.65)
    top, gain = run.task[int(c * (run.n - 1))], run.task[int(c * (run.n - 1))] - run.task[0]
    run.reward(np.where(run.t < c, run.task, top) - u(run.rng, 0.28, 0.42) * gain * step_at(run.t, c, 1 - c))
    run.also = frozenset({"healthy_growth"})


def _slow(run: Run) -> None:
    start = u(run.rng, 0.1, 0.3)
    run.reward(start + max(0.15, 8 * run.sigma / np.sqrt(run.n / 10)) * run.t)


def _quick(change: Callable[[Run], None]) -> Callable[[Run], None]:
    """Return the change made to a run that has its gain by a third of its steps."""
    change.quick = True  # type: ignore[attr-defined]
    return change


HAS: dict[str, Callable[[Run], None]] = {
    "not_finite": broken,
    "reward_collapse": lambda r: (collapse(r, u(r.rng, 0.7, 1.3)), settle(r)),
    "length_surge_reward_fall": _quick(surge),
    "weights_not_delivered": undelivered,
    "kl_blow_up": lambda r: mult(r, "kl/ref", 0.05 / r.get("kl/ref")[r.n // 2] * np.exp(
        np.log(u(r.rng, 15, 100)) * step_at(r.t, u(r.rng, 0.35, 0.8), 0.08))),
    "entropy_explosion": _quick(lambda r: mult(r, "entropy", np.exp(
        np.log(u(r.rng, 3.5, 9)) * step_at(r.t, u(r.rng, 0.5, 0.7), 0.15)))),
    "hacking_suspicion": hacked,
    "no_learning": flat,
    "component_dying": dying,
    "format_only": lambda r: (parts(r, np.full(r.n, u(r.rng, 0.05, 0.2)), 0.2 + 0.75 * (1 - np.exp(-r.t / 0.15))),
                              settle(r, "hacking_suspicion")),
    "reward_timeouts": lambda r: r.put("drop/reward_timeout", r.rng.poisson(256 * u(r.rng, 0.1, 0.45), r.n)),
    "drops": lambda r: r.put("drop/environment_error", r.rng.poisson(256 * u(r.rng, 0.1, 0.45), r.n)),
    "entropy_collapse": _exhausted,
    "zero_signal": lambda r: fill(r, "signal/zero_groups_frac", 0.3, u(r.rng, 0.88, 0.97), 0.02, 0.4),
    "truncation": lambda r: fill(r, "len/truncated_frac", u(r.rng, 0, 0.1), u(r.rng, 0.2, 0.8), 0.03),
    "length_explosion": _quick(explosion),
    "sampler_mismatch": _mismatch,
    "too_stale": _old,
    "negatives_dominate": _has_negatives,
    "clip_saturated": lambda r: fill(r, "clip/frac", 0.05, u(r.rng, 0.45, 0.8), 0.03),
    "clip_stuck": lambda r: r.put("clip/frac", np.where(r.t > 0.3, 0.0625, r.get("clip/frac"))),
    "gradient_spikes": lambda r: spiky(r, "opt/grad_norm", 15, 60),
    "kl_spikes": lambda r: spiky(r, "kl/ref", 12, 60),
    "lr_zero": lambda r: r.put("opt/lr", 1e-6 * (r.t < u(r.rng, 0.2, 0.75)) * r.rng.integers(0, 2)),
    "serial_collapse": lambda r: agents(r, 1 + 7 * np.exp(-r.t / u(r.rng, 0.1, 0.3))),
    "spurious_parallelism": lambda r: (flat(r), agents(r, 7 * np.exp(u(r.rng, 0.7, 1.2) * r.t))),
    "memory_growth": lambda r: mult(r, "mem/rss_bytes", 1 + u(r.rng, 0.4, 2) * r.t),
    "idle_time": lambda r: r.put("wait/trainer_for_groups", r.get("time/step") * u(r.rng, 0.6, 0.9)),
    "peak_before_end": _quick(_peaks),
    "drop_then_recovery": _quick(_recovers),
    "sync_sawtooth": lambda r: sawtooth(r, 0.1),
    "plateau": _quick(lambda r: settle(r)),
    "length_shrink": lambda r: mult(r, "len/response/mean", np.exp(np.log(u(r.rng, 0.35, 0.6)) * r.t)),
    "length_growth": lambda r: mult(r, "len/response/mean", np.exp(np.log(u(r.rng, 1.4, 2.2)) * r.t)),
    "length_dip": lambda r: mult(r, "len/response/mean",
                                 1 - u(r.rng, 0.25, 0.45) * bump(r.t, u(r.rng, 0.35, 0.6), 0.08)),
    "parallel_dip_surge": lambda r: agents(r, 8.3 * (1 - 0.3 * bump(r.t, 0.25, 0.12)) * (1 + 0.8 * r.t**3)),
    "healthy_growth": lambda r: settle(r),
}  # fmt: skip
"""Rule -> what makes a run have it."""

NEAR: dict[str, Callable[[Run], None]] = {
    "not_finite": lambda r: r.put("eval/test/other", np.full(r.n, np.nan), 5),
    "reward_collapse": _quick(lambda r: (collapse(r, u(r.rng, 0.1, 0.25)), settle(r, "peak_before_end"))),
    "length_surge_reward_fall": lambda r: (mult(r, "len/response/mean", 1 + r.t), settle(r, "length_growth")),
    "weights_not_delivered": lambda r: r.put("version/sampled/mean", np.arange(r.n) // 5),
    "kl_blow_up": lambda r: mult(r, "kl/ref", 1 + 2 * r.t),
    "entropy_explosion": _quick(lambda r: mult(r, "entropy", 1 + 0.35 * r.t)),
    "hacking_suspicion": lambda r: None,
    "no_learning": lambda r: (_slow(r), settle(r)),
    "component_dying": lambda r: parts(r, 0.3 + 0.4 * r.t, 0.8 - 0.1 * r.t),
    "format_only": lambda r: parts(r, 0.2 + 0.5 * r.t, 0.4 + 0.5 * (1 - np.exp(-r.t / 0.15))),
    "reward_timeouts": lambda r: r.put("drop/reward_timeout", r.rng.poisson(4.0, r.n)),
    "drops": lambda r: r.put("drop/environment_error", r.rng.poisson(4.0, r.n)),
    "entropy_collapse": lambda r: mult(r, "entropy", np.exp(-0.5 * r.t)),
    "zero_signal": lambda r: fill(r, "signal/zero_groups_frac", 0.3, u(r.rng, 0.5, 0.7), 0.03),
    "truncation": lambda r: fill(r, "len/truncated_frac", 0.02, 0.06, 0.01),
    "length_explosion": lambda r: (mult(r, "len/response/mean", 1 + r.t), settle(r, "length_growth")),
    "sampler_mismatch": lambda r: r.put("kl/sampler", 2e-3 * np.exp(r.noise(0.3, tails=False))),
    "too_stale": lambda r: r.put("stale/mean", np.clip(3 + r.noise(0.5), 0, None)),
    "negatives_dominate": lambda r: r.put("signal/token_advantage", -0.03 + r.noise(0.02)),
    "clip_saturated": lambda r: r.put("clip/frac", np.clip(0.15 + r.noise(0.03), 0, 1)),
    "clip_stuck": lambda r: r.put("clip/frac", np.zeros(r.n)),
    "gradient_spikes": lambda r: r.put("opt/grad_norm", np.exp(r.noise(0.45, tails=False))),
    "kl_spikes": lambda r: mult(r, "kl/ref", np.exp(r.noise(0.2, tails=False))),
    "lr_zero": lambda r: r.put("opt/lr", 1e-6 * (1 - r.t)),
    "serial_collapse": lambda r: agents(r, 8 - 2.5 * r.t),
    "spurious_parallelism": lambda r: agents(r, 7 * np.exp(0.8 * r.t)),
    "memory_growth": lambda r: mult(r, "mem/rss_bytes", 1 + 0.5 * step_at(r.t, 0.0, 0.08)),
    "idle_time": lambda r: r.put("wait/trainer_for_groups", r.get("time/step") * 0.35),
    "peak_before_end": _quick(lambda r: settle(r)),
    "drop_then_recovery": _quick(lambda r: r.reward(r.task - 0.03 * bump(r.t, 0.5, 0.05))),
    "sync_sawtooth": lambda r: None,
    "plateau": lambda r: (r.reward(0.1 + 0.6 * r.t), settle(r)),
    "length_shrink": lambda r: mult(r, "len/response/mean", 1 - 0.1 * r.t),
    "length_growth": lambda r: mult(r, "len/response/mean", 1 - 0.03 * r.t),
    "length_dip": lambda r: mult(r, "len/response/mean", 1 - 0.03 * bump(r.t, 0.5, 0.08)),
    "parallel_dip_surge": lambda r: agents(r, 8 + 4 * r.t),
    "healthy_growth": flat,
}  # fmt: skip
"""Rule -> a run that has nearly what it looks for; the rule must stay silent."""


def made(kind: str, rule: str, rng: Rng, n: int | None = None) -> Run:
    """Return a run: ``has`` a rule's finding, is ``near`` it, or goes ``well`` (then `rule` does not matter)."""
    change = {"has": HAS, "near": NEAR}.get(kind, {}).get(rule)
    least = 40 if rule in ("drop_then_recovery", "length_dip", "plateau", "no_learning", "peak_before_end",
                           "parallel_dip_surge", "sync_sawtooth", "memory_growth", "spurious_parallelism",
                           "weights_not_delivered", "clip_stuck") else 30  # fmt: skip
    run = well(rng, n or round(logu(rng, least, 10_000)), quick=getattr(change, "quick", False))
    if change is not None:
        change(run)
    if kind == "has":
        run.also |= {rule}
    return run
