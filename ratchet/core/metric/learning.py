"""Entries for what is learned: reward, length, signal, loss, agreement of sampler and trainer, optimiser."""

from __future__ import annotations

from ratchet.core.metric.entry import Better, Metric

REWARD = (
    Metric(
        "reward/mean",
        "Mean reward of the step's scored rollouts, before any penalty.",
        "mean of score.value over rollouts with status ok",
        "",
        "rises, then levels off; a sudden drop late in a run is a collapse: see the parts",
        better=Better.HIGHER,
    ),
    Metric(
        "reward/std",
        "Spread of the reward over all scored rollouts of the step.",
        "population standard deviation of score.value",
        "",
        "falls as the policy grows sure",
        "0 means that every rollout earned the same: there is nothing to learn from in this step",
    ),
    Metric("reward/min", "Smallest reward of the step.", "min of score.value", "", "the scale's lower end early on"),
    Metric("reward/max", "Largest reward of the step.", "max of score.value", "", "the scale's upper end early on"),
    Metric(
        "reward/parts/*",
        "Mean of one named component of the reward, logged apart so that a fall shows which one fell.",
        "mean of score.parts[name] over the scored rollouts that have it",
        "",
        "as the reward function defines it",
        better=Better.HIGHER,
    ),
    Metric(
        "reward/trained/mean",
        "Mean of what was trained on, where `[reward]` makes something else of the score.",
        "mean over usable rollouts of the weighted parts plus the term on length, after Toggle",
        "",
        "moves with the weights as well as with the policy: look at reward/mean for progress",
    ),
    Metric(
        "reward/toggle/limited",
        "Whether Toggle limits length in this step.",
        "1 in every second phase, else 0",
        "",
        "0 and 1 in turns of reward.toggle_period steps",
        "0 is normal here in every second phase",
    ),
    Metric(
        "reward/toggle/lost_frac",
        "Share of attempts that lost their reward for being longer than their problem's budget.",
        "attempts whose reward Toggle set to 0 / usable attempts",
        "share",
        "falls as right answers become shorter",
        "0 is normal here in every second phase",
    ),
    Metric(
        "reward/toggle/budgets",
        "Problems that have a budget: those that were solved at least once.",
        "number of problems",
        "problems",
        "grows as problems are solved for the first time",
    ),
    Metric(
        "env/*",
        "A number the environment reports beside the reward.",
        "mean over the scored rollouts that report it",
        "",
        "as the environment defines it",
    ),
)

LENGTH = (
    Metric(
        "len/response/mean",
        "Mean length of an answer: all tokens the policy sampled in a rollout, over all its turns.",
        "mean of sampled tokens per scored rollout",
        "tokens",
        "may rise (more reasoning) or fall (less padding); a jump with falling reward is a warning",
    ),
    Metric(
        "len/response/min",
        "Shortest answer of the step.",
        "min of sampled tokens per scored rollout",
        "tokens",
        "1 is an empty answer",
    ),
    Metric(
        "len/response/max",
        "Longest answer of the step.",
        "max of sampled tokens per scored rollout",
        "tokens",
        "at most explore.max_tokens per turn",
    ),
    Metric(
        "len/truncated_frac",
        "Share of rollouts in which a turn hit its token limit.",
        "scored rollouts with a truncated turn / scored rollouts",
        "share",
        "below 5 %; above that the limit decides what is learned: raise explore.max_tokens",
        "0 means that every answer ended by itself",
        Better.LOWER,
    ),
)

SIGNAL = (
    Metric(
        "signal/group_std",
        "Mean spread of the reward inside a group: how much there is to compare.",
        "mean over groups of the population standard deviation of score.value",
        "",
        "largest at a success rate of one half; falls as tasks become always solved or never solved",
        "0 means that all attempts at each task earned the same: a group-relative method has no gradient",
    ),
    Metric(
        "signal/zero_groups_frac",
        "Share of groups that teach nothing, because every token's coefficient is 0.",
        "groups without a token with advantage * coefficient != 0 / groups trained on",
        "share",
        "rises as tasks become easy; near 1 the step is wasted: use harder tasks",
        "0 means that every group had both better and worse attempts",
        Better.LOWER,
    ),
    Metric(
        "signal/token_advantage",
        "Mean advantage over trained tokens.",
        "mean over kept tokens of the advantage of their sample",
        "",
        "about 0; below 0 the worse answers are the longer ones, and a steady fall precedes instability",
        "0 is normal here because a group's advantages sum to 0 over samples, and answers are of like length",
    ),
)

