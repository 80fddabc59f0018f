"""The plan of a config in words."""

from __future__ import annotations

from ratchet.cli.preview import lengths, preview
from ratchet.cli.view import duration
from ratchet.config.curve import at
from ratchet.config.plan import Plan
from ratchet.config.schedule import Schedule
from ratchet.config.schema import RunConfig
from ratchet.core.task import Split
from ratchet.environments.table import UsesSandbox, close_environment
from ratchet.kernels.native import available, why_not
from ratchet.loggers.table import make_loggers
from ratchet.policy.policy import Policy
from ratchet.policy.template import prefix_breaks
from ratchet.run.model import computed_by
from ratchet.run.parts import make_algorithm, make_environment, plan_for
from ratchet.run.policies import choose_device, fresh_policy
from ratchet.run.warm_start import cache_folder, warm_start_key
from ratchet.sandbox.choose import open_box


def explanation(config: RunConfig) -> str:
    """Return what a run of this config would do, as text. Builds the environment and the fresh policy."""
    make_algorithm(config)
    environment = make_environment(config)
    try:
        policy = fresh_policy(config, environment)
        plan = plan_for(config, policy, environment)
        size = environment.num_tasks(Split("train", config.run.seed))
        cached = (cache_folder(config) / warm_start_key(config, policy)).is_dir() if config.warm_start.steps else False
        lines = [
            f"Policy: {config.policy.model or 'a tiny model made from nothing'}, {policy.shape.family}, "
            f"{_count(plan.parameters)} weights, context {plan.context_tokens:,} tokens, products in "
            f"{config.policy.dtype}, on {choose_device(config)}, {computed_by(policy)}{_kernels(policy)}.",
            _adapter(config, plan),
            *map(str, prefix_breaks(policy.tokenizer)),
            f"Environment: {environment.name}, {'tasks without end' if size is None else f'{size:,} tasks'}; a typical "
            f"prompt has {plan.prompt_tokens:,} tokens.",
            lengths(environment, policy.tokenizer, plan.context_tokens, config.run.seed),
            _warm_start(config, cached),
            _batch(config, plan),
            _method(config),
            _staleness(config, plan),
            _data(config),
            _sandbox(config) if isinstance(environment, UsesSandbox) else "",
            _tokens(plan),
            _memory(plan),
            _compute(plan),
            "Waiting: the explorer waits for training before it samples a step"
            + (f" more than {config.sync.offset} ahead" if config.sync.offset else "")
            + ", and for weights at each refresh; the trainer waits for whole groups. Each attempt is dropped after "
            f"{duration(config.explore.rollout_timeout_s)}; a reward in its own process is killed at the environment's "
            "own limit. Both are counted.",
            _record(config, plan),
            _told(config),
            preview(environment, config.run.seed),
        ]
        return "\n".join(line for line in lines if line)
    finally:
        close_environment(environment)


def _kernels(policy: Policy) -> str:
    """Say which arithmetic our own decoder uses."""
    if policy.origin.hosted or policy.device.type != "cpu":
        return ""
    return ", with native kernels" if available() else f", in plain torch: {why_not()}"


def _adapter(config: RunConfig, plan: Plan) -> str:
    lora = config.policy.lora
    if not lora.rank:
        return ""
    share = plan.trained_parameters / plan.parameters
    return (
        f"Adapter: rank {lora.rank}, {_count(plan.trained_parameters)} weights ({share:.2%}) are trained, the "
        f"others are frozen{' in four bits' if lora.four_bit else ''}; checkpoints hold the "
        "adapter alone, ratchet export merges it."
    )


def _sandbox(config: RunConfig) -> str:
    """Say what holds the code that the policy writes. Raises `ConfigError` where nothing can."""
    box = open_box(config.sandbox)
    try:
        held = ", ".join(box.layers) or "nothing but limits (sandbox.allow_unsafe)"
    finally:
        box.close()
    return f"Sandbox: code that the policy writes is held by {held}; a check takes {config.sandbox.wall_s:g} s at most."


def _data(config: RunConfig) -> str:
    """Say where groups come from and which of them a step trains on."""
    buffer, said = config.buffer, []
    if config.data.from_run:
        said.append(f"the groups recorded in {config.data.from_run} take the sampler's place")
    if buffer.kind == "replay":
        limits = [
            f"{config.train_prompts} groups of highest {buffer.priority} per step, "
            f"{config.explore.prompts_per_step} of them new",
            f"{buffer.reuse_penalty:g} off for each use",
            f"at rest for {buffer.cooldown} steps after one" if buffer.cooldown else "",
            f"used {buffer.max_uses} times at most" if buffer.max_uses else "",
            f"{buffer.capacity:,} kept at most" if buffer.capacity else "",
        ]
        said.append("replay of " + ", ".join(part for part in limits if part))
    if buffer.max_staleness >= 0:
        said.append(f"groups more than {buffer.max_staleness} steps behind are dropped and counted")
    if config.train.overlap:
        said.append("steps are trained in a thread while the sampler works ahead")
    if config.sync.partial_rollouts:
        said.append("new weights are loaded in the middle of answers, so that the run will not repeat bit for bit")
    return f"Data: {'; '.join(said)}." if said else ""


