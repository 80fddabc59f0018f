"""ART (OpenPipe): training and validation rows in one ``history.jsonl``."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key, StepKey
from ratchet.logs.log import StepAxis

ART = Framework(
    "art",
    "ART",
    StepAxis.OPTIMISER,
    (
        Key("train/reward", "reward/mean", common=True),
        Key("train/reward_std_dev", "signal/group_std", "mean spread within groups"),
        Key("train/exception_rate", "drop_frac/exception"),
        Key("train/{loss,policy_loss}", "loss/policy", "older versions", common=True),
        Key("train/grad_norm", "opt/grad_norm", "older versions", common=True),
        Key("train/learning_rate", "opt/lr", "older versions", common=True),
        Key("train/entropy", "entropy", "older versions", common=True),
        Key("train/kl_div", "kl/ref", "older versions", common=True),
        Key("data/step_num_groups_{submitted,trainable}", "count/groups_{0}"),
        Key("data/step_<what...>", "count/{0}"),
        Key("data/<what...>", "data/{0}", common=True),
        Key("loss/kl_div", "kl/ref"),
        Key("loss/kl_policy_ref", "kl/ref"),
        Key("loss/entropy", "entropy"),
        Key("loss/grad_norm", "opt/grad_norm"),
        Key("loss/learning_rate", "opt/lr"),
        Key("loss/train", "loss/policy"),
        Key("loss/clipped_token_fraction", "clip/frac"),
        Key("loss/importance_ratio_mean", "ratio/old/mean"),
        Key("loss/probs_corr", "sampler/pearson", "correlation of the trainer's and the sampler's probabilities"),
        Key("val/reward", "eval/val/reward_mean"),
        Key("val/reward_std_dev", "eval/val/group_std"),
        Key("val/<stat...>", "eval/val/{0}", common=True),
        Key("test/reward", "eval/test/reward_mean"),
        Key("test/<stat...>", "eval/test/{0}", common=True),
        Key("train/<stat...>", "data/train/{0}", common=True),
        Key("{time,throughput,costs}/<what...>", "system/{0}/{1}", common=True),
    ),
    steps=(StepKey("training_step", StepAxis.OPTIMISER),),
)
