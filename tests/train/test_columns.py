"""Teachers, critics, corrections and iterations in the trainer: each against plain torch, or against what must hold."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import group, random_groups, rollout, tiny_policy, turn
from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm, Critic
from ratchet.algorithms.losses import reinforce
from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.core.batch import Batch
from ratchet.core.rollout import Group
from ratchet.policy.policy import Policy
from ratchet.train.divergence import estimate
from ratchet.train.experience import flatten
from ratchet.train.staleness import staleness_shares
from ratchet.train.trainer import Trainer


def trainer(policy: Policy, algorithm: Algorithm, method: dict[str, object] | None = None, **more: object) -> Trainer:
    settings = TrainSection(**{"grad_clip": 1e9, **more.pop("train", {})})  # type: ignore[arg-type,dict-item]
    return Trainer(policy, algorithm, AlgorithmSection(**{"lr": 1e-3, **(method or {})}), settings, seed=0, **more)


def gradient(made: Trainer, groups: list[Group], step: int = 0) -> Tensor:
    """Return the whole gradient of a one-update step as one vector."""
    seen = [torch.zeros_like(p) for p in made.policy.decoder.parameters()]
    hooks = [
        p.register_post_accumulate_grad_hook(lambda p, i=i: seen.__setitem__(i, p.grad.clone()))
        for i, p in enumerate(made.policy.decoder.parameters())
    ]
    made.step(groups, step)
    for hook in hooks:
        hook.remove()
    return torch.cat([x.flatten() for x in seen])


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


@pytest.mark.parametrize("ratio", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_a_correction_multiplies_the_coefficients_by_the_bounded_ratio_to_the_sampler(ratio: str, mode: str) -> None:
    groups, policy = random_groups(3, groups=3, samples=4), tiny_policy()
    samples = flatten(groups)
    plain = trainer(policy, build_algorithm("reinforce", {}))
    ours, theirs = plain.logprobs(groups)
    number = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor([s.num_trained for s in samples]))
    weights = []
    for i in range(len(samples)):
        d = (ours - theirs)[number == i]
        total = d if ratio == "token" else d.sum().expand(len(d)) / (len(d) if ratio == "geometric" else 1)
        weights.append(total.exp())
    w = torch.cat(weights)
    # Between two weights, never on one: there rounding, which differs between CPUs, would decide.
    between = (w.unique()[1:] + w.unique()[:-1]) / 2
    low, high = (
        float(between.quantile(0.3, interpolation="nearest")),
        float(between.quantile(0.7, interpolation="nearest")),
    )
    low, high = min(low, 1.0), max(high, 1.0)
    expected = w.clamp(max=high) if mode == "truncate" else torch.where((w >= low) & (w <= high), w, 0.0)

    def weighted(logp: Tensor, batch: Batch, advantage: Tensor):
        loss = reinforce(logp, batch, advantage)
        starts = {tuple(s.tokens.tolist()): i for i, s in enumerate(samples)}
        assert len(starts) == len(samples)
        # The batch of a pass holds some samples; tell them by their behaviour log-probabilities.
        at = [int((theirs - x).abs().argmin()) for x in batch.logp_behaviour]
        return replace(loss, value=loss.value * expected[at])

    by_hand = trainer(tiny_policy(), replace(build_algorithm("reinforce", {}), loss=weighted))
    settings = {"correction": ratio, "correction_mode": mode, "correction_high": high}
    if mode == "mask":
        settings["correction_low"] = low
    corrected = trainer(policy, build_algorithm("reinforce", {}), settings)
    assert close(gradient(corrected, groups), gradient(by_hand, groups))


def test_with_a_correction_the_rows_own_ratio_starts_at_one() -> None:
    """GRPO over a stale batch clips; with a correction its ratio compares with the start of the step."""
    groups = random_groups(3, groups=3, samples=4)
    stale = trainer(tiny_policy(), build_algorithm("grpo", {})).step(groups, 0).metrics
    corrected = trainer(tiny_policy(), build_algorithm("grpo", {}), {"correction": "token"}).step(groups, 0).metrics
    assert stale["clip/frac"] > 0
    assert corrected["clip/frac"] == 0
    assert corrected["kl/old"] == stale["kl/old"] > 0, "still measured to the sampler"
    assert 0 < corrected["correction/ess_frac"] <= 1
    assert corrected["correction/weight/mean"] > 0


def test_the_divergence_to_the_sampler_has_its_own_coefficient() -> None:
    groups = random_groups(3, groups=3, samples=4)
    base = build_algorithm("reinforce", {})
    without = gradient(trainer(tiny_policy(), base), groups)
    for kind in ("k1", "k2", "k3"):
        penalised = replace(
            base,
            loss=lambda logp, batch, a, kind=kind: replace(
                reinforce(logp, batch, a),
                value=reinforce(logp, batch, a).value + 0.3 * estimate(kind, logp - batch.logp_behaviour),
            ),
            silent_at_zero=False,
        )
        by_hand = gradient(trainer(tiny_policy(), penalised), groups)
        ours = gradient(trainer(tiny_policy(), base, {"sampler_kl_coef": 0.3, "sampler_kl": kind}), groups)
        assert close(ours, by_hand)
        assert not close(ours, without)


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_estimates_of_the_divergence_to_the_reference_agree_with_their_formulas(kind: str) -> None:
    reference = tiny_policy(seed=5)
    policy, groups = tiny_policy(), random_groups(3, groups=2, samples=3)
    made = trainer(policy, build_algorithm("grpo", {}), {"kl": kind}, reference=reference.decoder)
    ours, _ = made.logprobs(groups)
    theirs, _ = trainer(reference, build_algorithm("grpo", {})).logprobs(groups)
    d = theirs - ours
    expected = (d**2 / 2 if kind == "k2" else d.exp() - 1 - d).mean()
    assert made.step(groups, 0).metrics["kl/ref"] == pytest.approx(float(expected), rel=1e-4)


def test_a_teachers_log_probabilities_reach_the_algorithm() -> None:
    policy, teacher, groups = tiny_policy(), tiny_policy(seed=9), random_groups(3, groups=2, samples=3)
    kept = np.concatenate([s.log_kept[s.trained] for s in flatten(groups)])
    expected = trainer(teacher, build_algorithm("reinforce", {})).logprobs(groups)[0] + torch.from_numpy(kept)
    seen = []

    def credit(batch: Batch) -> Tensor:
        assert batch.logp_teacher is not None
        seen.append(batch.logp_teacher)
        return batch.logp_teacher - batch.logp_behaviour

    row = replace(build_algorithm("reinforce", {}), advantage=credit, needs=frozenset({"teacher"}))
    trainer(policy, row, teacher=teacher.decoder, train={"micro_batch_tokens": 12}).step(groups, 0)
    assert torch.allclose(seen[0], expected, atol=1e-6)


def taught(lr: float = 1e-2) -> Algorithm:
    """REINFORCE against a critic that is told the reward at every token."""
    critic = Critic(
        returns=lambda batch: batch.per_token(batch.reward),
        loss=lambda value, batch, returns: (value - returns).square() / 2,
        lr=lr,
    )

    def credit(batch: Batch) -> Tensor:
        assert batch.value is not None
        return batch.per_token(batch.reward) - batch.value

    return replace(build_algorithm("reinforce", {}), advantage=credit, critic=critic, silent_at_zero=False)


def test_a_critic_says_zero_at_first_and_learns_what_the_rewards_are() -> None:
    groups = random_groups(3, groups=3, samples=4)
    made = trainer(tiny_policy(), taught(), {"lr": 1e-9})
    reports = [made.step(groups, k).metrics for k in range(60)]
    mean = np.mean([s.reward for s in flatten(groups) for _ in range(s.num_trained)])
    assert reports[0]["critic/value/mean"] == 0
    assert reports[-1]["critic/value/mean"] == pytest.approx(mean, abs=0.1)
    assert reports[-1]["critic/loss"] < 0.3 * reports[0]["critic/loss"]
    assert reports[0]["critic/explained_variance"] == 0 < reports[-1]["critic/explained_variance"]


def test_the_first_step_with_a_critic_is_the_one_without_baseline() -> None:
    groups = random_groups(3, groups=3, samples=4)
    raw = replace(build_algorithm("reinforce", {}), advantage=lambda batch: batch.reward)
    assert close(gradient(trainer(tiny_policy(), taught()), groups), gradient(trainer(tiny_policy(), raw), groups))


def test_cutting_into_passes_does_not_move_the_critic() -> None:
    groups = random_groups(3, groups=3, samples=4)
    whole, cut = (
        trainer(tiny_policy(), taught(), {"lr": 1e-9}, train={"micro_batch_tokens": tokens}) for tokens in (10_000, 12)
    )
    for k in range(3):
        a, b = whole.step(groups, k).metrics, cut.step(groups, k).metrics
        assert a["critic/loss"] == pytest.approx(b["critic/loss"], rel=1e-4)
        assert a["critic/value/mean"] == pytest.approx(b["critic/value/mean"], rel=1e-3, abs=1e-6)


def test_a_restored_trainer_goes_on_as_the_one_it_came_from() -> None:
    groups = random_groups(3, groups=3, samples=4)
    row = replace(taught(), reset_optimiser=True)
    first = trainer(tiny_policy(), row)
    first.step(groups, 0)
    second = trainer(copy.deepcopy(first.policy), row)
    second.restore({name: value.clone() for name, value in first.state().items()})
    assert first.step(groups, 1).metrics["critic/loss"] == second.step(groups, 1).metrics["critic/loss"]
    assert first.policy.fingerprint() == second.policy.fingerprint()


def of_version(groups: list[Group], version: int) -> list[Group]:
    def stamped(g: Group) -> Group:
        return replace(
            g,
            rollouts=tuple(
                replace(
                    r,
                    trajectories=tuple(
                        replace(t, turns=tuple(replace(u, version=version, last_version=version) for u in t.turns))
                        for t in r.trajectories
                    ),
                )
                for r in g.rollouts
            ),
        )

    return [stamped(g) for g in groups]


def test_moments_are_forgotten_when_and_only_when_the_sampler_changes() -> None:
    groups = random_groups(3, groups=2, samples=3)
    made = trainer(tiny_policy(), replace(build_algorithm("reinforce", {}), reset_optimiser=True))
    steps = []
    for k, version in enumerate([0, 0, 0, 3, 3]):
        made.step(of_version(groups, version), k)
        steps.append(max(int(e["step"]) for e in made.optimiser.state.values()))
    assert steps == [1, 2, 3, 1, 2]


def test_a_group_without_its_greedy_answer_is_left_out_and_counted() -> None:
    row = replace(
        build_algorithm("reinforce", {}),
        advantage=lambda batch: batch.reward - batch.greedy_reward,  # type: ignore[operator]
        needs=frozenset({"greedy"}),
        min_group=1,
    )
    answered = group([rollout(1.0, turn([7], [8])), rollout(0.0, turn([7], [9]))])
    certain = replace(answered, greedy=rollout(0.25, turn([7], [8])))
    failed = replace(answered, greedy=rollout(None, turn([7], [8])), index=1)
    report = trainer(tiny_policy(), row).step([certain, failed, replace(answered, index=2)], 0)
    assert report.ledger["ledger/trained"] == 2
    assert report.ledger["ledger/group_too_small"] == 4
    assert report.metrics["signal/token_advantage"] == pytest.approx((0.75 - 0.25) / 2)


def test_shares_of_staleness_add_up_to_one() -> None:
    shares = staleness_shares([0, 0, 1, 2, 3, 7, 19, 31, 32, 100])
    assert shares == {
        "stale/share/0": 0.2,
        "stale/share/1": 0.1,
        "stale/share/2-3": 0.2,
        "stale/share/4-7": 0.1,
        "stale/share/8-15": 0.0,
        "stale/share/16-31": 0.2,
        "stale/share/32+": 0.2,
    }
    assert staleness_shares([]) == {}
