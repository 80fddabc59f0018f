"""slime (and miles, which logs the same way): three step axes, told apart by the first part of the key."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key, StepKey
from ratchet.logs.log import StepAxis

SLIME = Framework(
    "slime",
    "slime",
    StepAxis.ROLLOUT,
    (
        Key("rollout/raw_reward", "reward/mean", "as the reward function gave it"),
        Key("rollout/rewards", "reward/normalised/mean", "after normalisation within groups; about 0 always"),
        Key("rollout/response_len/{mean,median,max,min}", "len/response/{0}"),
        Key("rollout/response_lengths", "len/response/mean"),
        Key("rollout/total_lengths", "len/total/mean", "prompt and response"),
        Key("rollout/truncated_ratio", "len/truncated_frac"),
        Key("rollout/truncated", "len/truncated_frac"),
        Key("rollout/repetition_frac", "data/repetition_frac"),
        Key("train/kl_loss", "kl/ref"),
        Key("train/ppo_kl", "kl/old"),
        Key("train/train_rollout_logprob_abs_diff", "sampler/logp_diff_mean"),
        Key("train/tis", "correction/weight/mean", "truncated importance weight against the sampler"),
        Key("train/ois", "ratio/old/mean", "ratio to the policy the update started from"),
        Key("train/tis_clipfrac", "correction/clipped_frac"),
        Key("train/tis_abs", "correction/weight_off_mean", "mean distance of the weight from 1"),
        Key("train/entropy_loss", "entropy"),
        Key("rollout/entropy", "entropy/rollout"),
        Key("train/pg_clipfrac", "clip/frac"),
        Key("train/opsm_clipfrac", "clip/sequence_masked"),
        Key("train/grad_norm", "opt/grad_norm", common=True),
        Key("train/lr-pg_0", "opt/lr"),
        Key("train/lr-pg_<group>", "opt/lr/{0}"),
        Key("train/loss", "loss/policy", common=True),
        Key("train/pg_loss", "loss/pg", common=True),
        Key("train/value_loss", "critic/loss", common=True),
        Key("rollout/zero_std/count_<r>", "signal/zero_groups_at/{0}"),
        Key("rollout/zero_std/<what...>", "signal/filter/{0}"),
        Key("rollout/advantages", "advantage/mean"),
        Key("rollout/returns", "reward/return/mean"),
        Key("rollout/{log_probs,rollout_log_probs,ref_log_probs}", "data/{0}"),
        Key("{rollout,train,eval}/step", "progress/{0}_step"),
        Key("eval/<set>-truncated_ratio", "eval/{0}/truncated_frac"),
        Key("eval/<set>-pass<k>", "eval/{0}/pass{1}"),
        Key("eval/<set>/<stat...>", "eval/{0}/{1}", common=True),
        Key("eval/<set>", "eval/{0}/reward_mean"),
        Key("passrate/<what...>", "reward/{0}"),
        Key("perf/<what>_time", "time/{0}", common=True),
        Key("perf/<what...>", "system/{0}", common=True),
        Key("rollout/<what...>", "data/rollout/{0}", common=True),
    ),
    steps=(
        StepKey("train/step", StepAxis.OPTIMISER, "train/"),
        StepKey("rollout/step", StepAxis.ROLLOUT, "rollout/"),
        StepKey("rollout/step", StepAxis.ROLLOUT, "perf/"),
        StepKey("rollout/step", StepAxis.ROLLOUT, "passrate/"),
        StepKey("eval/step", StepAxis.EVALUATION, "eval/"),
    ),
    hints={"rollout dicts": "lines of the form rollout N: {...} and step N: {...}"},
    caution={
        "reward/normalised/mean": "reward/normalised/mean (rollout/rewards) is normalised within groups and about 0 "
        "whether or not it learns; the reward is reward/mean (rollout/raw_reward).",
    },
)
