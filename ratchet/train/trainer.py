"""The trainer: a batch in, the next weights and a report out.

One step: flatten the groups into samples; deal them into updates; for each update derive keep, advantage, weight and
the coefficient of every token once; run forward and backward over packed micro-batches; clip; step the optimiser.
It never samples, never writes a file, and knows no environment.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm
from ratchet.config.curve import at
from ratchet.config.schema import AlgorithmSection, TrainSection
from ratchet.core.batch import Batch
from ratchet.core.errors import NumericsError
from ratchet.core.rollout import Group, Rollout, Status
from ratchet.core.seeds import stream
from ratchet.kernels.reference import TokenStats
from ratchet.policy.decoder import Decoder
from ratchet.policy.policy import Policy
from ratchet.train.experience import Sample, batch_of, flatten
from ratchet.train.packing import Packed, cut, packed


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a training step did."""

    metrics: Mapping[str, float]
    ledger: Mapping[str, int]
    """``ledger/*`` rollouts, ``ledger_tokens/*`` tokens, ``ledger_prompts/*`` prompts: how many were trained on, and
    how many were left out under which reason."""


@dataclass(slots=True)
class Tally:
    """Sums over the tokens of a step, from which the reported means are made."""

    tokens: int = 0
    inputs: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"forward": 0.0, "backward": 0.0, "optimiser": 0.0})

    def add(self, name: str, values: Tensor) -> None:
        """Add the sum of a (N,) column."""
        self.sums[name] = self.sums.get(name, 0.0) + float(values.detach().double().sum())

    def peak(self, name: str, values: Tensor) -> None:
        """Remember the largest value of a column."""
        if len(values):
            self.largest[name] = max(self.largest.get(name, 0.0), float(values.detach().max()))

    def mean(self, name: str) -> float:
        return self.sums.get(name, 0.0) / max(1, self.tokens)


