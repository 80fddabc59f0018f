"""A reference that knows scalars only: one sample after the other, from the formula in each row's docstring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ratchet.algorithms.selection import balanced
from ratchet.core.batch import Batch

Options = Mapping[str, object]


def naive(row: str, options: Options, logp: Tensor, b: Batch) -> Tensor:
    """Return the loss of a row on a batch."""
    lengths, places = shape(b)
    groups, rewards = b.group.tolist(), b.reward.tolist()
    kept = list(range(len(groups)))
    if row == "dapo":
        kept = [i for i in kept if len({r for r, g in zip(rewards, groups, strict=True) if g == groups[i]}) > 1]
    tokens = sum(lengths[i] for i in kept)
    credit = naive_credit(row, options, b, kept)
    weights = naive_weights(row, options, b, credit)
    total = torch.zeros((), dtype=torch.float64)
    for i in kept:
        change = [logp[t] - b.logp_behaviour[t] for t in places[i]]
        values = naive_tokens(row, options, [credit[t] for t in places[i]], [logp[t] for t in places[i]], change)
        if row in ("grpo", "gspo", "gmpo", "sapo"):
            per = len(kept) * lengths[i]
        elif row in ("rloo", "remax", "k1_5"):
            per = len(kept)
        else:
            per = len(kept) * int(options.get("length", 1024)) if row == "dr_grpo" else tokens
        total = total + weights[i] * sum(values, torch.zeros((), dtype=torch.float64)) / per
    return total


def shape(b: Batch) -> tuple[list[int], list[range]]:
    """Return the length of each sample and the places of its tokens."""
    lengths = [int(n) for n in b.lengths]
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return lengths, [range(end - n, end) for n, end in zip(lengths, ends, strict=True)]


def naive_credit(row: str, options: Options, b: Batch, kept: Sequence[int]) -> dict[int, float]:
    """Return the advantage of each token of the kept samples."""
    lengths, places = shape(b)
    groups, rewards = b.group.tolist(), b.reward.tolist()
    if row == "dapo" and options.get("overlong_length"):
        rewards = [r - overlong(n, options) for r, n in zip(rewards, lengths, strict=True)]
    members = {g: [r for r, h in zip(rewards, groups, strict=True) if h == g] for g in groups}
    credit: dict[int, float] = {}
    for i in kept:
        advantage = of_sample(row, options, rewards[i], members[groups[i]])
        if row == "red_drop":  # which ones stay is drawn; the draw has tests of its own
            stay = balanced(b).tolist()
            theirs = [r for r, g, s in zip(rewards, groups, stay, strict=True) if s and g == groups[i]]
            advantage = (rewards[i] - sum(theirs) / len(theirs)) * stay[i]
        if row == "remax":
            advantage = rewards[i] - b.greedy_reward.tolist()[i]
        if row == "reinforce_pp":
            advantage = rewards[i]
        credit |= dict.fromkeys(places[i], advantage)
        if row == "ppo":
            values = [b.value.tolist()[t] for t in places[i]]
            credit |= zip(places[i], naive_gae(values, rewards[i], options), strict=True)
        if row == "distill":
            share = float(options.get("reward_coef", 0.0)) * advantage
            credit |= {t: float(b.logp_teacher[t] - b.logp_behaviour[t]) + share for t in places[i]}
    if row.startswith("reinforce_pp") or (row == "ppo" and options.get("whiten", True)):
        mean = sum(credit.values()) / len(credit)
        deviation = math.sqrt(sum((a - mean) ** 2 for a in credit.values()) / len(credit))
        credit = {t: (a - mean) / (deviation + 1e-8) for t, a in credit.items()}
    return credit


def naive_gae(values: Sequence[float], reward: float, options: Options) -> list[float]:
    """Return the advantage of each token of a sample, going through it from its end."""
    gamma, lam = float(options.get("gamma", 1.0)), float(options.get("lam", 0.95))
    found: list[float] = []
    following, ahead, paid = 0.0, 0.0, reward
    for value in reversed(values):
        ahead = paid + gamma * following - value + gamma * lam * ahead
        found.insert(0, ahead)
        following, paid = value, 0.0
    return found


def overlong(length: int, options: Options) -> float:
    """Return what an answer of a length loses: the three cases of the paper's equation."""
    limit, buffer = int(options["overlong_length"]), int(options["overlong_buffer"])
    if length <= limit - buffer:
        return 0.0
    return (length - (limit - buffer)) / buffer if length <= limit else 1.0


def of_sample(row: str, options: Options, reward: float, mine: Sequence[float]) -> float:
    """Return the advantage of a sample from its reward and those of its group."""
    mean = sum(mine) / len(mine)
    advantage = reward - mean
    if options.get("std", row in ("grpo", "dapo", "gspo", "gmpo", "cispo", "sapo")):
        variance = sum((r - mean) ** 2 for r in mine) / max(1, len(mine) - 1)
        advantage /= math.sqrt(variance) + 1e-6
    if row == "rloo":
        return reward - (sum(mine) - reward) / (len(mine) - 1) if len(mine) > 1 else 0.0
    if row == "asymre":
        advantage = reward - (mean + float(options.get("baseline_shift", -0.1)))
    if row == "min_opmd" and options.get("soft_baseline"):
        tau = float(options.get("tau", 1.0))
        advantage = reward - tau * (math.log(sum(math.exp(r / tau) for r in mine)) - math.log(len(mine)))
    return advantage