def _warm_start(config: RunConfig, cached: bool) -> str:
    warm = config.warm_start
    if not warm.steps:
        return "Warm start: none."
    return f"Warm start: {warm.steps:,} updates of {warm.batch} demonstrations, " + (
        "already done: it is in the cache." if cached else "then kept in the cache."
    )


def _batch(config: RunConfig, plan: Plan) -> str:
    return (
        f"Each of {plan.steps:,} steps: {plan.prompts_per_step:,} prompts x {plan.samples_per_prompt} samples = "
        f"{plan.samples_per_step:,} attempts, trained in {plan.updates_per_batch} update(s) of "
        f"{plan.samples_per_update:,.0f} samples; {plan.total_samples:,} attempts and {plan.total_updates:,} updates "
        "in all."
    )


def _method(config: RunConfig) -> str:
    method = config.algorithm
    options = "".join(f", {name} {value}" for name, value in method.options.items())
    bounded = {"truncate": "truncated at", "mask": f"masked outside {method.correction_low:g} to"}
    correction = (
        ""
        if method.correction == "none"
        else f"; {method.correction} importance weights, {bounded[method.correction_mode]} {method.correction_high:g}"
    )
    return (
        f"Method: {method.name}{options}; learning rate {at(method.lr, 0):.3g} at the start, "
        f"{at(method.lr, config.train.steps - 1):.3g} at the end; KL weight {at(method.kl_coef, 0):g}, sampler KL "
        f"weight {at(method.sampler_kl_coef, 0):g}, entropy weight {at(method.entropy_coef, 0):g}{correction}."
    )


def _staleness(config: RunConfig, plan: Plan) -> str:
    schedule = Schedule(config.sync)
    if plan.staleness_max == 0:
        return "Staleness: 0 at every step: the sampler gets the newest weights before each step."
    shown = ", ".join(str(schedule.staleness(k)) for k in range(min(plan.steps, 24)))
    return (
        f"Staleness: at most {plan.staleness_max} steps, {plan.staleness_mean:.2f} on average; steps 0, 1, ...: {shown}"
        f"{', ...' if plan.steps > 24 else ''}. Fresh weights at steps {', '.join(map(str, plan.sync_points[:12]))}"
        f"{', ...' if len(plan.sync_points) > 12 else ''}."
    )


def _tokens(plan: Plan) -> str:
    return f"Tokens: at most {plan.max_generated_tokens_per_step:,} generated and trained per step."


def _memory(plan: Plan) -> str:
    parts = [
        ("weights (with the reference)", plan.weights_bytes),
        ("gradients", plan.gradients_bytes),
        ("optimiser", plan.optimiser_bytes),
        ("critic and teacher", plan.beside_bytes),
        ("engine weights", plan.engine_weights_bytes),
        ("key-value cache at full length", plan.cache_bytes),
        ("logits", plan.logits_bytes),
        ("activations at least", plan.activations_bytes),
    ]
    told = ", ".join(f"{name} {_bytes(size)}" for name, size in parts if size)
    return f"Memory: about {_bytes(plan.memory_bytes)} besides torch itself: {told}."


def _compute(plan: Plan) -> str:
    step = plan.generate_flops_per_step + plan.train_flops_per_step
    return (
        f"Compute: at most {step / 1e9:,.1f} GFLOP per step ({plan.generate_flops_per_step / 1e9:,.1f} to generate, "
        f"{plan.train_flops_per_step / 1e9:,.1f} to train), {step * plan.steps / 1e12:,.2f} TFLOP in all."
    )


def _record(config: RunConfig, plan: Plan) -> str:
    record, evaluation = config.record, config.eval
    tested = (
        f"{evaluation.tasks:,} held-out tasks "
        + (f"every {evaluation.every} steps and at the end" if evaluation.every else "at the end")
        if evaluation.tasks
        else "none"
    )
    return (
        f"Kept: a checkpoint every {record.checkpoint_every} steps (the newest {record.keep_checkpoints}, the first "
        f"and the best), {'every rollout' if record.rollouts else 'no rollouts'}. Evaluation: {tested}."
    )


def _told(config: RunConfig) -> str:
    """Say who else is told of the run. Raises `ConfigError` where a library or a login is missing."""
    make_loggers(config.log)
    return f"Loggers: {', '.join(config.log.to)}, fed from the run's own files." if config.log.to else ""


def _count(number: int) -> str:
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.3g} {unit}"
        number /= 1024
    raise AssertionError("unreachable")
