"""AReaL. ``ppo_actor/`` was ``grpo_actor/`` in older versions."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key, Product, StepKey
from ratchet.logs.log import StepAxis

_A = "{ppo_actor,grpo_actor}"

AREAL = Framework(
    "areal",
    "AReaL",
    StepAxis.VERSION,
    (
        Key(f"{_A}/task_reward/{{avg,min,max}}", "reward/{1}", "score of the task, before penalties"),
        Key(f"{_A}/final_reward/{{avg,min,max}}", "reward/shaped/{1}", "after scaling, clipping and penalties"),
        Key("rollout/reward", "reward/mean", "of the rollouts that were accepted"),
        Key("rollout/reward/{avg,min,max}", "reward/{0}"),
        Key(f"{_A}/seq_len/{{avg,min,max}}", "len/total/{1}", "prompt and response together"),
        Key(f"{_A}/prompt_len/{{avg,min,max}}", "len/prompt/{1}"),
        Key(f"{_A}/no_eos_ratios/avg", "len/longest_frac",
            "share of sequences as long as the padded batch; never 0, and not truncation"),
        Key(f"{_A}/kl_rewards/avg", "kl/ref_penalty", "weighted, with the sign it has in the reward"),
        Key(f"{_A}/update/approx_kl/avg", "kl/old"),
        Key(f"{_A}/update/importance_weight/avg", "ratio/old/mean"),
        Key(f"{_A}/update/importance_weight/{{min,max}}", "ratio/old/{1}"),
        Key(f"{_A}/update/behave_approx_kl/avg", "kl/sampler", "sampler against the proximal policy; with staleness"),
        Key(f"{_A}/update/behave_imp_weight/avg", "correction/weight/mean"),
        Key(f"{_A}/update/<rest>/sample_staleness_{{avg,min,max}}", "stale/{2}"),
        Key(f"{_A}/update/<rest>/sample_staleness_{{avg,min,max}}/avg", "stale/{2}"),
        Key(f"{_A}/update/version_stats/<what...>", "stale/{1}"),
        Key(f"{_A}/update/entropy/avg", "entropy"),
        Key(f"{_A}/update/clip_ratio/avg", "clip/frac"),
        Key(f"{_A}/update/dual_clip_ratio/avg", "clip/dual"),
        Key(f"{_A}/update/grad_norm", "opt/grad_norm"),
        Key(f"{_A}/update/grad_norm/avg", "opt/grad_norm"),
        Key(f"{_A}/update/lr", "opt/lr"),
        Key(f"{_A}/update/lr/avg", "opt/lr"),
        Key(f"{_A}/update/actor_loss/avg", "loss/policy"),
        Key(f"{_A}/correct_n_seqs", "count/positive_rewards", "sequences with a reward above 0, whatever its scale"),
        Key(f"{_A}/incorrect_n_seqs", "count/other_rewards"),
        Key("{ppo_critic,critic}/update/value_loss/avg", "critic/loss"),
        Key("{ppo_critic,critic}/<what...>", "critic/{1}", common=True),
        Key("rollout/{accepted,rejected}", "rollouts/{0}"),
        Key("eval-rollout/reward", "eval/all/reward_mean"),
        Key("eval-rollout/reward/avg", "eval/all/reward_mean"),
        Key("eval-rollout/<what...>", "eval/all/{0}"),
        Key("timeperf/<what...>", "time/{0}"),
        Key(f"{_A}/update/<what...>", "opt/update/{1}"),
        Key(f"{_A}/<what...>", "data/actor/{1}"),
        Key("rollout/<what...>", "data/rollout/{0}", common=True),
    ),
    steps=(StepKey("global_step", StepAxis.VERSION),),
    products=tuple(
        Product(
            "len/response/mean",
            f"{actor}/seq_len/avg",
            "-",
            f"{actor}/prompt_len/avg",
            "AReaL's seq_len is prompt and response together",
            "minus the prompt's length",
        )
        for actor in ("ppo_actor", "grpo_actor")
    ),
    hints={"box tables": "tables under Train step N/M done"},
    caution={
        "len/longest_frac": "len/longest_frac (no_eos_ratios) counts sequences as long as the padded batch: it is "
        "never 0 and is no share of truncated answers.",
        "count/positive_rewards": "count/positive_rewards (correct_n_seqs) counts rewards above 0, whatever the scale "
        "of the reward: it is no accuracy.",
    },
)  # fmt: skip
