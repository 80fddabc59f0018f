"""verl, and Trinity-RFT, whose trainer is verl's and whose explorer adds keys of its own."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key, StepKey
from ratchet.logs.log import StepAxis

_SHARED = (
    Key("critic/score/{mean,max,min}", "reward/{0}", "score of the task, before any KL penalty"),
    Key("critic/rewards/{mean,max,min}", "reward/shaped/{0}", "after the KL penalty in the reward"),
    Key("critic/returns/{mean,max,min}", "reward/return/{0}"),
    Key("critic/advantages/{mean,max,min}", "advantage/{0}"),
    Key("response_length/{mean,max,min}", "len/response/{0}"),
    Key("response_length_non_aborted/{mean,max,min}", "len/response_not_aborted/{0}"),
    Key("response_length/clip_ratio", "len/truncated_frac", "share of responses at the length limit"),
    Key("response_length_non_aborted/clip_ratio", "len/response_not_aborted/truncated_frac"),
    Key("response/aborted_ratio", "drop_frac/aborted"),
    Key("prompt_length/{mean,max,min}", "len/prompt/{0}"),
    Key("prompt_length/clip_ratio", "len/prompt_truncated_frac"),
    Key("num_turns/{mean,max,min}", "turns/{0}"),
    Key("actor/kl_loss", "kl/ref", "distance to the reference, not weighted"),
    Key("actor/reward_kl_penalty", "kl/ref_reward"),
    Key("critic/kl", "kl/ref_reward"),
    Key("{actor/kl_coef,critic/kl_coeff,actor/reward_kl_penalty_coeff}", "kl/coef"),
    Key("actor/ppo_kl", "kl/old", "drift since the last weight sync, not distance to the reference; may be negative"),
    Key("training/rollout_probs_diff_{mean,max,std}", "sampler/prob_diff_{0}"),
    Key("training/rollout_actor_probs_pearson_corr", "sampler/pearson"),
    Key("rollout_corr/kl", "kl/sampler"),
    Key("rollout_corr/rollout_is_mean", "correction/weight/mean"),
    Key("rollout_corr/rollout_is_eff_sample_size", "correction/ess_frac"),
    Key("rollout_corr/rollout_rs_masked_fraction", "correction/masked_frac"),
    Key("rollout_corr/<what...>", "sampler/correction/{0}"),
    Key("actor/entropy", "entropy"),
    Key("actor/entropy_loss", "entropy", "older versions' name of actor/entropy"),
    Key("actor/pg_clipfrac", "clip/frac", "in the DPPO losses, the masked share"),
    Key("actor/pg_clipfrac_lower", "clip/dual",
        "the dual clip's share on negative advantages, not the low side of the clip"),
    Key("actor/grad_norm", "opt/grad_norm"),
    Key("critic/grad_norm", "critic/grad_norm"),
    Key("actor/lr", "opt/lr"),
    Key("critic/lr", "critic/lr"),
    Key("actor/pg_loss", "loss/pg"),
    Key("actor/loss", "loss/policy"),
    Key("critic/vf_loss", "critic/loss"),
    Key("critic/vf_clipfrac", "critic/clip_frac"),
    Key("critic/vf_explained_var", "critic/explained_variance"),
    Key("critic/values/{mean,max,min}", "critic/value/{0}"),
    Key("critic/vpred_mean", "critic/value/mean"),
    Key("training/filter_groups/<what...>", "signal/filter/{0}"),
    Key("val-core/<source...>", "eval/{0}"),
    Key("val-aux/<source...>", "eval/{0}"),
    Key("val/test_score/<source...>", "eval/{0}/test_score"),
    Key("val/<rest...>", "eval/{0}"),
    Key("global_seqlen/<stat>", "len/device_total/{0}", "tokens of prompt and answer per device, for balancing",
        common=True),
    Key("timing_s/<what...>", "time/{0}"),
    Key("timing_per_token_ms/<what...>", "system/ms_per_token/{0}"),
    Key("perf/time_per_step", "time/step"),
    Key("perf/total_num_tokens", "tokens/total"),
    Key("perf/throughput", "speed/tokens_per_s_per_device"),
    Key("{actor/perf,perf,mfu}/<what...>", "system/{1}"),
    Key("training/epoch", "progress/epoch"),
    Key("training/global_step", "progress/global_step"),
    Key("actor/<what...>", "opt/actor/{0}", common=True),
    Key("training/<what...>", "data/training/{0}", common=True),
)  # fmt: skip

_CAUTION = {
    "kl/old": "kl/old (actor/ppo_kl) is drift since the last weight sync and about 0 on the first minibatch; the "
    "distance to the reference is kl/ref (actor/kl_loss).",
    "clip/dual": "clip/dual (actor/pg_clipfrac_lower) is the dual clip on negative advantages, not the low side of "
    "the clip.",
    "reward/shaped/mean": "reward/mean (critic/score) is before a KL penalty in the reward, reward/shaped/mean "
    "(critic/rewards) after it.",
}

VERL = Framework(
    "verl",
    "verl",
    StepAxis.ROLLOUT,
    _SHARED,
    steps=(StepKey("training/global_step", StepAxis.ROLLOUT),),
    hints={"step lines": "lines of the form step:N - key:value"},
    caution=_CAUTION,
)

TRINITY = Framework(
    "trinity",
    "Trinity-RFT",
    StepAxis.ROLLOUT,
    (
        Key("rollout/reward/{mean,max,min,std}", "reward/{0}", "as the explorer scored the rollouts of its step"),
        Key("rollout/<metric>/{mean,max,min,std}", "data/rollout/{0}/{1}"),
        Key("sample/model_version/{mean,max,min}", "version/sampled/{0}", "version of the weights that sampled"),
        Key("sample/<what...>", "data/sample/{0}"),
        Key("experience_count", "count/experiences"),
        Key("experience_pipeline/<what...>", "data/pipeline/{0}"),
        Key("{eval,bench}/<task...>", "eval/{1}"),
        Key("time/<what...>", "time/{0}", common=True),
    ),
    extends=VERL,
    hints={"step dicts": "lines of the form Step N: {...}"},
    caution=_CAUTION,
)
