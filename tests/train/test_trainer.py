"""The trainer's gradient against autograd on one sequence at a time, and what must not change it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from builders import group, random_groups, rollout, tiny_policy, turn
from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.core.batch import Batch
from ratchet.core.errors import NumericsError
from ratchet.core.rollout import Group
from ratchet.kernels.layout import layout_of
from ratchet.kernels.reference import OPS
from ratchet.policy.decoder import Decoder
from ratchet.policy.policy import Policy
from ratchet.train.trainer import StepReport, Trainer

TEMPERATURE = 0.8


def trainer(
    policy: Policy,
    algorithm: Algorithm | None = None,
    *,
    reference: Decoder | None = None,
    method: Mapping[str, object] | None = None,
    **config: object,
) -> Trainer:
    return Trainer(
        policy,
        algorithm or build_algorithm("grpo", {}),
        AlgorithmSection(**{"lr": 1e-3, **(method or {})}),
        TrainSection(**config),
        seed=0,
        temperature=TEMPERATURE,
        reference=reference,
    )


def gradient_of_a_step(made: Trainer, groups: Sequence[Group], step: int = 0) -> tuple[dict[str, Tensor], StepReport]:
    """Return the gradient the optimiser got (before clipping) and the step's report."""
    seen: dict[str, Tensor] = {n: torch.zeros_like(p) for n, p in made.policy.decoder.named_parameters()}
    hooks = [
        p.register_post_accumulate_grad_hook(lambda p, name=n: seen.__setitem__(name, p.grad.clone()))
        for n, p in made.policy.decoder.named_parameters()
    ]
    report = made.step(groups, step)
    for hook in hooks:
        hook.remove()
    return seen, report


def log_probabilities(decoder: Decoder, prompt: Sequence[int], output: Sequence[int]) -> Tensor:
    """Return the (T, V) log-probabilities of one sequence, by plain torch alone."""
    tokens = torch.tensor([*prompt, *output[:-1]])
    hidden = decoder(tokens, layout_of([len(tokens)], [-1], tokens.device))[len(prompt) - 1 :]
    return (hidden @ decoder.head.T / TEMPERATURE).log_softmax(-1)


def naive_gradient(
    policy: Policy,
    groups: Sequence[Group],
    *,
    kl: str = "",
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
    reference: Decoder | None = None,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """GRPO from its formula: for each group, each sample, each token, in this order."""
    decoder = Decoder(policy.shape, OPS)
    decoder.load_state_dict(policy.decoder.state_dict())
    rollouts = [r for g in groups for r in g.usable]
    loss, kls, entropies = torch.zeros(()), [], []
    for g in groups:
        rewards = torch.tensor([r.score.value for r in g.usable], dtype=torch.float64)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        for r, advantage in zip(g.usable, advantages.tolist(), strict=True):
            (one,) = r.trajectories[0].turns
            whole = log_probabilities(decoder, one.prompt.tolist(), one.output.tolist())
            picked = whole[torch.arange(len(one.output)), torch.from_numpy(one.output).long()]
            logp = picked - torch.from_numpy(one.log_kept)
            ratio = (logp - torch.from_numpy(one.logprobs)).exp()
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            entropy = -(whole.exp() * whole).sum(-1)
            divergence = torch.zeros_like(logp)
            if reference is not None:
                with torch.no_grad():
                    other = log_probabilities(reference, one.prompt.tolist(), one.output.tolist())
                d = other[torch.arange(len(one.output)), torch.from_numpy(one.output).long()] - picked
                divergence = (whole.exp() * (whole - other)).sum(-1) if kl == "exact" else d.exp() - d - 1
            kls += divergence.tolist()
            entropies += entropy.tolist()
            loss = loss + (-surrogate + kl_coef * divergence - entropy_coef * entropy).mean() / len(rollouts)
    loss.backward()
    gradient = {n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in decoder.named_parameters()}
    return gradient, {
        "loss": float(loss.detach()),
        "kl": sum(kls) / len(kls),
        "entropy": sum(entropies) / len(entropies),
    }


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert float(expected.norm()) > 0, f"{name} has no gradient: the test would prove nothing"
        assert float((ours[name] - expected).norm() / expected.norm()) < tolerance, name


def near_policy(policy: Policy, groups: Sequence[Group], spread: float) -> list[Group]:
    """Return the groups with behaviour log-probabilities near the policy's own, so that few tokens are clipped."""
    generator = torch.Generator().manual_seed(1)
    made = []
    with torch.no_grad():
        for g in groups:
            rollouts = []
            for r in g.rollouts:
                (one,) = r.trajectories[0].turns
                whole = log_probabilities(policy.decoder, one.prompt.tolist(), one.output.tolist())
                logp = whole[torch.arange(len(one.output)), torch.from_numpy(one.output).long()] - torch.from_numpy(
                    one.log_kept
                )
                noisy = logp + spread * torch.randn(len(logp), generator=generator)
                rollouts.append(rollout(r.score.value, replace(one, logprobs=noisy.numpy()), attempt=r.attempt))
            made.append(group(rollouts, index=g.index))
    return made


@pytest.mark.parametrize("changes", [{}, {"tied": True, "family": "qwen2"}, {"family": "llama"}])
@pytest.mark.parametrize("micro_batch_tokens", [1, 25, 100_000])
def test_the_gradient_of_grpo_is_that_of_one_sequence_at_a_time(
    changes: dict[str, object], micro_batch_tokens: int
) -> None:
    policy = tiny_policy(**changes)
    groups = near_policy(policy, random_groups(1), 0.3)
    expected, facts = naive_gradient(policy, groups)
    ours, report = gradient_of_a_step(trainer(policy, micro_batch_tokens=micro_batch_tokens), groups)
    assert_same(ours, expected, 1e-5)
    assert report.metrics["loss/policy"] == pytest.approx(facts["loss"], abs=1e-5)
    assert report.metrics["entropy"] == pytest.approx(facts["entropy"], rel=1e-4)
    assert report.metrics["opt/grad_norm"] == pytest.approx(
        sum(float(g.square().sum()) for g in expected.values()) ** 0.5, rel=1e-4
    )
    assert 0 < report.metrics["clip/frac"] < 1


@pytest.mark.parametrize("kl", ["exact", "k3"])
def test_kl_and_entropy_terms_equal_their_sums_over_the_whole_vocabulary(kl: str) -> None:
    policy = tiny_policy()
    # A reference apart, but not far apart: k3 of a token that vanished there is astronomical.
    reference = copy.deepcopy(policy.decoder)
    with torch.no_grad():
        for i, weight in enumerate(reference.parameters()):
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))
    groups = near_policy(policy, random_groups(2), 0.1)
    expected, facts = naive_gradient(policy, groups, kl=kl, kl_coef=0.7, entropy_coef=0.3, reference=reference)
    method = {"kl": kl, "kl_coef": 0.7, "entropy_coef": 0.3}
    ours, report = gradient_of_a_step(trainer(policy, reference=reference, method=method), groups)
    assert_same(ours, expected, 3e-5)
    assert facts["kl"] > 0.01
    assert report.metrics["kl/ref"] == pytest.approx(facts["kl"], rel=1e-4)
    assert report.metrics["entropy"] == pytest.approx(facts["entropy"], rel=1e-4)
    assert report.metrics["loss/policy"] == pytest.approx(facts["loss"], rel=1e-4, abs=1e-5)


