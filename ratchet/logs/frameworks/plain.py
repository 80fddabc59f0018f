"""Logs of no framework known here, and our own: names that say by themselves what they are.

A bare ``kl`` is not taken for one of the three KLs: nobody can know which it is.
"""

from __future__ import annotations

from ratchet.core.metric import METRICS
from ratchet.logs.frameworks.entry import Framework, Key
from ratchet.logs.log import StepAxis

_ANYONES = ("env/", "drop/", "time/", "wait/", "eval/", "entropy")
"""Beginnings of names of ours that any program might use."""


def _pattern(name: str) -> str:
    """Return a name of the metric dictionary as a key pattern: what ``*`` stands for may hold slashes."""
    return name.replace("*", "<any...>")


def _template(name: str) -> str:
    """Return the canonical name of such a pattern: itself."""
    parts = name.split("*")
    return parts[0] + "".join(f"{{{i}}}{part}" for i, part in enumerate(parts[1:]))


PLAIN = Framework(
    "plain",
    "no framework known here",
    StepAxis.UNSAID,
    (
        Key("{reward,rewards,mean_reward,reward_mean,avg_reward,average_reward,rewards/mean,train/reward}",
            "reward/mean", common=True),
        Key("{reward_std,std_reward,reward/std}", "reward/std", common=True),
        Key("{reward_max,max_reward,reward/max}", "reward/max", common=True),
        Key("{reward_min,min_reward,reward/min}", "reward/min", common=True),
        Key("{response_length,completion_length,mean_response_length,response_length_mean,avg_response_length}",
            "len/response/mean", common=True),
        Key("{kl_ref,ref_kl,kl_to_ref}", "kl/ref", common=True),
        Key("{kl,approx_kl,mean_kl,kl_div,kl_loss}", "kl/unsaid", "which KL this is, the log does not say",
            common=True),
        Key("{entropy,mean_entropy}", "entropy", common=True),
        Key("{clip_frac,clipfrac,clip_fraction}", "clip/frac", common=True),
        Key("grad_norm", "opt/grad_norm", common=True),
        Key("{lr,learning_rate}", "opt/lr", common=True),
        Key("{loss,policy_loss,train/loss}", "loss/policy", common=True),
        Key("value_loss", "critic/loss", common=True),
        Key("{truncated_frac,truncation_rate}", "len/truncated_frac", common=True),
        Key("{eval,val,test}/reward", "eval/{0}/reward_mean", common=True),
        Key("{eval,val,test}_reward", "eval/{0}/reward_mean", common=True),
        Key("epoch", "progress/epoch", common=True),
        Key("{reward,len,signal,loss,kl,clip,opt,eval,stale,time,wait,drop,critic,correction,sampler}/<what...>",
            "{0}/{1}", common=True),
    ),
)  # fmt: skip

RATCHET = Framework(
    "ratchet",
    "Ratchet",
    StepAxis.ROLLOUT,
    tuple(
        Key(_pattern(m.pattern), _template(m.pattern), common=m.pattern.startswith(_ANYONES))
        for m in sorted(METRICS, key=lambda m: (-len(m.pattern.replace("*", "")), m.pattern))
    ),
    hints={"run folder": "a run folder of Ratchet"},
)
