"""SkyRL."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key, StepKey
from ratchet.logs.log import StepAxis

SKYRL = Framework(
    "skyrl",
    "SkyRL",
    StepAxis.ROLLOUT,
    (
        Key("reward/avg_raw_reward", "reward/mean", "as the environment gave it"),
        Key("reward/avg_pass_at_<k>", "reward/pass@{0}"),
        Key("reward/mean_positive_reward", "reward/positive_mean"),
        Key("reward/num_zero_variance_filtered", "signal/filter/zero_groups"),
        Key("loss/avg_final_rewards", "reward/shaped/mean", "after KL and other penalties"),
        Key("reward/avg_final_rewards", "reward/shaped/mean", "after KL and other penalties"),
        Key("generate/avg_assistant_tokens", "len/response/mean", "the model's own tokens"),
        Key("generate/{min,max,std}_assistant_tokens", "len/response/{0}", "the model's own tokens"),
        Key("generate/{avg,min,max,std}_num_tokens", "len/generated/{0}",
            "in several turns the environment's tokens may be among them"),
        Key("generate/<what...>", "data/generate/{0}"),
        Key("policy/policy_kl", "kl/ref"),
        Key("loss/avg_kl", "kl/ref_reward"),
        Key("loss/avg_kl_max", "kl/ref_max"),
        Key("loss/kl_loss_coef", "kl/coef"),
        Key("policy/loss_metrics/clip_ratio", "clip/frac"),
        Key("policy/ppo_clip_ratio", "clip/frac"),
        Key("policy/loss_metrics/<what...>", "loss/metrics/{0}"),
        Key("policy/rollout_train_logprobs_abs_diff_{mean,max,min,std}", "sampler/logp_diff_{0}"),
        Key("async/staleness_{mean,max,min}", "stale/{0}"),
        Key("async/staleness_ratio", "stale/frac"),
        Key("async/<what...>", "queue/{0}"),
        Key("policy/policy_entropy", "entropy"),
        Key("policy/grad_norm", "opt/grad_norm"),
        Key("policy/raw_grad_norm", "opt/grad_norm"),
        Key("policy/policy_lr", "opt/lr"),
        Key("policy/final_loss", "loss/policy"),
        Key("policy/policy_loss", "loss/pg"),
        Key("policy/response_length", "len/padded_response", "length the batch was padded to"),
        Key("critic/critic_loss", "critic/loss"),
        Key("loss/avg_raw_advantages<which...>", "advantage/mean{0}"),
        Key("eval/<set>/avg_score", "eval/{0}/reward_mean"),
        Key("eval/<set>/pass_at_<k>", "eval/{0}/pass@{1}"),
        Key("eval/<set>/<stat...>", "eval/{0}/{1}", common=True),
        Key("timing/<what...>", "time/{0}", common=True),
        Key("trainer/{epoch,global_step}", "progress/{0}"),
        Key("policy/<what...>", "opt/policy/{0}", common=True),
    ),
    steps=(StepKey("trainer/global_step", StepAxis.ROLLOUT),),
    caution={
        "len/generated/mean": "len/generated/mean (avg_num_tokens) may hold the environment's tokens in several turns; "
        "the model's own are len/response/mean (avg_assistant_tokens), where they are logged.",
    },
)  # fmt: skip