LOSS = (
    Metric(
        "loss/policy",
        "The number whose gradient is taken, penalties included; it does not measure progress.",
        "mean over updates of sum(coefficient * token loss) + kl_coef * KL - entropy_coef * entropy",
        "",
        "about 0, either sign; look at reward/mean to see whether it learns",
        "0 is normal here because on fresh data every ratio is 1 and a group's advantages sum to 0: the value "
        "vanishes, its gradient does not",
    ),
    Metric(
        "loss/token_nll",
        "Mean negative log-probability of the demonstrated tokens (supervised training only).",
        "- mean over tokens of log pi(token)",
        "nats",
        "falls towards the entropy of the demonstrations",
        better=Better.LOWER,
    ),
    Metric(
        "entropy",
        "How undecided the policy is per token, at the sampling temperature.",
        "mean over trained tokens of -sum_v pi(v) log pi(v), exact over the vocabulary",
        "nats",
        "falls slowly; a fast fall to about 0 ends exploration, a rise with falling reward is a collapse",
    ),
    Metric(
        "kl/ref",
        "How far the policy has gone from the one the run started with; measured even where the loss ignores it.",
        "mean over trained tokens of KL(pi || pi_start): exact over the vocabulary, or the estimate algorithm.kl names",
        "nats",
        "grows slowly from 0; below about 0.1 it is close to its start, and an accelerating rise is a warning",
        "0 is normal here at step 0, because the policy is still the one it started as",
    ),
    Metric(
        "kl/old",
        "How far the policy has moved from the weights that sampled the data, while it trains on it.",
        "mean over trained tokens of algorithm.sampler_kl; k3: exp(d) - d - 1, d = log pi - log pi_sampler",
        "nats",
        "below 0.01; grows with stale samplers and several updates per batch",
        "0 is normal here because with fresh data and one update per batch the policy is still the one that sampled",
    ),
    Metric(
        "clip/frac",
        "Share of tokens whose gradient the algorithm's clip or mask removes.",
        "clip/low + clip/high",
        "share",
        "0 to 0.2; rising means stale data or too large a step",
        "0 is normal here because with fresh data and one update per batch every ratio is 1, inside any clip range",
    ),
    Metric(
        "clip/low",
        "Share of tokens removed because the ratio fell below its lower bound.",
        "mean over trained tokens of [ratio < 1 - clip_low and the token is to become rarer]",
        "share",
        "0 to 0.1",
        "0 is normal here for the reason given at clip/frac",
    ),
    Metric(
        "clip/high",
        "Share of tokens removed because the ratio rose above its upper bound.",
        "mean over trained tokens of [ratio > 1 + clip_high and the token is to become likelier]",
        "share",
        "0 to 0.1",
        "0 is normal here for the reason given at clip/frac",
    ),
)

AGREEMENT = (
    Metric(
        "kl/sampler",
        "Disagreement of sampler and trainer about the same weights; recorded only where they do hold the same.",
        "k3 as in kl/old, on steps with fresh data and one update",
        "nats",
        "below 1e-6 in float32, below 1e-3 in bfloat16; more means a setting reaches one side only",
        "0 is normal here because both sides should compute the same",
        Better.LOWER,
    ),
    Metric(
        "sampler/logp_diff_max",
        "Largest difference between the sampler's and the trainer's log-probability of one token, same weights.",
        "max over trained tokens of |log pi - log pi_sampler|, on steps with fresh data and one update",
        "nats",
        "below 1e-4 in float32, below 0.25 in bfloat16",
        better=Better.LOWER,
    ),
    Metric(
        "sampler/logp_diff_mean",
        "Mean difference between the sampler's and the trainer's log-probability of a token, same weights.",
        "mean over trained tokens of |log pi - log pi_sampler|, on steps with fresh data and one update",
        "nats",
        "below 1e-5 in float32, below 0.05 in bfloat16",
        better=Better.LOWER,
    ),
    Metric(
        "gate/logp_diff_max",
        "The same difference, measured before the first step; above its tolerance the run does not start.",
        "max over tokens of |log pi - log pi_sampler| at step 0",
        "nats",
        "below 1e-4 in float32, below 0.25 in bfloat16",
        better=Better.LOWER,
    ),
    Metric(
        "gate/logp_diff_mean",
        "Mean difference between sampler and trainer before the first step.",
        "mean over tokens of |log pi - log pi_sampler| at step 0",
        "nats",
        "below 1e-5 in float32, below 0.05 in bfloat16",
        better=Better.LOWER,
    ),
    Metric(
        "stale/mean",
        "How many training steps the sampler's weights are behind, on average over samples.",
        "mean over samples of step - version",
        "steps",
        "follows from sync.interval and sync.offset: between refreshes it climbs one per step",
        "0 is normal here because a sampler refreshed every step holds the newest weights",
    ),
    Metric(
        "stale/max",
        "How far behind the oldest sample is.",
        "max over samples of step - version",
        "steps",
        "at most sync.interval - 1 + sync.offset",
        "0 is normal here for the reason given at stale/mean",
    ),
)

OPTIMISER = (
    Metric(
        "opt/grad_norm",
        "Length of the gradient before clipping; of several updates the longest.",
        "max over updates of the L2 norm over all weights",
        "",
        "steady; spikes above train.grad_clip are scaled down, a steady rise precedes instability",
        "0 means that no group of the step had anything to compare",
    ),
    Metric(
        "opt/lr",
        "Learning rate of the step.",
        "algorithm.lr at this step",
        "",
        "as configured",
        "0 means that a decay has come to its end",
    ),
    Metric(
        "opt/updates",
        "Optimiser steps made.",
        "train.updates_per_batch, or the number of usable groups if fewer",
        "updates",
        "train.updates_per_batch",
    ),
)
