"""Settings that exclude each other: each is refused when a config is read, naming both fields and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ratchet.config.curve import values_of
from ratchet.config.schedule import Schedule

if TYPE_CHECKING:
    from ratchet.config.schema import RunConfig


def refused(config: RunConfig) -> Iterator[str]:
    """Yield a sentence for each pair of settings that cannot hold together."""
    yield from _batches(config)
    yield from _loss(config)
    yield from _overlap(config)
    yield from _replay(config)
    yield from _staleness(config)
    yield from _problems(config)
    yield from _engine(config)
    yield from _adapter(config)
    yield from _cluster(config)


def _batches(config: RunConfig) -> Iterator[str]:
    explore, updates = config.explore, config.train.updates_per_batch
    if updates > config.train_prompts:
        source = "buffer.train_prompts" if config.buffer.train_prompts else "explore.prompts_per_step"
        yield (
            f"train.updates_per_batch = {updates} cannot deal {source} = {config.train_prompts} prompts into "
            f"{updates} parts: lower the first or raise the second"
        )
    if explore.temperature == 0:
        yield (
            "explore.temperature = 0 samples the same answer every time, so a group teaches nothing: "
            "set it above 0 (evaluation has its own setting)"
        )


def _loss(config: RunConfig) -> Iterator[str]:
    if any(values_of(config.algorithm.kl_coef)) and not config.train.reference_kl:
        yield (
            "algorithm.kl_coef is not 0, but train.reference_kl = false keeps no starting policy to measure the KL "
            "to: set train.reference_kl = true, or algorithm.kl_coef = 0"
        )


def _overlap(config: RunConfig) -> Iterator[str]:
    sync, overlap = config.sync, config.train.overlap
    if overlap and not sync.offset:
        yield (
            "train.overlap = true has nothing to overlap with while sync.offset = 0 makes the sampler wait for each "
            "step: set sync.offset = 1 or more, or train.overlap = false"
        )
    if sync.partial_rollouts and not overlap:
        yield (
            "sync.partial_rollouts = true needs answers in flight when weights arrive, and train.overlap = false "
            "leaves none: set train.overlap = true and sync.offset = 1 or more"
        )
    if sync.partial_rollouts and sync.offline:
        yield (
            "sync.partial_rollouts = true takes new weights at once, sync.offline = true takes none: set one of them "
            "to false"
        )


def _replay(config: RunConfig) -> Iterator[str]:
    buffer = config.buffer
    if buffer.kind == "replay":
        return
    chosen = {
        "train_prompts": buffer.train_prompts not in (0, config.explore.prompts_per_step),
        "cooldown": buffer.cooldown,
        "max_uses": buffer.max_uses not in (0, 1),
        "capacity": buffer.capacity,
        "priority": buffer.priority != "freshness",
        "reuse_penalty": buffer.reuse_penalty != 1.0,
    }
    for name, wanted in chosen.items():
        if wanted:
            yield (
                f'buffer.{name} = {getattr(buffer, name)!r} has no meaning under buffer.kind = "fifo", which trains '
                f'every group once, in its step: set buffer.kind = "replay", or leave buffer.{name} out'
            )


def _staleness(config: RunConfig) -> Iterator[str]:
    bound = config.buffer.max_staleness
    if bound < 0:
        return
    if config.data.from_run:
        yield (
            f"buffer.max_staleness = {bound} counts this run's steps, but the groups of data.from_run carry the "
            "versions of another run: leave one of them out"
        )
        return
    schedule = Schedule(config.sync)
    worst = max(schedule.staleness(k) for k in range(config.train.steps))
    if worst > bound:
        cause = (
            "sync.offline = true" if config.sync.offline else f"sync.interval with sync.offset = {config.sync.offset}"
        )
        yield (
            f"{cause} makes fresh batches up to {worst} steps stale, more than buffer.max_staleness = {bound} "
            "lets through: refresh more often, or raise the bound"
        )


def _problems(config: RunConfig) -> Iterator[str]:
    positives, source = config.positives.per_step, config.data.from_run
    for name, wanted in (("curriculum.problems", config.curriculum.problems), ("positives.per_step", positives)):
        if wanted and source:
            yield (
                f"{name} = {wanted} chooses what is trained on, but data.from_run takes what another run recorded: "
                "leave one of them out"
            )
    if positives and config.buffer.kind == "replay":
        yield (
            f'positives.per_step = {positives} trains recent successes again, and buffer.kind = "replay" trains whole '
            'groups again: set buffer.kind = "fifo", or positives.per_step = 0'
        )
    if positives and not config.record.rollouts:
        yield (
            f"positives.per_step = {positives} takes successes from the recorded rollouts, and record.rollouts = false "
            "keeps none: set it to true, or positives.per_step = 0"
        )


def _engine(config: RunConfig) -> Iterator[str]:
    engine = config.engine
    if engine.name == "sglang" and not engine.url:
        yield 'engine.name = "sglang" is reached by its HTTP API: set engine.url, "http://127.0.0.1:30000" say'
    if engine.command and not engine.url:
        yield "engine.command starts a server, and engine.url does not say where it answers: set engine.url too"
    if engine.name in ("ratchet", "transformers"):
        for name, given in (("url", engine.url), ("folder", engine.folder), ("options", engine.options)):
            if given:
                yield (
                    f'engine.{name} has no meaning for engine.name = "{engine.name}", which decodes in this process: '
                    f'set engine.name = "vllm" or "sglang", or leave engine.{name} out'
                )
    if engine.options and engine.url:
        yield (
            "engine.options are arguments of vLLM in this process, and engine.url names a server, which has its own: "
            "leave one of them out"
        )


def _adapter(config: RunConfig) -> Iterator[str]:
    lora = config.policy.lora
    if lora.rank and not config.policy.model:
        yield (
            f"policy.lora.rank = {lora.rank} needs a model to adapt, and policy.model is empty: name one, or set "
            "policy.lora.rank = 0"
        )
    if lora.rank and config.policy.decoder == "own":
        yield (
            f'policy.lora.rank = {lora.rank} trains by transformers and peft, which policy.decoder = "own" forbids: '
            'set policy.decoder = "auto"'
        )
    if not lora.rank and (lora.four_bit or lora.targets):
        yield "policy.lora.four_bit and policy.lora.targets say nothing at policy.lora.rank = 0: set a rank, 16 say"
    if config.policy.attention == "flex" and (lora.rank or config.policy.decoder == "transformers"):
        yield (
            'policy.attention = "flex" is for our own decoder, and policy.lora and policy.decoder = "transformers" '
            "take that library's: leave policy.attention out"
        )


def _cluster(config: RunConfig) -> Iterator[str]:
    cluster = config.cluster
    if cluster.shard == "full" and config.policy.lora.rank:
        yield (
            f'cluster.shard = "full" spreads the weights that are trained, and policy.lora.rank = '
            f'{config.policy.lora.rank} trains few of them: set cluster.shard = "none"'
        )
    if cluster.shard == "full" and config.train.optimiser == "adamw_8bit":
        yield (
            'cluster.shard = "full" spreads the moments, which train.optimiser = "adamw_8bit" cannot: set '
            'train.optimiser = "adamw"'
        )
    if cluster.name == "ray":
        if config.sync.partial_rollouts:
            yield (
                'cluster.name = "ray" hands weights to explorers between groups, and sync.partial_rollouts = true '
                "wants them in the middle of answers: set it to false"
            )
        if config.data.from_run:
            yield (
                'cluster.name = "ray" starts explorers, and data.from_run leaves them nothing to do: set '
                'cluster.name = "local"'
            )
        if config.engine.url or config.engine.command or config.engine.name == "sglang":
            yield (
                'cluster.name = "ray" gives each explorer an engine in its own process, and engine.url, engine.command '
                'and engine.name = "sglang" mean one server: set engine.name = "vllm" without them, or "ratchet"'
            )
        if config.environment.name in ("agents", "verifiers"):
            yield (
                'cluster.name = "ray" plays rollouts in processes of their own, and environment.name = '
                f'"{config.environment.name}" hands them out at one address: set cluster.name = "local"'
            )
    elif cluster.ranks > 1 and config.engine.name == "vllm" and not config.engine.url:
        yield (
            'engine.name = "vllm" without engine.url sets up torch.distributed for itself in the process that trains, '
            f'which cluster.ranks = {cluster.ranks} needs: set engine.url to a server, or cluster.name = "ray"'
        )
    if cluster.name == "local":
        for name in ("explorers", "environments", "address", "silence_s"):
            if getattr(cluster, name) != type(cluster).model_fields[name].default:
                yield (
                    f'cluster.{name} = {getattr(cluster, name)!r} is about Ray, and cluster.name = "local" starts '
                    f'none: set cluster.name = "ray", or leave cluster.{name} out'
                )
