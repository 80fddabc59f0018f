"""OpenRLHF. Its trackers put ``train/`` and ``eval/`` before the keys; the console does not."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key, StepKey
from ratchet.logs.log import StepAxis

OPENRLHF = Framework(
    "openrlhf",
    "OpenRLHF",
    StepAxis.ROLLOUT,
    (
        Key("reward", "reward/mean", common=True),
        Key("rollout/reward_{mean,std}", "reward/{0}", "over the rollouts as they were sampled"),
        Key("return", "reward/return/mean", "reward with the KL penalty, summed over tokens"),
        Key("response_length", "len/response/mean", common=True),
        Key("total_length", "len/total/mean", "prompt and response"),
        Key("truncated", "len/truncated_frac"),
        Key("rollout/truncated_rate", "len/truncated_frac"),
        Key("kl", "kl/ref", common=True),
        Key("logprobs_diff", "kl/ref_k1", "policy minus reference, whatever its place beside vllm_kl suggests"),
        Key("ppo_kl", "kl/old", "drift from the weights that made the rollouts", common=True),
        Key("vllm_kl", "kl/sampler", "trainer against vLLM"),
        Key("entropy_loss", "entropy", "mean entropy over the vocabulary; not comparable with sampled estimates",
            common=True),
        Key("ppo_clip_ratio", "clip/frac"),
        Key("actor_grad_norm", "opt/grad_norm"),
        Key("critic_grad_norm", "critic/grad_norm"),
        Key("actor_lr", "opt/lr"),
        Key("critic_lr", "critic/lr"),
        Key("policy_loss", "loss/pg", common=True),
        Key("critic_loss", "critic/loss"),
        Key("values", "critic/value/mean"),
        Key("dynamic_filtering_pass_rate", "signal/kept_groups_frac"),
        Key("timing/<what...>", "time/{0}", common=True),
        Key("eval_<set>_pass1", "eval/{0}/pass@1"),
        Key("eval_<set>_pass<k>", "eval/{0}/pass@{1}"),
        Key("eval_<stat...>", "eval/all/{0}", common=True),
        Key("rollout/<what...>", "data/rollout/{0}", common=True),
    ),
    wrappers=("train/", "eval/"),
    steps=(
        StepKey("train/global_step", StepAxis.ROLLOUT, "train/"),
        StepKey("eval/global_step", StepAxis.ROLLOUT, "eval/"),
        StepKey("eval/epoch", StepAxis.EVALUATION, "eval/"),
    ),
    hints={"global step dicts": "lines of the form Global step N: {...}"},
    caution={
        "kl/ref_k1": "kl/ref_k1 (logprobs_diff) is policy minus reference; what compares sampler and trainer is "
        "kl/sampler (vllm_kl).",
    },
)  # fmt: skip
