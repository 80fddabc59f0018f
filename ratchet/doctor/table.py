"""All rules, in the order they are told: what goes wrong with the reward first.

The table in ``docs/how-to/doctor.md`` is made from here: ``python -m ratchet.doctor``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ratchet.doctor.evidence import Evidence
from ratchet.doctor.finding import Finding, Severity
from ratchet.doctor.rules import agents, data, delivery, hacking, length, machine, optimiser, reward, spread

I, W, E = Severity.INFO, Severity.WARNING, Severity.ERROR  # noqa: E741


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table."""

    name: str
    look: Callable[[Evidence], Iterable[Finding]]
    says: str
    """What it finds, with its threshold."""
    severities: tuple[Severity, ...]
    online: bool
    """Whether it may be asked at every step of a run: it does not judge how a run ended."""


RULES: tuple[Rule, ...] = (
    Rule("not_finite", optimiser.not_finite, "a reward, loss, gradient, KL or entropy that is NaN or infinite", (W, E),
         True),
    Rule("reward_collapse", reward.reward_collapse, "half or more of the reward's gain is lost, and stays lost", (E,),
         True),
    Rule("length_surge_reward_fall", length.length_surge_reward_fall,
         "answers grew by 25 % or more while the reward lost a quarter of its gain", (E,), True),
    Rule("weights_not_delivered", delivery.weights_not_delivered,
         "the sampler's version stands, samples age by one a step, or the trainer drifts from the sampler while the "
         "reward is flat", (W, E), True),
    Rule("kl_blow_up", spread.kl_blow_up,
         "the KL to the start grew sixfold within 15 % of the run; in its first 15 %, if it comes to a nat a token and "
         "the reward has nothing to show for it", (W, E), True),
    Rule("entropy_explosion", spread.entropy_explosion, "entropy is twice its lowest and the reward does not rise",
         (W, E), True),
    Rule("hacking_suspicion", hacking.hacking_suspicion,
         "the reward rises and what measures the task cannot have made a third of that rise", (W, E), True),
    Rule("no_learning", reward.no_learning, "no trend beyond noise in 30 points or more", (I, W), False),
    Rule("component_dying", hacking.component_dying, "a component of the reward lost half while another did not fall",
         (W,), True),
    Rule("format_only", hacking.format_only, "70 % of the gain or more is form, and the task's part does not rise",
         (W,), False),
    Rule("reward_timeouts", machine.reward_timeouts, "5 % of the rewards or more timed out", (W, E), True),
    Rule("drops", machine.drops, "5 % of the rollouts or more were lost for other reasons", (W, E), True),
    Rule("entropy_collapse", spread.entropy_collapse,
         "entropy fell to a fifth; a warning where that bought no reward", (I, W), True),
    Rule("zero_signal", data.zero_signal, "80 % of the groups or more teach nothing", (I, W), True),
    Rule("truncation", length.truncation, "10 % of the answers or more are cut off at the limit", (W, E), True),
    Rule("length_explosion", length.length_explosion,
         "answers grew 1.8-fold within 15 % of the run, and the reward did not", (W,), True),
    Rule("sampler_mismatch", delivery.sampler_mismatch,
         "sampler and trainer disagree more than precision explains, or five times more than at first", (I, W), True),
    Rule("too_stale", data.too_stale, "samples get older without a bound, or too far from the policy", (W,), True),
    Rule("negatives_dominate", data.negatives_dominate, "the mean advantage of a token is well below 0", (W,), True),
    Rule("clip_saturated", spread.clip_saturated, "30 % of the tokens or more are clipped", (W,), True),
    Rule("clip_stuck", spread.clip_stuck, "the clip fraction has one value to the last digit, or stays 0 while ratios "
         "are far from 1", (I, W), True),
    Rule("gradient_spikes", optimiser.gradient_spikes, "a gradient eight times its neighbours, and whether the reward "
         "suffered", (I, W), True),
    Rule("kl_spikes", spread.kl_spikes, "a KL eight times its neighbours, and whether the reward suffered", (I, W),
         True),
    Rule("lr_zero", optimiser.lr_zero, "a learning rate of (nearly) 0 for a tenth of the run", (W, E), True),
    Rule("serial_collapse", agents.serial_collapse, "parallelism went back to nearly one agent at a time", (W,), True),
    Rule("spurious_parallelism", agents.spurious_parallelism,
         "parallelism grew by half and the task gained nothing", (W,), True),
    Rule("memory_growth", machine.memory_growth, "memory rises steadily, also in the second half", (W,), True),
    Rule("idle_time", machine.idle_time, "half of a step is waiting, or 70 % is generation", (I, W), True),
    Rule("peak_before_end", reward.peak_before_end, "the best level is well before the end, and a tenth of the gain is "
         "lost since", (I, W), False),
    Rule("drop_then_recovery", reward.drop_then_recovery, "a quarter of the gain was lost and came back", (I, W),
         False),
    Rule("sync_sawtooth", data.sync_sawtooth, "reward, KL, entropy or clips move with the period of the weight "
         "refreshes", (I, W), False),
    Rule("plateau", reward.plateau, "the reward rose and has been level for a third of the run", (I, W), False),
    Rule("length_shrink", length.length_shrink, "answers lost a quarter of their length", (I, W), False),
    Rule("length_growth", length.length_growth, "answers grew by 15 % or more", (I,), False),
    Rule("length_dip", length.length_dip, "answers were a tenth shorter for a while", (I,), False),
    Rule("parallel_dip_surge", agents.parallel_dip_surge, "parallelism fell first and rose above its start later",
         (I,), False),
    Rule("healthy_growth", reward.healthy_growth, "the reward rose by more than noise and kept it", (I,), False),
)  # fmt: skip
"""Every rule."""


def table_markdown() -> str:
    """Return the rules as a Markdown table."""
    lines = ["| rule | finds | severity | while training |", "|---|---|---|---|"]
    for rule in RULES:
        told = ", ".join(severity.label for severity in rule.severities)
        lines.append(f"| `{rule.name}` | {rule.says} | {told} | {'yes' if rule.online else ''} |")
    return "\n".join(lines)
