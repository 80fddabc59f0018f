"""tinker-cookbook."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key, Product, StepKey
from ratchet.logs.log import StepAxis

TINKER = Framework(
    "tinker",
    "tinker-cookbook",
    StepAxis.BATCH,
    (
        Key("test/env/all/reward/total", "eval/all/reward_mean"),
        Key("test/env/<tag>/reward/total", "eval/{0}/reward_mean"),
        Key("test/<what...>", "eval/{0}"),
        Key("env/all/reward/total", "reward/mean"),
        Key("env/all/reward/<part>", "reward/parts/{0}"),
        Key("env/all/ac_tokens_per_turn", "len/per_turn/mean", "tokens of one turn"),
        Key("env/all/turns_per_episode", "turns/mean"),
        Key("env/all/by_group/frac_mixed", "signal/mixed_groups_frac"),
        Key("env/all/by_group/frac_all_good", "signal/solved_all_frac"),
        Key("env/all/by_group/frac_all_bad", "signal/solved_none_frac"),
        Key("env/all/<metric...>", "data/env/{0}"),
        Key("env/<tag>/reward/total", "reward/by/{0}"),
        Key("env/<tag>/<metric...>", "data/env_by/{0}/{1}", common=True),  # ours has such keys too
        Key("kl_policy_base", "kl/ref", "to the base model; logged only with the KL penalty on"),
        Key("optim/kl_sample_train_v1", "kl/sampler", "first estimate: mean difference of log-probabilities"),
        Key("optim/kl_sample_train_v2", "kl/sampler_k2"),
        Key("sampling_client/step_{mean,max,min}", "version/sampled/{0}"),
        Key("optim/entropy", "entropy/sampled", "minus the mean log-probability of the sampled tokens"),
        Key("optim/lr", "opt/lr", common=True),
        Key("optim/<what...>", "opt/{0}", common=True),
        Key("progress/batch", "progress/batch"),
        Key("progress/<what...>", "progress/{0}", common=True),
        Key("time/<what...>", "time/{0}", common=True),
    ),
    steps=(StepKey("progress/batch", StepAxis.BATCH), StepKey("step", StepAxis.BATCH)),
    products=(
        Product(
            "len/response/mean",
            "env/all/ac_tokens_per_turn",
            "*",
            "env/all/turns_per_episode",
            "tinker logs tokens per turn",
            "tokens per turn times turns per episode",
        ),
    ),
    hints={"rich tables": "tables titled Step N with columns Metric and Value"},
    caution={
        "entropy/sampled": "entropy/sampled (optim/entropy) is estimated from the sampled tokens and not comparable "
        "with an entropy over the vocabulary.",
    },
)
