"""Entries for how the run goes: counts, costs, time, memory, evaluation."""

from __future__ import annotations

from ratchet.core.metric.entry import Better, Metric

COUNTS = (
    Metric(
        "rollouts/asked",
        "Attempts the step asked for.",
        "prompts_per_step * samples_per_prompt",
        "rollouts",
        "constant",
    ),
    Metric(
        "rollouts/scored",
        "Attempts that got a score.",
        "rollouts with status ok",
        "rollouts",
        "equal to rollouts/asked; the rest is in drop/*",
        better=Better.HIGHER,
    ),
    Metric(
        "rollouts/step",
        "Attempts the step's costs were counted over.",
        "number of rollouts in the batch",
        "rollouts",
        "equal to rollouts/asked",
    ),
    Metric(
        "rollouts/total", "Attempts since the run began.", "running sum of rollouts/step", "rollouts", "grows evenly"
    ),
    Metric(
        "drop/*",
        "Attempts that got no score, by reason (prompt_too_long, reward_timeout, reward_error, ...).",
        "number of rollouts with this status",
        "rollouts",
        "absent; the run stops above explore.max_failed_share",
        "0 is never written: a reason is listed only on steps where it occurs",
        Better.LOWER,
    ),
    Metric(
        "ledger/*",
        "Where each attempt went: trained, group_too_small, in_buffer (not chosen yet), stale, or a reason to drop it; "
        "adds up to rollouts/asked.",
        "number of rollouts with this fate",
        "rollouts",
        "ledger/trained equals rollouts/asked",
    ),
    Metric(
        "ledger_tokens/*",
        "Where each sampled token went: trained, or the reason its attempt was left out; adds up to tokens/generated.",
        "sum of sampled tokens over the rollouts with this fate",
        "tokens",
        "ledger_tokens/trained equals tokens/generated",
    ),
    Metric(
        "ledger_prompts/*",
        "Where each prompt went: trained if any of its attempts was, else the commonest reason; adds up to the step's "
        "prompts.",
        "number of groups with this fate",
        "prompts",
        "ledger_prompts/trained equals explore.prompts_per_step",
    ),
    Metric(
        "tokens/generated", "Tokens the policy sampled.", "sum over all rollouts", "tokens", "follows len/response/mean"
    ),
    Metric(
        "tokens/prompt",
        "Tokens of first prompts, counted once per attempt.",
        "sum over all rollouts",
        "tokens",
        "constant",
    ),
    Metric(
        "tokens/trained",
        "Tokens that entered the loss.",
        "sum over kept samples",
        "tokens",
        "equal to tokens/generated when nothing is dropped",
    ),
    Metric(
        "tokens/forward",
        "Tokens that ran through the model in training; a prompt shared by a group runs once.",
        "sum over packed batches",
        "tokens",
        "above tokens/trained by the prompts",
    ),
    Metric(
        "agents/spawned",
        "Frozen agents that were given a task in the step.",
        "number of trajectories that are not trained on",
        "agents",
        "as many as the orchestrator chooses",
        "0 means that it delegates nothing: serial collapse, if it stays so",
    ),
    Metric(
        "tokens/agents",
        "Tokens that frozen agents sampled; observations to the policy, never trained on.",
        "sum over frozen trajectories of sampled tokens",
        "tokens",
        "follows the number of agents",
    ),
    Metric(
        "ledger_agents/*",
        "Frozen agents by how the environment says that they ended; they add up to agents/spawned.",
        "number of frozen trajectories with this outcome",
        "agents",
        "nearly all finished",
    ),
    Metric(
        "prefix/breaks",
        "Turns that do not begin with the tokens of the turns before: they are trained on as samples of their own.",
        "number of turns whose prompt is not the last prompt and answer with something behind",
        "turns",
        "0: what was sampled is never written anew",
        "0 is normal here: every turn extends the one before",
        Better.LOWER,
    ),
    Metric(
        "flops/generate/*",
        "Arithmetic of generation, of this step or since the run began (total).",
        "from the tokens that really ran and the model's shape",
        "FLOP",
        "follows the length",
    ),
    Metric(
        "flops/agents/*",
        "Arithmetic of the frozen agents, with the shape of their own model; 0 for a server's.",
        "from the tokens that really ran and the model's shape",
        "FLOP",
        "follows the number of agents",
    ),
    Metric(
        "flops/curriculum/*",
        "Arithmetic of the attempts that decided which problems are trained on.",
        "forward FLOPs of every token that ran through the model, attention included",
        "FLOP",
        "only at steps before which problems were tried",
    ),
    Metric(
        "rollouts/tried/*",
        "Attempts that decided which problems are trained on; they are not trained on themselves.",
        "number of attempts",
        "rollouts",
        "problems tried * curriculum.attempts",
    ),
    Metric(
        "flops/train/*",
        "Arithmetic of training, of this step or since the run began (total).",
        "every forward and backward pass that was run, those of reference, teacher and critic too; backward counts "
        "twice the forward, and the logits are made once more there",
        "FLOP",
        "follows the length",
    ),
)