def test_few_logits_at_once_give_the_same_gradient_as_many() -> None:
    groups = random_groups(4, vocab=40)
    policy = tiny_policy(characters="".join(chr(c) for c in range(33, 600)))
    few, _ = gradient_of_a_step(trainer(copy.deepcopy(policy), max_logits=1024), groups)
    many, _ = gradient_of_a_step(trainer(policy), groups)
    assert_same(few, many, 1e-5)


def test_leaving_out_groups_without_signal_equals_computing_them() -> None:
    policy = tiny_policy()
    groups = near_policy(policy, random_groups(3, groups=4, equal=(1, 2)), 0.1)
    algorithm = build_algorithm("grpo", {})
    skipped, report = gradient_of_a_step(trainer(copy.deepcopy(policy), algorithm), groups)
    computed, whole = gradient_of_a_step(trainer(policy, replace(algorithm, silent_at_zero=False)), groups)
    assert_same(skipped, computed, 1e-5)
    assert report.metrics["signal/zero_groups_frac"] == 0.5
    for name in ("loss/policy", "entropy", "clip/frac", "kl/old", "tokens/trained"):
        assert report.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-5, abs=1e-7)


def test_a_step_without_any_signal_leaves_the_weights_as_they_were() -> None:
    policy = tiny_policy()
    before = policy.fingerprint()
    report = trainer(policy).step(random_groups(3, equal=(0, 1, 2)), 0)
    assert policy.fingerprint() == before
    assert report.metrics["opt/grad_norm"] == 0
    assert report.metrics["signal/zero_groups_frac"] == 1


def test_several_updates_deal_whole_groups_and_every_one_once() -> None:
    seen: list[list[float]] = []

    def remember(batch: Batch) -> Tensor:
        seen.append(batch.reward.tolist())
        return torch.ones(batch.num_samples, dtype=torch.bool)

    groups = [group([rollout(10 * g + a, turn([7], [8 + a])) for a in range(3)], index=g) for g in range(5)]
    made = trainer(tiny_policy(), replace(build_algorithm("grpo", {}), keep=remember), updates_per_batch=2)
    report = made.step(groups, 0)
    assert report.metrics["opt/updates"] == 2
    assert sorted(len(update) for update in seen) == [6, 9]
    dealt = [[update[i : i + 3] for i in range(0, len(update), 3)] for update in seen]
    assert sorted(g for update in dealt for g in update) == [[10.0 * g, 10.0 * g + 1, 10.0 * g + 2] for g in range(5)]
    first = list(seen)
    seen.clear()
    made.step(groups, 1)
    assert seen != first, "another step deals in another order"