def naive_weights(row: str, options: Options, b: Batch, credit: Mapping[int, float]) -> list[float]:
    """Return how much each sample counts."""
    lengths, places = shape(b)
    if row not in ("red_weight", "red_adaptive"):
        return [1.0] * len(lengths)
    credits = [credit[p[0]] for p in places]
    if row == "red_weight":
        return [math.exp(a / float(options.get("temperature", 1.0))) for a in credits]

    def over_tokens(temperature: float) -> float:
        return sum(n * a * math.exp(min(20.0, a / temperature)) for n, a in zip(lengths, credits, strict=True))

    if sum(n * a for n, a in zip(lengths, credits, strict=True)) >= 0:
        return [1.0] * len(lengths)
    cold, hot = float(options.get("temperature_min", 0.8)), 1e15  # a sum just below 0 asks for more than 1e9
    if over_tokens(cold) < 0:
        hot = cold
    for _ in range(200):
        middle = math.sqrt(cold * hot)
        cold, hot = (cold, middle) if over_tokens(middle) < 0 else (middle, hot)
    return [math.exp(min(20.0, a / cold)) for a in credits]


def naive_tokens(
    row: str, options: Options, credit: Sequence[float], logp: Sequence[Tensor], change: Sequence[Tensor]
) -> list[Tensor]:
    """Return the loss of each token of one sample: log-probabilities and log-ratios in, scalars out."""

    def option(name: str, default: float) -> float:
        return float(options.get(name, default))

    def least(x: Tensor, y: Tensor) -> Tensor:
        # Where both agree both carry the same gradient or the bound is met exactly, which random numbers do not do.
        return x if float(x.detach()) <= float(y.detach()) else y

    def within(x: Tensor, low: float, high: float) -> Tensor:
        return x if low <= float(x.detach()) <= high else x.new_tensor(low if float(x.detach()) < low else high)

    n, a = len(logp), credit[0]
    rho = [x.exp() for x in change]
    if row == "sft":
        return [-x for x in logp]
    if row in ("grpo", "dr_grpo", "dapo", "ppo", "reinforce_pp", "reinforce_pp_baseline"):
        low, high = 1 - option("clip_low", 0.2), 1 + option("clip_high", 0.28 if row == "dapo" else 0.2)
        return [-least(r * at, within(r, low, high) * at) for r, at in zip(rho, credit, strict=True)]
    if row == "distill":
        return [-r * at for r, at in zip(rho, credit, strict=True)]
    if row == "gspo":
        s = (sum(change[1:], change[0]) / n).exp()
        return [-least(s * a, within(s, 1 - option("clip_low", 3e-4), 1 + option("clip_high", 4e-4)) * a)] * n
    if row == "gmpo":
        low, high = math.exp(-option("log_clip_low", 0.4)), math.exp(option("log_clip_high", 0.4))
        product = torch.ones((), dtype=torch.float64)
        for r in rho:
            product = product * least(r * a, within(r, low, high) * a).abs()
        return [-math.copysign(1, a) * product ** (1 / n)] * n if a else [0 * x for x in logp]
    if row == "cispo":
        return [
            -within(r, option("cap_low", 0), option("cap_high", 1.28)).detach() * a * x
            for r, x in zip(rho, logp, strict=True)
        ]
    if row == "sapo":
        tau = option("gate_positive", 1.0) if a > 0 else option("gate_negative", 1.05)
        return [-4 / tau * a / (1 + (tau * (1 - r)).exp()) for r in rho]
    if row.startswith("rec_") or row == "red_adaptive":
        low, high = 1 - option("clip_low", 0.2), 1 + option("clip_high", 0.2)
        values = []
        for r, x in zip((float(r.detach()) for r in rho), logp, strict=True):
            inside = low <= r <= high
            if row in ("rec_one_side", "red_adaptive"):
                inside = (a >= 0 and r <= high) or (a <= 0 and r >= low)
            if row == "rec_ring":
                near, far = 1 - option("outer_low", 0.6), 1 + option("outer_high", 2.0)
                inside = inside or (a >= 0 and r <= near) or (a <= 0 and r >= far)
            values.append(-(r if options.get("importance") else 1.0) * a * inside * x)
        return values
    if row == "topr":
        whole = math.prod(float(r.detach()) for r in rho)
        each = [whole] * n if options.get("sequence", True) else [float(r.detach()) for r in rho]
        return [-(1.0 if a > 0 else min(1.0, w)) * a * x for w, x in zip(each, logp, strict=True)]
    if row == "opmd_kimi":
        return [-a * x + option("penalty", 0.1) * c**2 for x, c in zip(logp, change, strict=True)]
    if row == "opmd_pairwise":
        tau = option("tau", 1.0)
        drift = sum(x - x.detach() for x in logp)
        return [(a - tau * drift) ** 2 / max(1, tau) / n] * n
    if row == "min_opmd":
        return [-a * x / (1 + option("tau", 1.0)) for x in logp]
    if row == "k1_5":
        return [-a * x + option("tau", 0.1) / 2 * sum(change) ** 2 / n for x in logp]
    if row == "k2_5":
        low, high = math.exp(-option("log_clip_low", 0.2)), math.exp(option("log_clip_high", 0.2))
        return [-within(r, low, high) * a + option("tau", 0.1) * c**2 for r, c in zip(rho, change, strict=True)]
    return [-a * x for x in logp]
