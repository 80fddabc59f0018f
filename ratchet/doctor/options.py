"""What a setting is called in each framework, so that a remedy can name it. Data, and one function.

Names follow the frameworks' documentation of 2025 and 2026; where a name changed, the newer one stands first.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from ratchet.doctor.evidence import Evidence


class Option(StrEnum):
    """A setting that most frameworks have."""

    LR = "learning rate"
    KL = "KL coefficient"
    CLIP = "clip range"
    LENGTH = "most new tokens"
    TEMPERATURE = "sampling temperature"
    UPDATES = "updates per batch"
    SYNC = "steps between weight refreshes"
    STALE = "bound on staleness"
    GRAD = "gradient clip"
    ENTROPY = "entropy bonus"
    FILTER = "filter of groups without signal"
    GROUP = "samples per prompt"
    CORRECTION = "importance correction"
    SAVE = "steps between checkpoints"
    WEIGHTS = "weights of the reward's parts"
    LENGTH_TERM = "length term of the reward"


O = Option  # noqa: E741
NAMES: Mapping[str, Mapping[Option, str]] = {
    "ratchet": {
        O.LR: "algorithm.lr", O.KL: "algorithm.kl_coef", O.CLIP: "algorithm.clip_low, algorithm.clip_high",
        O.LENGTH: "explore.max_tokens", O.TEMPERATURE: "explore.temperature", O.UPDATES: "train.updates_per_batch",
        O.SYNC: "sync.interval", O.STALE: "buffer.max_staleness", O.GRAD: "train.grad_clip",
        O.ENTROPY: "algorithm.entropy_coef", O.GROUP: "explore.samples_per_prompt",
        O.CORRECTION: "algorithm.correction", O.SAVE: "record.checkpoint_every", O.WEIGHTS: "reward.weights",
        O.LENGTH_TERM: "reward.length", O.FILTER: "curriculum.problems",
    },
    "trl": {
        O.LR: "learning_rate", O.KL: "beta", O.CLIP: "epsilon, epsilon_high", O.LENGTH: "max_completion_length",
        O.TEMPERATURE: "temperature", O.UPDATES: "num_iterations, steps_per_generation", O.GRAD: "max_grad_norm",
        O.GROUP: "num_generations", O.CORRECTION: "vllm_importance_sampling_correction", O.SAVE: "save_steps",
        O.WEIGHTS: "reward_weights", O.LENGTH_TERM: "get_soft_overlong_punishment among reward_funcs",
    },
    "verl": {
        O.LR: "actor_rollout_ref.actor.optim.lr", O.KL: "actor_rollout_ref.actor.kl_loss_coef (with use_kl_loss)",
        O.CLIP: "actor_rollout_ref.actor.clip_ratio_low, clip_ratio_high", O.LENGTH: "data.max_response_length",
        O.TEMPERATURE: "actor_rollout_ref.rollout.temperature",
        O.UPDATES: "actor_rollout_ref.actor.ppo_epochs, ppo_mini_batch_size",
        O.SYNC: "async_training.trigger_parameter_sync_step", O.STALE: "async_training.staleness_threshold",
        O.GRAD: "actor_rollout_ref.actor.grad_clip", O.ENTROPY: "actor_rollout_ref.actor.entropy_coeff",
        O.FILTER: "algorithm.filter_groups.enable", O.GROUP: "actor_rollout_ref.rollout.n",
        O.CORRECTION: "algorithm.rollout_correction", O.SAVE: "trainer.save_freq",
        O.LENGTH_TERM: "reward_model.overlong_buffer.enable",
    },
    "openrlhf": {
        O.LR: "--actor.adam.lr (before: --actor_learning_rate)", O.KL: "--init_kl_coef",
        O.CLIP: "--eps_clip_low_high", O.LENGTH: "--generate_max_len", O.TEMPERATURE: "--temperature",
        O.UPDATES: "--max_epochs, --train_batch_size", O.GRAD: "--max_norm", O.ENTROPY: "--entropy_loss_coef",
        O.FILTER: "--dynamic_filtering", O.GROUP: "--n_samples_per_prompt",
        O.CORRECTION: "--enable_vllm_is_correction", O.SAVE: "--save_steps", O.LENGTH_TERM: "--overlong_buffer_len",
    },
    "trinity": {
        O.LR: "algorithm.optimizer.lr", O.KL: "algorithm.kl_loss_fn_args.kl_coef",
        O.CLIP: "algorithm.policy_loss_fn_args.clip_range", O.LENGTH: "model.max_response_tokens",
        O.TEMPERATURE: "rollout_args.temperature of the task set", O.SYNC: "synchronizer.sync_interval",
        O.STALE: "synchronizer.sync_offset", O.GRAD: "trainer.grad_clip", O.GROUP: "algorithm.repeat_times",
        O.ENTROPY: "algorithm.entropy_loss_fn_args.entropy_coef", O.SAVE: "trainer.save_interval",
    },
    "areal": {
        O.LR: "actor.optimizer.lr", O.KL: "actor.kl_ctl", O.CLIP: "actor.eps_clip, actor.eps_clip_higher",
        O.LENGTH: "gconfig.max_new_tokens", O.TEMPERATURE: "gconfig.temperature", O.UPDATES: "actor.ppo_n_minibatches",
        O.STALE: "rollout.max_head_offpolicyness", O.GRAD: "actor.optimizer.gradient_clipping",
        O.FILTER: "dynamic_sampling", O.GROUP: "gconfig.n_samples", O.CORRECTION: "actor.use_decoupled_loss",
        O.SAVE: "saver.freq_steps", O.LENGTH_TERM: "actor.overlong_reward_penalty",
    },
    "slime": {
        O.LR: "--lr", O.KL: "--kl-loss-coef", O.CLIP: "--eps-clip, --eps-clip-high",
        O.LENGTH: "--rollout-max-response-len", O.TEMPERATURE: "--rollout-temperature",
        O.UPDATES: "--num-steps-per-rollout", O.SYNC: "--update-weights-interval", O.GRAD: "--clip-grad",
        O.ENTROPY: "--entropy-coef", O.FILTER: "--dynamic-sampling-filter-path", O.GROUP: "--n-samples-per-prompt",
        O.CORRECTION: "--use-tis", O.SAVE: "--save-interval",
    },
    "prime_rl": {
        O.LR: "trainer.optim.lr", O.LENGTH: "orchestrator.sampling.max_tokens", O.GRAD: "trainer.optim.max_norm",
        O.TEMPERATURE: "orchestrator.sampling.temperature", O.STALE: "orchestrator.max_off_policy_steps",
        O.SYNC: "max_async_level", O.GROUP: "orchestrator.rollouts_per_example", O.SAVE: "ckpt.interval",
    },
    "skyrl": {
        O.LR: "trainer.policy.optimizer_config.lr", O.KL: "trainer.algorithm.kl_loss_coef",
        O.CLIP: "trainer.algorithm.eps_clip_low, eps_clip_high",
        O.LENGTH: "generator.sampling_params.max_generate_length",
        O.TEMPERATURE: "generator.sampling_params.temperature", O.UPDATES: "trainer.update_epochs_per_batch",
        O.STALE: "trainer.fully_async.max_staleness_steps", O.GRAD: "trainer.policy.optimizer_config.max_grad_norm",
        O.FILTER: "trainer.algorithm.dynamic_sampling.type", O.GROUP: "generator.n_samples_per_prompt",
        O.CORRECTION: "trainer.algorithm.use_tis", O.SAVE: "trainer.ckpt_interval",
    },
    "nemo_rl": {
        O.LR: "policy.optimizer.kwargs.lr", O.KL: "loss_fn.reference_policy_kl_penalty",
        O.CLIP: "loss_fn.ratio_clip_min, ratio_clip_max", O.LENGTH: "policy.generation.max_new_tokens",
        O.TEMPERATURE: "policy.generation.temperature", O.STALE: "grpo.async_grpo.max_trajectory_age_steps",
        O.GRAD: "policy.max_grad_norm", O.FILTER: "grpo.use_dynamic_sampling",
        O.GROUP: "grpo.num_generations_per_prompt", O.CORRECTION: "loss_fn.use_importance_sampling_correction",
        O.SAVE: "checkpointing.save_period",
    },
    "roll": {
        O.LR: "actor_train.training_args.learning_rate", O.KL: "kl_loss_coef", O.CLIP: "pg_clip",
        O.LENGTH: "response_length", O.TEMPERATURE: "actor_infer.generating_args.temperature",
        O.UPDATES: "ppo_epochs", O.STALE: "async_generation_ratio", O.GRAD: "max_grad_norm",
        O.ENTROPY: "entropy_loss_coef", O.GROUP: "num_return_sequences_in_group", O.SAVE: "save_steps",
    },
    "tinker": {
        O.LR: "learning_rate", O.KL: "kl_penalty_coef", O.LENGTH: "max_tokens", O.TEMPERATURE: "temperature",
        O.UPDATES: "num_substeps", O.STALE: "async_config.max_steps_off_policy", O.GROUP: "group_size",
        O.FILTER: "remove_constant_reward_groups", O.SAVE: "save_every",
    },
    "art": {O.LR: "learning_rate of TrainConfig", O.KL: "beta of TrainConfig"},
    "torchforge": {O.LR: "trainer.optimizer.lr", O.GROUP: "group_size", O.LENGTH: "max_res_tokens"},
}  # fmt: skip
"""Framework -> option -> its name there."""


def change(evidence: Evidence, what: str, *options: Option) -> str:
    """Return a remedy with the names of its options, and for a run of ours what they are set to now."""
    known = NAMES.get(evidence.framework, {})
    names = [known[option] for option in options if option in known]
    if not names:
        return f"{what} ({', '.join(options)})." if options else f"{what}."
    now = [f"{key} is {value}" for name in names for key in name.split(", ")
           if (value := evidence.setting(key)) is not None]  # fmt: skip
    told = f" ({'; '.join(now)})" if now else ""
    return f"{what}: {', '.join(names)}{told}."