def test_more_updates_than_groups_leave_no_update_empty() -> None:
    report = trainer(tiny_policy(), updates_per_batch=5).step(random_groups(1, groups=2), 0)
    assert report.metrics["opt/updates"] == 2


def test_the_learning_rate_of_a_step_comes_from_its_curve() -> None:
    made = trainer(tiny_policy(), method={"lr": {"kind": "linear", "start": 1e-3, "end": 2e-3, "steps": 10}})
    assert [made.step(random_groups(1), k).metrics["opt/lr"] for k in (0, 5)] == pytest.approx([1e-3, 1.5e-3])


def test_a_long_gradient_is_cut_to_the_bound_and_reported_whole() -> None:
    policy = tiny_policy()
    groups = near_policy(policy, random_groups(1), 0.1)
    small, large = (
        trainer(copy.deepcopy(policy), grad_clip=clip).step(groups, 0).metrics["opt/grad_norm"] for clip in (1e-4, 1e4)
    )
    assert small == large > 1e-4


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_stop_the_run_before_they_are_changed(poison: float) -> None:
    policy = tiny_policy()
    with torch.no_grad():
        policy.decoder.final_norm[0] = poison
    before = policy.fingerprint()
    with pytest.raises(NumericsError, match=r"Step 3: the gradient of .* is not finite"):
        trainer(policy).step(random_groups(1), 3)
    assert policy.fingerprint() == before


def test_an_optimiser_restored_from_its_state_goes_on_bit_for_bit() -> None:
    policy = tiny_policy()
    straight = trainer(policy, weight_decay=0.1)
    straight.step(random_groups(1), 0)
    saved = {name: value.clone() for name, value in straight.state().items()}
    again = trainer(copy.deepcopy(policy), weight_decay=0.1)
    again.restore(saved)
    for made in (straight, again):
        made.step(random_groups(2), 1)
    assert straight.policy.fingerprint() == again.policy.fingerprint()
    assert all(torch.equal(value, again.state()[name]) for name, value in straight.state().items())


def test_a_fresh_optimiser_has_no_state_and_takes_none() -> None:
    made = trainer(tiny_policy())
    assert list(made.state()) == ["sampled_by"]
    made.restore(made.state())
    assert made.step(random_groups(1), 0).metrics["opt/updates"] == 1


def test_every_rollout_is_trained_on_or_counted_under_a_reason() -> None:
    groups = [
        group([rollout(1.0, turn([7], [8])), rollout(0.0, turn([7], [9])), rollout(None, turn([7], [9]))]),
        group([rollout(1.0, turn([7], [8])), rollout(None), rollout(None)], index=1),
    ]
    report = trainer(tiny_policy()).step(groups, 0)
    fates = {"trained": 2, "reward_error": 3, "group_too_small": 1}
    prompts = {"ledger_prompts/trained": 1, "ledger_prompts/reward_error": 1}
    tokens = {"ledger_tokens/trained": 2, "ledger_tokens/reward_error": 1, "ledger_tokens/group_too_small": 1}
    assert report.ledger == {f"ledger/{name}": count for name, count in fates.items()} | tokens | prompts
    assert report.metrics["tokens/trained"] == 2


def test_a_rollout_without_a_token_is_not_counted_as_trained() -> None:
    groups = [group([rollout(1.0, turn([7], [8])), rollout(0.0, turn([7], [9])), rollout(0.5)])]
    report = trainer(tiny_policy()).step(groups, 0)
    assert report.ledger["ledger/trained"] == 2
    assert sum(v for k, v in report.ledger.items() if k.startswith("ledger/")) == 3


def test_a_step_in_which_everything_failed_trains_on_nothing_and_says_so() -> None:
    made = trainer(tiny_policy())
    groups = [group([rollout(None), rollout(None)])]
    report = made.step(groups, 0)
    assert report.ledger == {
        "ledger/reward_error": 2,
        "ledger_tokens/reward_error": 0,
        "ledger_prompts/reward_error": 1,
    }
    assert report.metrics["tokens/trained"] == 0
    ours, theirs = made.logprobs(groups)
    assert (len(ours), len(theirs)) == (0, 0)


def test_the_trainers_log_probabilities_are_those_of_the_sampled_tokens() -> None:
    policy = tiny_policy()
    groups = near_policy(policy, random_groups(6), 0.0)
    ours, theirs = trainer(policy, micro_batch_tokens=20).logprobs(groups)
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)
    hotter, _ = trainer(policy).logprobs(groups, temperature=1.6)
    assert float((hotter - theirs[: len(hotter)]).abs().max()) > 0.1