class Trainer:
    """Owns the optimiser and the policy's weights while a run lasts."""

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        method: AlgorithmSection,
        config: TrainSection,
        *,
        seed: int,
        temperature: float = 1.0,
        reference: Decoder | None = None,
    ) -> None:
        """`reference` is the frozen starting policy the KL is measured to; None measures none."""
        self.policy, self.algorithm, self.method, self.config = policy, algorithm, method, config
        self._seed, self._temperature, self._reference = seed, temperature, reference
        self.optimiser = torch.optim.AdamW(
            policy.decoder.parameters(), lr=0.0, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )

    def step(self, groups: Sequence[Group], step: int) -> StepReport:
        """Train on the groups of one step and report. Raises `NumericsError` if a number stops being finite."""
        usable = [g for g in groups if len(g.usable) >= self.algorithm.min_group]
        samples = flatten(usable)
        tally, norms, losses = Tally(), [], []
        silent = 0
        lr = at(self.method.lr, step)
        for part in self._deal(samples, step):
            batch = batch_of([samples[i] for i in part], self.policy.device)
            loss, quiet = self._accumulate([samples[i] for i in part], batch, step, tally)
            losses.append(loss)
            silent += quiet
            norms.append(self._update(lr, step, tally))
        return StepReport(self._metrics(samples, tally, norms, losses, silent, lr, step), _ledger(groups, usable))

    @torch.no_grad()
    def logprobs(self, groups: Sequence[Group], *, temperature: float | None = None) -> tuple[Tensor, Tensor]:
        """Return the trainer's and the recorded log-probability of every trained token: (N,), (N,)."""
        samples = flatten(groups)
        ours, theirs = [], []
        for chosen in cut(samples, range(len(samples)), self.config.micro_batch_tokens):
            one = packed(samples, chosen, self.policy.device)
            ours.append(self._stats(one, None, temperature).logprob - one.log_kept)
            theirs.append(batch_of([samples[i] for i in chosen], self.policy.device).logp_behaviour)
        if not samples:  # every attempt failed
            return torch.zeros(0), torch.zeros(0)
        return torch.cat(ours), torch.cat(theirs)

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser's tensors by name, for a checkpoint."""
        names = [n for n, _ in self.policy.decoder.named_parameters()]
        entries = self.optimiser.state_dict()["state"]
        return {f"{names[i]}/{key}": value for i, entry in entries.items() for key, value in entry.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        names = [n for n, _ in self.policy.decoder.named_parameters()]
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            parameter, _, key = name.rpartition("/")
            entries.setdefault(names.index(parameter), {})[key] = value
        self.optimiser.load_state_dict({"state": entries, "param_groups": self.optimiser.state_dict()["param_groups"]})

    def _deal(self, samples: Sequence[Sample], step: int) -> list[list[int]]:
        """Deal whole groups into the step's updates, in an order drawn for this step."""
        groups = list(dict.fromkeys(s.group for s in samples))
        updates = min(self.config.updates_per_batch, len(groups))
        if updates > 1:
            stream(self._seed, "deal", step).shuffle(groups)
        part_of = {g: i % updates for i, g in enumerate(groups)}
        return [[i for i, s in enumerate(samples) if part_of[s.group] == u] for u in range(updates)]

    def _accumulate(self, samples: Sequence[Sample], batch: Batch, step: int, tally: Tally) -> tuple[float, int]:
        """Leave the gradient of one update in the weights; return its loss and its number of silent groups."""
        algorithm = self.algorithm
        kept, asked = algorithm.keep(batch).nonzero()[:, 0], batch.num_groups
        batch = batch.select(kept)
        credit = algorithm.advantage(batch)
        coef = algorithm.reduce(batch, algorithm.weight(batch, credit))
        plain = algorithm.reduce(batch, torch.ones_like(batch.reward))
        credit = batch.per_token(credit)
        penalties = at(self.method.kl_coef, step), at(self.method.entropy_coef, step)
        heard = batch.per_sample((credit * coef).abs()) > 0
        silent_groups = asked - len(batch.group[heard].unique())
        if not algorithm.silent_at_zero or any(penalties):
            heard = torch.ones_like(heard)
        samples = [samples[i] for i in kept.tolist()]
        total = 0.0
        # Samples without a gradient are only measured: no graph, no backward pass.
        for chosen, learns in ((heard.nonzero()[:, 0], True), ((~heard).nonzero()[:, 0], False)):
            for members in cut(samples, chosen.tolist(), self.config.micro_batch_tokens):
                one = packed(samples, members, self.policy.device)
                at_tokens = batch.tokens_of(torch.tensor(members, device=self.policy.device))
                part = batch.select(torch.tensor(members, device=self.policy.device))
                with torch.set_grad_enabled(learns):
                    started = time.perf_counter()
                    loss = self._loss(one, part, credit[at_tokens], coef[at_tokens], plain[at_tokens], penalties, tally)
                    tally.seconds["forward"] += time.perf_counter() - started
                total += loss.item()
                if learns:
                    started = time.perf_counter()
                    loss.backward()
                    tally.seconds["backward"] += time.perf_counter() - started
        return total, silent_groups

    def _loss(
        self,
        one: Packed,
        batch: Batch,
        credit: Tensor,
        coef: Tensor,
        plain: Tensor,
        penalties: tuple[float, float],
        tally: Tally,
    ) -> Tensor:
        """Return the loss of one forward pass: ``sum(coef * token_loss)`` and the penalty terms."""
        stats = self._stats(one, self._reference, None)
        logp = stats.logprob - one.log_kept
        loss = self.algorithm.loss(logp, batch, credit)
        kl_coef, entropy_coef = penalties
        total = (coef * loss.value).sum()
        if kl_coef:
            total = total + kl_coef * (plain * stats.kl).sum()
        if entropy_coef:
            total = total - entropy_coef * (plain * stats.entropy).sum()
        self._measure(one, batch, logp, credit, stats, tally)
        tally.add("clip_low", loss.clipped_low)
        tally.add("clip_high", loss.clipped_high)
        return total

    def _stats(self, one: Packed, reference: Decoder | None, temperature: float | None) -> TokenStats:
        """Run one forward pass; with a reference decoder, measure the KL to it."""
        ops, head = self.policy.decoder.ops, self.policy.decoder.head
        measure = partial(
            ops.token_stats,
            target=one.target,
            temperature=self._temperature if temperature is None else temperature,
            max_logits=self.config.max_logits,
            product=ops.linear,
        )
        hidden = self.policy.decoder(one.tokens, one.layout)[one.predictor]
        if reference is None:
            return measure(hidden, head)
        with torch.no_grad():
            other = reference(one.tokens, one.layout)[one.predictor]
        if self.method.kl == "exact":
            return measure(hidden, head, reference=(other, reference.head))
        stats = measure(hidden, head)
        with torch.no_grad():
            difference = measure(other, reference.head).logprob - stats.logprob.detach()
        # k3 (Schulman 2020, Approximating KL divergence): exp(d) - d - 1 with d = log p_ref - log p.
        d = difference + stats.logprob.detach() - stats.logprob
        return TokenStats(stats.logprob, stats.entropy, torch.expm1(d) - d)

    @torch.no_grad()
    def _measure(
        self, one: Packed, batch: Batch, logp: Tensor, credit: Tensor, stats: TokenStats, tally: Tally
    ) -> None:
        tally.tokens += len(logp)
        tally.inputs += len(one.tokens)
        tally.add("entropy", stats.entropy)
        tally.add("kl_ref", stats.kl)
        tally.add("logp", logp)
        tally.add("advantage", credit)
        if self.algorithm.sampled:
            difference = logp - batch.logp_behaviour
            tally.add("kl_old", torch.expm1(difference) - difference)  # k3, of the sampler relative to the policy
            tally.peak("logp_difference", difference.abs())

    def _update(self, lr: float, step: int, tally: Tally) -> float:
        """Clip, step, forget the gradient; return the gradient's norm before clipping."""
        started = time.perf_counter()
        parameters = list(self.policy.decoder.parameters())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.grad_clip))
        if norm != norm or norm == float("inf"):
            bad = [
                n
                for n, p in self.policy.decoder.named_parameters()
                if p.grad is not None and not p.grad.isfinite().all()
            ]
            raise NumericsError(
                f"Step {step}: the gradient of {bad[0] if bad else 'the whole model'} is not finite. The weights were "
                "not changed. Lower algorithm.lr, or look at this step's rollouts for extreme rewards or log-ratios."
            )
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        tally.seconds["optimiser"] += time.perf_counter() - started
        return norm

    def _metrics(
        self,
        samples: Sequence[Sample],
        tally: Tally,
        norms: Sequence[float],
        losses: Sequence[float],
        silent: int,
        lr: float,
        step: int,
    ) -> dict[str, float]:
        groups = len({s.group for s in samples})
        low, high = tally.mean("clip_low"), tally.mean("clip_high")
        metrics = {
            "loss/policy": sum(losses) / max(1, len(losses)),
            "opt/grad_norm": max(norms, default=0.0),
            "opt/lr": lr,
            "opt/updates": float(len(norms)),
            "entropy": tally.mean("entropy"),
            "signal/zero_groups_frac": silent / max(1, groups),
            "tokens/trained": float(tally.tokens),
            "tokens/forward": float(tally.inputs),
        }
        if self._reference is not None:
            metrics["kl/ref"] = tally.mean("kl_ref")
        if self.algorithm.sampled:
            stale = [step - s.version for s in samples]
            metrics |= {
                "kl/old": tally.mean("kl_old"),
                "clip/low": low,
                "clip/high": high,
                "clip/frac": low + high,
                "signal/token_advantage": tally.mean("advantage"),
                "stale/mean": sum(stale) / max(1, len(stale)),
                "stale/max": float(max(stale, default=0)),
            }
            if len(norms) == 1 and not any(stale):  # otherwise the difference is the policy's own drift
                metrics["sampler/logp_diff_max"] = tally.largest.get("logp_difference", 0.0)
                metrics["kl/sampler"] = tally.mean("kl_old")
        else:
            metrics["loss/token_nll"] = -tally.mean("logp")
        return metrics | {f"time/{name}": seconds for name, seconds in tally.seconds.items()}


def _ledger(groups: Sequence[Group], usable: Sequence[Group]) -> dict[str, int]:
    """Say where every prompt, rollout and sampled token of the step went; each kind adds up to all of it."""
    entries: Counter[str] = Counter()
    trained = {id(g) for g in usable}
    for group in groups:
        fates = Counter(_fate(r, id(group) in trained) for r in group.rollouts)
        entries.update({f"ledger/{fate}": count for fate, count in fates.items()})
        for rollout in group.rollouts:
            entries[f"ledger_tokens/{_fate(rollout, id(group) in trained)}"] += rollout.output_tokens
        entries[f"ledger_prompts/{'trained' if fates['trained'] else max(fates, key=lambda f: fates[f])}"] += 1
    return dict(entries)


def _fate(rollout: Rollout, in_usable_group: bool) -> str:
    if rollout.status is not Status.OK:
        return rollout.status.value
    if not in_usable_group:
        return "group_too_small"
    # A rollout scored without asking the policy leaves nothing to train on.
    return "trained" if rollout.output_tokens else "no_tokens"
