"""torchforge."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key
from ratchet.logs.log import StepAxis

TORCHFORGE = Framework(
    "torchforge",
    "torchforge",
    StepAxis.VERSION,
    (
        Key("reward/evaluate_response/avg_total_reward", "reward/mean"),
        Key("reward/evaluate_response/avg_<fn>_reward", "reward/parts/{0}"),
        Key("reward/evaluate_response/std_<fn>_reward", "reward/parts_std/{0}"),
        Key("reward/evaluate_response/<what...>", "data/reward/{0}"),
        Key("generator/generate/avg_tokens_generated", "len/response/mean"),
        Key("generator/generate/<what...>", "data/generate/{0}"),
        Key("generator/<what...>", "data/generator/{0}"),
        Key("buffer/sample/{avg,max,min}_sampled_policy_age", "stale/{0}"),
        Key("buffer/<what...>", "buffer/{0}", common=True),
        Key("rl_trainer/learning_rate", "opt/lr"),
        Key("rl_trainer/avg_loss", "loss/policy"),
        Key("rl_trainer/avg_grad_norm", "opt/grad_norm"),
        Key("rl_trainer/<what...>", "opt/trainer/{0}"),
        Key("rl_trainer_perf/<what...>", "time/trainer/{0}"),
        Key("{main,main_perf,grpo_loss,dataset,episode}/<what...>", "data/{0}/{1}"),
    ),
    hints={"metrics blocks": "blocks headed METRICS STEP N"},
)