TIME = (
    Metric(
        "time/step",
        "Wall-clock time of the step.",
        "time/explore + time/train",
        "s",
        "follows the length",
        better=Better.LOWER,
    ),
    Metric(
        "time/explore",
        "Time the trainer waited for the step's groups: generation and rewards, where they are not overlapped.",
        "wall-clock",
        "s",
        "most of the step for long answers",
        "0 is normal here with sync.offset above 0, because the groups may be ready before they are needed",
    ),
    Metric(
        "time/train",
        "Time from the last group's arrival to new weights, recording included.",
        "wall-clock",
        "s",
        "steady",
    ),
    Metric(
        "time/*",
        "Time of a part of the training step (forward, backward, optimiser).",
        "wall-clock, summed over micro-batches",
        "s",
        "steady; together below time/train",
    ),
    Metric(
        "seconds/total",
        "Time since the run began, without pauses between a stop and a resume.",
        "running sum of time/step",
        "s",
        "grows evenly",
    ),
    Metric(
        "wait/*",
        "Time one part of the run waited for another, named <who>_for_<what>, since the row before.",
        "wall-clock inside the wait",
        "s",
        "explorer_for_* while training, trainer_for_groups while generating; the two may overlap",
        "0 is normal here with sync.offset above 0, because the parts overlap and need not wait",
    ),
    Metric(
        "loggers/failed",
        "Failures of the loggers in log.to since the run began or went on; written only if there are any loggers.",
        "calls of a logger that raised",
        "failures",
        "0; the reasons are in the events logger_failed",
        "0 means that every logger got everything",
        Better.LOWER,
    ),
    Metric(
        "mem/rss_bytes",
        "Memory the process holds.",
        "resident set size at the end of the step",
        "bytes",
        "level after the first steps; a steady rise is a leak",
        "0 means that the system does not say",
    ),
)

EVALUATION = (
    Metric(
        "eval/*/reward_mean",
        "Mean reward on held-out tasks; a failed attempt counts as 0.",
        "sum of score.value / attempts asked",
        "",
        "near reward/mean; far below it the policy has memorised",
        better=Better.HIGHER,
    ),
    Metric(
        "eval/*/part_*",
        "Mean of one component of the reward on held-out tasks; a failed attempt counts as 0.",
        "sum of score.parts[name] / (scored attempts that have it + failed attempts)",
        "",
        "near reward/parts/<name>",
        better=Better.HIGHER,
    ),
    Metric(
        "eval/*/env_*",
        "A number the environment reports, on held-out tasks.",
        "mean over the attempts that report it",
        "",
        "near env/<name>",
    ),
    Metric(
        "eval/*/pass@*",
        "Chance that one of k attempts at a held-out task is right; with _low and _high its 95 % interval.",
        "mean over tasks of 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374, equation 1)",
        "share",
        "pass@1 near reward/parts/accuracy; differences inside the interval mean nothing",
        better=Better.HIGHER,
    ),
    Metric(
        "eval/*/response_length",
        "Mean length of answers to held-out tasks.",
        "sampled tokens / attempts asked",
        "tokens",
        "near len/response/mean",
    ),
    Metric(
        "eval/*/failed",
        "Held-out attempts without a score.",
        "number of attempts",
        "rollouts",
        "0",
        "0 means that nothing failed",
        Better.LOWER,
    ),
    Metric("eval/*", "Size of an evaluation (tasks, samples).", "count", "", "constant"),
)
