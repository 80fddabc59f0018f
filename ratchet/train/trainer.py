"""The trainer: a batch in, the next weights and a report out.

One step: flatten the groups into samples; fill the columns the algorithm needs; deal the samples into updates; for
each update derive keep, advantage, weight and the coefficient of every token once; run forward and backward over
packed micro-batches; clip; step the optimiser. It never samples, never writes a file, and knows no environment.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ratchet.algorithms.algorithm import Algorithm
from ratchet.config.curve import at
from ratchet.config.learning import AlgorithmSection, RewardSection, TrainSection
from ratchet.core.errors import NumericsError
from ratchet.core.rollout import Differences, Group, Positive
from ratchet.core.seeds import stream
from ratchet.kernels.reference import TokenStats
from ratchet.policy.policy import FrozenNetwork, Policy
from ratchet.train.annotate import Annotated, annotated, correction_metrics
from ratchet.train.credit import credit_of, kept_samples, shown_again
from ratchet.train.critic import ValueModel
from ratchet.train.derived import Derived, Penalties
from ratchet.train.divergence import estimate
from ratchet.train.experience import Sample, batch_of, by_rollout, flatten, longest_samples
from ratchet.train.ledger import ledger, usable
from ratchet.train.optimiser import make_optimiser
from ratchet.train.packing import Packed
from ratchet.train.passes import Passes
from ratchet.train.shaping import Shaper
from ratchet.train.sharding import as_part, copy_whole, frozen_network_of, let_go, network_of
from ratchet.train.staleness import staleness_shares
from ratchet.train.tally import Tally, joined
from ratchet.train.team import ALONE, Team, clip


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a training step did."""

    metrics: Mapping[str, float]
    flops: int
    """Floating-point operations of the step: every forward and backward pass that was run, of frozen models too."""
    ledger: Mapping[str, int]
    """``ledger/*`` rollouts, ``ledger_tokens/*`` tokens, ``ledger_prompts/*`` prompts: how many were trained on, and
    how many were left out under which reason."""
    differences: Differences | None = None
    """Of each token, how far the trainer was from the sampler in the pass that trained on it; None if that was not
    asked for, or if no sampler gave log-probabilities. Where the weights are newer than the sampler's, it holds their
    own way too."""


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
        reference: FrozenNetwork | None = None,
        teacher: FrozenNetwork | None = None,
        reward: RewardSection | None = None,
        foreign: bool = False,
        team: Team = ALONE,
        by_token: bool = False,
    ) -> None:
        """`reference` is the frozen starting policy the KL is measured to; None measures none. `reward` says what
        attempts are worth; None, their score.

        `teacher` is the frozen policy of algorithms that need one. `foreign` says that another run's versions stand
        in the samples, so that they cannot be compared with this run's steps. `team` are the ranks that train
        together; each has a trainer of its own, and all are called alike but for `logprobs`, which rank 0 does alone.
        `by_token` has reports say of each token how far the trainer was from its sampler.
        """
        self.policy, self.algorithm, self.method, self.config = policy, algorithm, method, config
        self._seed, self._foreign, self.team = seed, foreign, team
        self._reference = frozen_network_of(team, reference, policy.device)
        self._teacher = frozen_network_of(team, teacher, policy.device)
        self._shaper = Shaper(reward or RewardSection())
        self._passes = Passes(policy.device, config.micro_batch_tokens, config.max_logits, temperature, team)
        self._alone = replace(self._passes, team=ALONE)
        self._by_token = by_token and algorithm.sampled
        self._critic = (
            ValueModel(algorithm.critic, policy.decoder, self._passes, betas=config.betas) if algorithm.critic else None
        )
        self._sampled_by = -1
        """Newest version seen among the samples: where it changes, an iteration of the published k1.5 begins."""
        policy.decoder.checkpointing = config.gradient_checkpointing
        self._network = network_of(team, policy.decoder, policy.device)
        self._trained = {n: p for n, p in self._network.named_parameters() if p.requires_grad}
        self.optimiser = make_optimiser(self._trained.values(), config)

    def step(self, groups: Sequence[Group], step: int, again: Sequence[Positive] = ()) -> StepReport:
        """Train on the groups of one step, and on the answers shown `again`, and report.

        Raises `NumericsError` if a number stops being finite.
        """
        used = [g for g in groups if self.takes(g)]
        shaped = self._shaper.shaped(used, step)
        shown = [self._shown(one, step) for one in again]
        samples = [*flatten(shaped), *shown_again(shown, self.algorithm, first=len(used))]
        self._begin_iteration(samples)
        before = self._passes.work.flops
        tally, lr = Tally(), at(self.method.lr, step)
        whole = annotated(
            samples,
            batch_of(samples, self.policy.device),
            self._passes,
            self.algorithm,
            self.method,
            self._network,
            self._teacher,
            self._critic,
        )
        extra = correction_metrics(whole.correction)
        for part in self._deal(samples, step):
            chosen = [samples[i] for i in part]
            derived, kept = self._derive(whole, part)
            self._accumulate([chosen[i] for i in kept], derived, step, tally)
            self._update(lr, step, tally)
            if self._critic is not None:
                extra |= self._critic.learn(
                    chosen, whole.batch.select(_numbers(part, whole.sampled)), grad_clip=self.config.grad_clip
                )
        extra |= self._shaper.metrics(used, shaped, step)
        copy_whole(self._network, self.policy.decoder, rank=self.team.rank)
        every = self.team.gathered((tally, self._passes.work.flops - before))
        tally, flops = joined([one for one, _ in every], tally.seconds), sum(count for _, count in every)
        differences = by_rollout(used, samples, tally.differences) if self._by_token else None
        return StepReport(self._metrics(samples, tally, lr, step) | extra, flops, ledger(groups, used), differences)

    def rehearse(self, prompt: int, answer: int) -> None:
        """Run the largest pass there can be, forward and backward, and put memory where the optimiser's will be.

        Changes nothing. Raises what torch raises when memory runs out.
        """
        samples = longest_samples(prompt, answer, self.config.micro_batch_tokens)
        flops = self._passes.work.flops
        room: list[Tensor] = []
        try:
            for one in self._alone.over(samples, range(len(samples))):
                stats = self._stats(one)
                (stats.logprob + stats.kl + stats.entropy).sum().backward()
                break  # all are alike
            if not self.optimiser.state:
                each = 8 if self.config.optimiser == "adamw" else 2
                room = [
                    torch.empty(p.numel() * each, dtype=torch.uint8, device=p.device) for p in self._trained.values()
                ]
        finally:
            self.optimiser.zero_grad(set_to_none=True)
            self._passes.work.flops = flops
            room.clear()

    def _shown(self, one: Positive, step: int) -> Positive:
        """Return an answer that is shown again with the rewards of this step."""
        (group,) = self._shaper.shaped([one.group], step)
        return Positive(group, one.rollout)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return what is learned, by name, as it lies on this rank."""
        return dict(self._trained)

    def takes(self, group: Group) -> bool:
        """Return whether a group has what the algorithm compares: enough scored attempts, a greedy one if asked."""
        return usable(group, self.algorithm.min_group, greedy="greedy" in self.algorithm.needs)

    @torch.no_grad()
    def logprobs(self, groups: Sequence[Group], *, temperature: float | None = None) -> tuple[Tensor, Tensor]:
        """Return the trainer's and the recorded log-probability of every trained token: (N,), (N,)."""
        samples = flatten(groups)
        ours = self._alone.logprobs(self.policy.decoder, samples, temperature=temperature)
        return ours, batch_of(samples, self.policy.device).logp_behaviour

    def state(self) -> dict[str, Tensor]:
        """Return what training has gathered besides the weights, by name, for a checkpoint."""
        names = list(self._trained)
        entries = self.optimiser.state_dict()["state"]
        out = {
            f"optimiser/{names[i]}/{key}": torch.as_tensor(value)
            for i, entry in entries.items()
            for key, value in entry.items()
        }
        if self._critic is not None:
            out |= {f"critic/{name}": value for name, value in self._critic.state().items()}
        out |= {f"reward/{name}": value for name, value in self._shaper.state().items()}
        return out | {"sampled_by": torch.tensor([self._sampled_by])}

    def restore(self, state: Mapping[str, Tensor], *, moments: bool = True) -> None:
        """Continue from what `state` returned; without `moments` the optimiser begins anew."""
        names = list(self._trained)
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser/", state).items() if moments else ():
            parameter, _, key = name.rpartition("/")
            entries.setdefault(names.index(parameter), {})[key] = as_part(value, self._trained[parameter])
        self.optimiser.load_state_dict({"state": entries, "param_groups": self.optimiser.state_dict()["param_groups"]})
        if self._critic is not None:
            self._critic.restore(_under("critic/", state))
        self._shaper.restore(_under("reward/", state))
        self._sampled_by = int(state["sampled_by"])

    def _begin_iteration(self, samples: Sequence[Sample]) -> None:
        """Forget the moments where the algorithm asks for it and the samples come from new weights."""
        newest = max((s.version for s in samples), default=self._sampled_by)
        if self.algorithm.reset_optimiser and newest != self._sampled_by:
            self.optimiser.state.clear()
        self._sampled_by = newest

    def _deal(self, samples: Sequence[Sample], step: int) -> list[list[int]]:
        """Deal whole groups into the step's updates, in an order drawn for this step."""
        groups = list(dict.fromkeys(s.group for s in samples))
        updates = min(self.config.updates_per_batch, len(groups))
        if updates > 1:
            stream(self._seed, "deal", step).shuffle(groups)
        part_of = {g: i % updates for i, g in enumerate(groups)}
        return [[i for i, s in enumerate(samples) if part_of[s.group] == u] for u in range(updates)]

    def _derive(self, whole: Annotated, part: Sequence[int]) -> tuple[Derived, list[int]]:
        """Return what one update's facts come to, and which of its samples are kept."""
        algorithm = self.algorithm
        numbers = _numbers(part, whole.sampled)
        batch = whole.batch.select(numbers)
        kept = kept_samples(algorithm, batch)
        at_tokens = whole.batch.tokens_of(numbers[kept])
        batch = batch.select(kept)
        credit = credit_of(algorithm, batch)
        coef = algorithm.reduce(batch, algorithm.weight(batch, credit))
        if whole.correction is not None:
            coef = coef * whole.correction[at_tokens]
        plain = algorithm.reduce(batch, torch.ones_like(batch.reward))
        chosen = kept.tolist()
        which = tuple(part[i] for i in chosen)
        return Derived(batch, whole.sampled[at_tokens], batch.per_token(credit), coef, plain, which), chosen

    def _accumulate(self, samples: Sequence[Sample], derived: Derived, step: int, tally: Tally) -> None:
        """Leave the gradient of one update in the weights."""
        method = self.method
        penalties = Penalties(at(method.kl_coef, step), at(method.sampler_kl_coef, step), at(method.entropy_coef, step))
        batch = derived.batch
        heard = batch.per_sample((derived.credit * derived.coef).abs()) > 0
        fresh = heard if batch.given is None else heard & batch.given.isnan()
        tally.heard_groups += len(batch.group[fresh].unique())
        if not self.algorithm.silent_at_zero or penalties:
            heard = torch.ones_like(heard)
        total = 0.0
        # Samples without a gradient are only measured: no graph, no backward pass.
        for chosen, learns in ((heard.nonzero()[:, 0], True), ((~heard).nonzero()[:, 0], False)):
            for one in self._passes.over(samples, chosen.tolist()):
                with torch.set_grad_enabled(learns):
                    started = time.perf_counter()
                    loss = self._loss(one, derived.of(one), penalties, tally) * float(one.counts)
                    tally.seconds["forward"] += time.perf_counter() - started
                total += loss.item()
                if learns:
                    started = time.perf_counter()
                    loss.backward()
                    tally.seconds["backward"] += time.perf_counter() - started
        tally.losses.append(total)

    def _loss(self, one: Packed, part: Derived, penalties: Penalties, tally: Tally) -> Tensor:
        """Return the loss of one forward pass: ``sum(coef * token_loss)`` and the shared terms."""
        stats = self._stats(one)
        logp = stats.logprob - one.log_kept
        loss = self.algorithm.loss(logp, part.batch, part.credit)
        total = (part.coef * loss.value).sum()
        if penalties.kl:
            total = total + penalties.kl * (part.plain * stats.kl).sum()
        if penalties.sampler_kl:
            total = total + penalties.sampler_kl * (part.plain * self._sampler_kl(logp, part.sampled)).sum()
        if penalties.entropy:
            total = total - penalties.entropy * (part.plain * stats.entropy).sum()
        if one.counts:
            self._measure(one, part, logp, stats, tally)
            tally.add("clip_low", loss.clipped_low)
            tally.add("clip_high", loss.clipped_high)
        return total

    def _stats(self, one: Packed) -> TokenStats:
        """Run one forward pass, and measure the KL to the reference where there is one."""
        passes, policy, reference = self._passes, self._network, self._reference
        if reference is None:
            return passes.stats(policy, one)
        if self.method.kl == "exact":
            with torch.no_grad():
                hidden = passes.hidden(reference, one)
            return passes.stats(policy, one, reference=(hidden, reference.head))
        stats = passes.stats(policy, one)
        with torch.no_grad():
            other = passes.stats(reference, one).logprob
        return TokenStats(stats.logprob, stats.entropy, estimate(self.method.kl, other - stats.logprob))

    def _sampler_kl(self, logp: Tensor, sampled: Tensor) -> Tensor:
        """Estimate the divergence of the sampler from the policy at each of the sampler's tokens: (N,)."""
        return estimate(self.method.sampler_kl, logp - sampled)

    @torch.no_grad()
    def _measure(self, one: Packed, part: Derived, logp: Tensor, stats: TokenStats, tally: Tally) -> None:
        tally.tokens += len(logp)
        tally.inputs += len(one.tokens)
        tally.add("entropy", stats.entropy)
        tally.add("kl_ref", stats.kl)
        tally.add("logp", logp)
        tally.add("advantage", part.credit)
        if self.algorithm.sampled:
            tally.add("kl_old", self._sampler_kl(logp, part.sampled))
            difference = logp - part.sampled
            tally.peak("logp_difference", difference.abs())
            if self._by_token:
                tally.keep(part.numbers, part.batch.lengths.long().tolist(), difference)

    def _update(self, lr: float, step: int, tally: Tally) -> None:
        """Clip, step, forget the gradient. Without any gradient nothing moves and no update is counted."""
        started = time.perf_counter()
        parameters = list(self._trained.values())
        self.team.add_gradients(parameters)
        if all(p.grad is None for p in parameters):
            return
        norm = clip(parameters, self.config.grad_clip)
        if norm != norm or norm == float("inf"):
            bad = [n for n, p in self._trained.items() if p.grad is not None and not p.grad.isfinite().all()]
            raise NumericsError(
                f"Step {step}: the gradient of {bad[0] if bad else 'the whole model'} is not finite. The weights were "
                "not changed. Lower algorithm.lr, or look at this step's rollouts for extreme rewards or log-ratios."
            )
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        let_go(self._network)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        tally.norms.append(norm)
        tally.seconds["optimiser"] += time.perf_counter() - started

    def _metrics(self, samples: Sequence[Sample], tally: Tally, lr: float, step: int) -> dict[str, float]:
        groups = len({s.group for s in samples if s.given is None})
        low, high = tally.mean("clip_low"), tally.mean("clip_high")
        metrics = {
            "opt/lr": lr,
            "opt/updates": float(len(tally.norms)),
            "tokens/trained": float(tally.tokens),
            "tokens/forward": float(tally.inputs),
        }
        if not tally.tokens:  # nothing to train on: what was not measured is not reported as 0
            return metrics | tally.times()
        metrics |= {
            "loss/policy": sum(tally.losses) / max(1, len(tally.losses)),
            "opt/grad_norm": max(tally.norms, default=0.0),
            "entropy": tally.mean("entropy"),
            "signal/zero_groups_frac": (groups - tally.heard_groups) / max(1, groups),
        }
        if self._reference is not None:
            metrics["kl/ref"] = tally.mean("kl_ref")
        if not self.algorithm.sampled:
            metrics["loss/token_nll"] = -tally.mean("logp")
            return metrics | tally.times()
        metrics |= {
            "kl/old": tally.mean("kl_old"),
            "clip/low": low,
            "clip/high": high,
            "clip/frac": low + high,
            "signal/token_advantage": tally.mean("advantage"),
        }
        stale = [step - s.version for s in samples]
        if not self._foreign:
            metrics |= {
                "stale/mean": sum(stale) / max(1, len(stale)),
                "stale/max": float(max(stale, default=0)),
                **staleness_shares(stale),
            }
        if len(tally.losses) == 1 and not self._foreign and not any(stale):  # otherwise it is the policy's own drift
            metrics["sampler/logp_diff_max"] = tally.largest.get("logp_difference", 0.0)
            metrics["sampler/logp_diff_mean"] = tally.mean("logp_difference")
            metrics["kl/sampler"] = tally.mean("kl_old")
        return metrics | tally.times()


def _numbers(part: Sequence[int], like: Tensor) -> Tensor:
    """Return sample numbers as a tensor on the device of `like`."""
    return torch.tensor(list(part), dtype=torch.int64, device=like.device)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
