"""What is derived from a config: the numbers people otherwise compute by hand, and get wrong. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ratchet.config.schedule import Schedule
from ratchet.config.schema import RunConfig
from ratchet.core.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Plan:
    """Derived once, before a run starts; never written again."""

    parameters: int
    trained_parameters: int
    """Weights that are trained: all, or an adapter's."""
    context_tokens: int
    """Most tokens of prompt and answer together."""
    prompts_per_step: int
    samples_per_prompt: int
    samples_per_step: int
    updates_per_batch: int
    samples_per_update: float
    steps: int
    total_samples: int
    total_updates: int
    prompt_tokens: int
    """Length of a typical prompt, measured on the first tasks."""
    max_generated_tokens_per_step: int
    max_trained_tokens_per_step: int
    weights_bytes: int
    optimiser_bytes: int
    gradients_bytes: int
    beside_bytes: int
    """Critic (weights, gradients, moments) and teacher, where the algorithm has them."""
    engine_weights_bytes: int
    cache_bytes: int
    """Key-value cache of a full set of rows at full length."""
    logits_bytes: int
    activations_bytes: int
    """What the largest pass keeps for its backward pass, at least."""
    generate_flops_per_step: int
    """At full length: an upper bound."""
    train_flops_per_step: int
    """At full length: an upper bound."""
    sync_points: tuple[int, ...]
    """Steps at which the sampler gets new weights; the first hundred."""
    staleness_max: int
    staleness_mean: float

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)

    @property
    def memory_bytes(self) -> int:
        """What the run holds in memory at its worst, as far as it can be known."""
        return (
            self.weights_bytes
            + self.optimiser_bytes
            + self.gradients_bytes
            + self.beside_bytes
            + self.engine_weights_bytes
            + self.cache_bytes
            + self.logits_bytes
            + self.activations_bytes
        )


def make_plan(
    config: RunConfig, shape: ModelShape, prompt_tokens: int, *, critic: bool = False, trained: int = 0
) -> Plan:
    """Return the plan of a config for a model of this shape and prompts of this length.

    A critic, and a teacher where the config names one, are counted as large as the policy. `trained` is how many
    weights are trained; 0 means all.
    """
    trained = trained or shape.num_parameters
    explore, train = config.explore, config.train
    samples = explore.prompts_per_step * explore.samples_per_prompt
    trained_samples = config.train_prompts * explore.samples_per_prompt
    context = min(config.policy.context or shape.context, shape.context)
    answer = max(0, min(explore.max_tokens, context - prompt_tokens))
    updates = train.updates_per_batch
    schedule = Schedule(config.sync)
    versions = [schedule.version_for(k) for k in range(train.steps)]
    stale = [k - version for k, version in enumerate(versions)]
    rows = min(samples, config.engine.max_rows)
    prompt_pairs = explore.prompts_per_step * prompt_tokens * (prompt_tokens + 1) // 2
    answer_pairs = samples * (answer * prompt_tokens + answer * (answer + 1) // 2)
    tokens = explore.prompts_per_step * prompt_tokens + samples * answer
    forward = shape.forward_flops(tokens, prompt_pairs + answer_pairs, samples * answer)
    corrected = config.algorithm.correction != "none"
    passes = 3 + train.reference_kl + bool(config.policy.teacher) + corrected + 4 * critic
    train_flops = passes * forward * config.train_prompts // explore.prompts_per_step
    width = 4 if config.policy.dtype == "float32" else 2
    adapted = bool(config.policy.lora.rank)  # its frozen weights have no master copy, and are their own reference
    held = (0.6 if config.policy.lora.four_bit else width) if adapted else 4 * (1 + train.reference_kl)
    return Plan(
        parameters=shape.num_parameters,
        trained_parameters=trained,
        context_tokens=context,
        prompts_per_step=explore.prompts_per_step,
        samples_per_prompt=explore.samples_per_prompt,
        samples_per_step=samples,
        updates_per_batch=updates,
        samples_per_update=trained_samples / updates,
        steps=train.steps,
        total_samples=samples * train.steps,
        total_updates=updates * train.steps,
        prompt_tokens=prompt_tokens,
        max_generated_tokens_per_step=samples * answer,
        max_trained_tokens_per_step=trained_samples * answer,
        weights_bytes=int(shape.num_parameters * held) + (trained * 4 if adapted else 0),
        optimiser_bytes=trained * (8 if train.optimiser == "adamw" else 2),
        gradients_bytes=trained * 4,
        beside_bytes=shape.num_parameters * 4 * (4 * critic + bool(config.policy.teacher)),
        engine_weights_bytes=shape.num_parameters * width,
        cache_bytes=rows * (prompt_tokens + answer) * shape.kv_floats_per_token * width,
        logits_bytes=min(train.max_logits, train.micro_batch_tokens * shape.vocab) * 4 * 3,
        activations_bytes=_activations(config, shape, max(train.micro_batch_tokens, prompt_tokens + answer)),
        generate_flops_per_step=forward,
        train_flops_per_step=train_flops,
        sync_points=tuple(k for k in range(train.steps) if not k or versions[k] != versions[k - 1])[:100],
        staleness_max=max(stale),
        staleness_mean=sum(stale) / len(stale),
    )


def _activations(config: RunConfig, shape: ModelShape, tokens: int) -> int:
    """Return the bytes a pass of so many tokens keeps for its backward pass: what each layer's products read.

    Per token and layer: both norms' inputs and outputs, queries, keys and values, the attention's result, gate and up,
    and their product. Attention's own scores are not counted, for no kernel of ours keeps them.
    """
    wide = (shape.query_heads + 2 * shape.key_heads) * shape.head_size
    layer = 4 * shape.hidden + wide + shape.query_heads * shape.head_size + 3 * shape.intermediate
    if config.train.gradient_checkpointing:
        return 4 * tokens * (shape.layers * shape.hidden + layer)
    return 4 * tokens * shape.layers * layer
