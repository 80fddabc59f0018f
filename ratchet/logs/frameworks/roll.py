"""ROLL. Keys may end in a reduction marker, ``@sum``, ``@mean``, ``@max`` or ``@min``, that its trackers take off."""

from __future__ import annotations

from ratchet.logs.frameworks.entry import Framework, Key
from ratchet.logs.log import StepAxis

_SUM = "{@sum,@mean,}"
_ANY = "{@max,@min,@sum,@mean,}"
_TAKEN_OFF = "its mark of reduction (@sum and so on) taken off the key"


def _marked(pattern: str, name: str, meaning: str = "") -> Key:
    return Key(pattern, name, meaning, change=_TAKEN_OFF)


ROLL = Framework(
    "roll",
    "ROLL",
    StepAxis.ROLLOUT,
    (
        Key("critic/score/{mean,max,min}", "reward/{0}", "score of the task, before penalties"),
        Key("critic/rewards/{mean,max,min}", "reward/shaped/{0}", "after KL and other penalties"),
        Key("critic/advantages/{mean,max,min}", "advantage/{0}"),
        Key("critic/returns/{mean,max,min}", "reward/return/{0}"),
        Key("tokens/response_length/{mean,max,min}", "len/response/{0}"),
        Key("tokens/prompt_length/{mean,max,min}", "len/prompt/{0}"),
        Key("critic/kl", "kl/ref_reward", "measured on the rollouts, for the penalty in the reward"),
        Key("critic/kl_coef", "kl/coef"),
        _marked(f"actor/kl_loss{_SUM}", "kl/ref"),
        _marked(f"actor/approxkl{_SUM}", "kl/old"),
        _marked(f"actor/policykl{_SUM}", "kl/old_k1"),
        _marked(f"actor/ratio_{{mean,max,min}}{_ANY}", "ratio/old/{0}"),
        _marked(f"actor/train_infer_ratio_<agg>_mean{_SUM}", "sampler/ratio/{0}"),
        _marked(f"actor/train_infer_diff_<agg>_mean{_SUM}", "sampler/prob_diff_{0}"),
        _marked(f"actor/train_infer_final_mask_mean{_SUM}", "correction/kept_frac"),
        _marked(f"actor/train_infer_<what>{_SUM}", "sampler/train_infer/{0}"),
        Key("scheduler/off_policy_ratio", "stale/frac"),
        Key("critic/entropy/{mean,max,min}", "entropy", "before the step's updates"),
        _marked(f"actor/entropy{_SUM}", "entropy/update", "during the update"),
        _marked(f"actor/clipfrac{_SUM}", "clip/frac"),
        _marked(f"actor/ppo_ratio_{{high,low}}_clipfrac{_SUM}", "clip/{0}"),
        _marked(f"actor_train/grad_norm{_ANY}", "opt/grad_norm"),
        _marked(f"<worker>/grad_norm{_ANY}", "opt/grad_norm/{0}"),
        _marked(f"actor/lr{_ANY}", "opt/lr"),
        _marked(f"actor/total_loss{_SUM}", "loss/policy"),
        _marked(f"actor/pg_loss{_SUM}", "loss/pg"),
        _marked(f"actor_train/loss{_SUM}", "loss/worker"),
        _marked(f"critic/vf_loss{_SUM}", "critic/loss"),
        _marked(f"actor/<what>{_ANY}", "opt/actor/{0}"),
        Key("val_{correct,score}/<set>/mean", "eval/{1}/{0}"),
        Key("val/score/mean", "eval/all/score"),
        Key("val/<stat...>", "eval/all/{0}", common=True),
        Key("time/<what...>", "time/{0}", common=True),
        Key("system/<what...>", "system/{0}", common=True),
        Key("scheduler/<what...>", "queue/{0}"),
        Key("token/<what...>", "data/token/{0}"),
    ),
    hints={"tagged json": "lines of the form metrics_tag: {...}"},
    caution={
        "reward/shaped/mean": "reward/mean (critic/score) is before penalties, reward/shaped/mean (critic/rewards) "
        "after them.",
    },
)
