"""NeMo-RL. Its trackers put ``train/`` and ``validation/`` before the keys; its console writes words."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key, Product
from ratchet.logs.log import StepAxis

NEMO_RL = Framework(
    "nemo_rl",
    "NeMo-RL",
    StepAxis.ROLLOUT,
    (
        Key("reward", "reward/mean", "of the rollouts trained on", common=True),
        Key("filtered_reward", "reward/filtered/mean", "under dynamic sampling, of the groups it kept"),
        Key("mean_total_reward", "reward/total/mean", "of all rollouts that were sampled"),
        Key("total_reward/<stat>", "reward/total/{0}", "of all rollouts that were sampled"),
        Key("mean_gen_tokens_per_sample", "len/response/mean"),
        Key("gen_tokens_per_sample/{mean,max,min,median,std}", "len/response/{0}"),
        Key("gen_tokens_per_sample/<stat>", "len/response/{0}"),
        Key("mean_prompt_length", "len/prompt/mean"),
        Key("truncation_rate", "len/truncated_frac"),
        Key("natural_termination_rate", "len/ended_frac"),
        Key("kl_penalty", "kl/ref", "already divided by its coefficient, so that it is the KL itself"),
        Key("probs_ratio", "ratio/old/mean"),
        Key("probs_ratio_{min,max}", "ratio/old/{0}"),
        Key("probs_ratio_clamped", "ratio/old_clipped/mean"),
        Key("probs_ratio_clamped_{min,max}", "ratio/old_clipped/{0}"),
        Key("token_mult_prob_error", "sampler/prob_error", "1.0 is perfect; above 1.05 something is wrong"),
        Key("gen_kl_error", "kl/sampler"),
        Key("policy_kl_error", "kl/sampler_reverse"),
        Key("js_divergence_error", "sampler/js"),
        Key("sampling_importance_ratio", "sampler/ratio/mean"),
        Key("approx_entropy", "entropy/sampled", "estimated from the sampled tokens"),
        Key("grad_norm", "opt/grad_norm", common=True),
        Key("lr", "opt/lr", common=True),
        Key("loss", "loss/policy", common=True),
        Key("dynamic_sampling_<what...>", "signal/filter/{0}"),
        Key("advantages/{mean,min,max}", "advantage/{0}"),
        Key("global_valid_{seqs,toks}", "count/valid_{0}"),
        Key("num_valid_samples", "count/valid_samples"),
        Key("avg_trajectory_age", "stale/mean"),
        Key("validation/accuracy", "eval/all/accuracy"),
        Key("validation/avg_length", "eval/all/response_length"),
        Key("validation/<set>/accuracy", "eval/{0}/accuracy"),
        Key("validation/<set>/avg_length", "eval/{0}/response_length"),
        Key("validation/<stat...>", "eval/all/{0}", common=True),
        Key("timing/{train,validation}/<what...>", "time/{1}", common=True),
        Key("performance/<what...>", "system/{0}"),
        Key("wd", "opt/weight_decay"),
        # What its console says, section by section.
        Key("Training Results/Loss", "loss/policy"),
        Key("Training Results/Avg Reward", "reward/mean"),
        Key("Training Results/Avg Filtered Reward", "reward/filtered/mean"),
        Key("Training Results/Avg Total Reward", "reward/total/mean"),
        Key("Training Results/Mean Generation Length", "len/response/mean"),
        Key("Training Results/Generation KL Error", "kl/sampler"),
        Key("Training Results/Buffer Size", "queue/size"),
        Key("Training Results/Avg Trajectory Age", "stale/mean"),
        Key("Training Results/<what...>", "data/{0}"),
        Key("Validation Results/Accuracy", "eval/all/accuracy"),
        Key("Validation Results/Average response length", "eval/all/response_length"),
        Key("Validation Results/<what...>", "eval/all/{0}"),
        Key("Timing/Total step time", "time/step"),
        Key("Timing/<what...>", "time/{0}"),
        Key("Performance Metrics/<what...>", "system/{0}"),
    ),
    wrappers=("train/",),
    products=tuple(
        Product(
            "clip/gap",
            f"{prefix}probs_ratio",
            "-",
            f"{prefix}probs_ratio_clamped",
            "NeMo-RL logs no share of clipped tokens",
            "mean ratio minus mean clipped ratio",
        )
        for prefix in ("train/", "")
    ),
    hints={"sections": "sections Training Results and Timing"},
    caution={
        "kl/ref": "kl/ref (kl_penalty) is already divided by its coefficient.",
        "sampler/prob_error": "sampler/prob_error (token_mult_prob_error) is a factor: 1 is perfect.",
        "reward/filtered/mean": "reward/filtered/mean is over the groups that dynamic sampling kept; it does not "
        "measure progress.",
    },
)
