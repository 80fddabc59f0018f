"""The parts of a run, made from its config and wired together here and nowhere else."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.table import build_algorithm
from ratchet.buffer.buffer import Buffer
from ratchet.buffer.database import Database
from ratchet.buffer.groups import GroupTable
from ratchet.buffer.priority import priority_from
from ratchet.cluster.cluster import Cluster
from ratchet.config.plan import Plan, make_plan
from ratchet.config.schedule import Schedule
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Engine, Environment
from ratchet.core.task import Split
from ratchet.engines.build import engine_for, engine_here
from ratchet.environments.table import UsesSandbox, build_environment
from ratchet.explore.recorded import RecordedGroups
from ratchet.loggers.logger import About
from ratchet.loggers.table import Loggers, Named
from ratchet.policy.policy import Policy
from ratchet.run.changes import settings_of
from ratchet.run.checkpoint import RunState, checkpoint_path
from ratchet.run.control import Control
from ratchet.run.curriculum import Curriculum, check_problems
from ratchet.run.far import FarGroups
from ratchet.run.frozen import Frozen
from ratchet.run.guard import Guard
from ratchet.run.observer import Observer
from ratchet.run.policies import Models
from ratchet.run.positives import Positives, check_positives
from ratchet.run.ranks import Ranks
from ratchet.run.source import Source, explorer_of, sampling_of
from ratchet.run.sync import MemorySync
from ratchet.run.waiting import Waits
from ratchet.run.watching import Watching
from ratchet.store.run_store import RunStore
from ratchet.train.team import ALONE, Team
from ratchet.train.trainer import Trainer


@dataclass(slots=True)
class Parts:
    """Everything the two loops use. The only mutable fields are the last two."""

    config: RunConfig
    plan: Plan
    store: RunStore
    environment: Environment
    policy: Policy
    engine: Engine
    frozen: Frozen
    source: Source
    far: FarGroups | None
    """The source, where explorers live in other processes."""
    buffer: Buffer
    trainer: Trainer
    curriculum: Curriculum
    positives: Positives
    schedule: Schedule
    sync: MemorySync
    guard: Guard
    waits: Waits
    control: Control
    observer: Observer
    ranks: Ranks
    loggers: Loggers
    engine_use: asyncio.Lock
    """Held by whoever samples: exploration and evaluation want different weights."""
    training: asyncio.Lock
    """Held while a step is trained and recorded: a stop waits for it."""
    thread: ThreadPoolExecutor | None
    """Where steps are trained if the sampler works on meanwhile."""
    state: RunState
    """Where the run stands; replaced at the end of each step."""
    fingerprints: dict[int, str] = field(default_factory=dict)
    """Version -> fingerprint of the weights the trainer produced."""


def set_threads(config: RunConfig, beside: int = 1) -> None:
    """Give torch the threads the config asks for; the ranks on one machine, `beside` of them, share its cores."""
    torch.set_num_threads(config.run.threads or max(1, (os.cpu_count() or 1) // beside))


def make_environment(config: RunConfig) -> Environment:
    """Return the environment the config names; one that runs code the policy wrote knows its sandbox."""
    environment = build_environment(config.environment.name, config.environment.options)
    if isinstance(environment, UsesSandbox):
        environment.use_sandbox(config.sandbox)
    return environment


def plan_for(config: RunConfig, policy: Policy, environment: Environment) -> Plan:
    """Return the plan of a run, with the prompt length measured on the first tasks.

    Raises `ConfigError` for an empty environment or prompts that never fit.
    """
    split = Split("train", config.run.seed)
    size = environment.num_tasks(split)
    if size == 0:
        raise ConfigError(f'The environment "{environment.name}" has no tasks in its "{split.name}" split.')
    check_problems(config.curriculum, size)
    count = min(32, size or 32)
    lengths = sorted(len(policy.tokenizer.chat(environment.task(split, i).prompt)) for i in range(count))
    critic = make_algorithm(config).critic is not None
    plan = make_plan(config, policy.shape, lengths[len(lengths) // 2], critic=critic, trained=policy.num_trained)
    if lengths[0] >= plan.context_tokens:
        raise ConfigError(
            f"Even the shortest of the first {count} prompts has {lengths[0]} tokens, but the context holds "
            f"{plan.context_tokens}. Raise policy.context, or use a model made for longer texts."
        )
    return plan


def assemble(
    config: RunConfig,
    algorithm: Algorithm,
    store: RunStore,
    models: Models,
    plan: Plan,
    environment: Environment,
    state: RunState,
    table: GroupTable,
    recorded: RecordedGroups | None,
    watching: Watching,
) -> Parts:
    """Return the parts of a run, wired. `table` stands where `state` stands; `recorded` takes the explorer's place."""
    policy = models.policy
    engine = _engine(config, policy, plan, store, watching.observer)
    schedule = Schedule(config.sync)
    wanted = frozenset(schedule.version_for(k) for k in range(config.train.steps))
    explore, seed = config.explore, config.run.seed
    curriculum = Curriculum(config.curriculum, store, prompts_per_step=explore.prompts_per_step, seed=seed)
    curriculum.restore(state.step)
    frozen = Frozen(config, checkpoint_path(store.folder / "checkpoints", 0), policy.device)
    mine = explorer_of(config, environment, engine, policy, plan, frozen, task_at=curriculum.task_at)
    sync = MemorySync(engine, wanted, at_once=config.sync.partial_rollouts)
    far = _far_groups(watching.cluster, store, plan, curriculum, sync, lambda: parts, config)
    parts: Parts = Parts(
        config=config,
        plan=plan,
        store=store,
        environment=environment,
        policy=policy,
        engine=engine,
        frozen=frozen,
        source=recorded or far or mine,
        far=far,
        buffer=Buffer(
            table,
            config.buffer,
            prompts_per_step=explore.prompts_per_step,
            train_prompts=config.train_prompts,
            ahead=config.sync.offset,
            done=state.step,
        ),
        trainer=make_trainer(config, algorithm, models, watching.ranks.team(config)),
        curriculum=curriculum,
        positives=Positives(config.positives, store, seed=seed, step=state.step),
        schedule=schedule,
        sync=sync,
        guard=Guard(config, store, schedule, watching.diagnose, watching.observer, step=state.step),
        waits=Waits(lambda: None),
        control=Control(config, store),
        observer=watching.observer,
        ranks=watching.ranks,
        engine_use=asyncio.Lock(),
        training=asyncio.Lock(),
        thread=_trainer_thread() if config.train.overlap else None,
        state=state,
        loggers=watching.running or _loggers(config, store, watching.loggers),
    )
    parts.waits = Waits(lambda: _tell(parts))
    return parts


def _engine(config: RunConfig, policy: Policy, plan: Plan, store: RunStore, observer: Observer) -> Engine:
    """Return the engine the config names; what becomes of one that lives elsewhere is told, and an event.

    Where explorers have engines of their own, this one only evaluates, and lives beside the trainer: the own decoder.
    """
    if config.cluster.name == "ray":
        return engine_here(config.engine, policy, context=plan.context_tokens)

    def note(text: str) -> None:
        observer.note(text)
        store.append_event("engine", -1, what=text)

    sampling = sampling_of(config)
    return engine_for(config.engine, policy, context=plan.context_tokens, sampling=sampling, note=note)


def _far_groups(
    cluster: Cluster,
    store: RunStore,
    plan: Plan,
    curriculum: Curriculum,
    sync: MemorySync,
    parts: Callable[[], Parts],
    config: RunConfig,
) -> FarGroups | None:
    if config.cluster.name != "ray":
        return None
    from ratchet.run.far_explorer import far_groups  # what it starts is made of these parts, in other processes

    step, tell = (lambda: parts().state.step), (lambda: _tell(parts()))
    return far_groups(config, cluster, store, plan, curriculum, sync, step, tell)


def _loggers(config: RunConfig, store: RunStore, made: Sequence[Named]) -> Loggers:
    folder = store.folder.resolve()
    about = About(folder.name, folder, config.run.study, settings_of(config.model_dump(mode="json")))
    return Loggers(made, store, about, finish_s=config.log.finish_s)


def make_trainer(config: RunConfig, algorithm: Algorithm, models: Models, team: Team = ALONE) -> Trainer:
    """Return the trainer of one rank."""
    return Trainer(
        models.policy,
        algorithm,
        config.algorithm,
        config.train,
        seed=config.run.seed,
        temperature=config.explore.temperature,
        reference=models.reference,
        teacher=models.teacher,
        reward=config.reward,
        foreign=bool(config.data.from_run),
        team=team,
        by_token=config.record.rollouts,
    )


OWN_BUFFER = "groups"
"""Name of the buffer in a run's own file."""


def buffer_name(config: RunConfig, store: RunStore) -> str:
    """Return what a new run's buffer is called: as asked, or in a shared database after the run's folder."""
    return config.buffer.name or (store.folder.resolve().name if config.buffer.url else OWN_BUFFER)


def buffer_table(config: RunConfig, store: RunStore, policy: Policy, name: str, *, create: bool) -> GroupTable:
    """Return the table behind the run's buffer. Raises `ConfigError` if it cannot be made, found or used."""
    url = config.buffer.url or f"sqlite:///{store.folder.resolve() / 'buffer.sqlite'}"
    return GroupTable.open(url, name, tokenizer=policy.tokenizer.fingerprint, create=create)


def check_buffer(config: RunConfig) -> None:
    """Raise `ConfigError` before anything long for a priority or a database that cannot be used."""
    priority_from(config.buffer)
    if config.buffer.url:
        Database.connect(config.buffer.url, create=True).close()


def make_algorithm(config: RunConfig) -> Algorithm:
    """Return the algorithm the config names.

    Raises `ConfigError` for an unknown name or option, groups too small for its baseline, or terms it cannot have.
    """
    algorithm = build_algorithm(config.algorithm.name, config.algorithm.options)
    need, have = algorithm.min_group, config.explore.samples_per_prompt
    if have < need:
        raise ConfigError(
            f'algorithm.name = "{config.algorithm.name}" compares at least {need} samples of a prompt, but '
            f"explore.samples_per_prompt = {have}. Raise it to {need} or more."
        )
    check_positives(config.positives, config.algorithm.name, algorithm)
    for key in ("correction", "sampler_kl_coef"):
        value = getattr(config.algorithm, key)
        if not algorithm.sampled and value not in ("none", 0):
            raise ConfigError(
                f"algorithm.{key} = {value!r} compares with the sampling policy, but algorithm.name = "
                f'"{config.algorithm.name}" does not use what was sampled. Leave algorithm.{key} out.'
            )
    return algorithm


def _trainer_thread() -> ThreadPoolExecutor:
    """Return one thread that computes with as many threads as this one does: their number decides rounding."""
    return ThreadPoolExecutor(
        1, thread_name_prefix="trainer", initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    )


def _tell(parts: Parts) -> None:
    now = parts.waits.now()
    parts.store.write_status(
        {
            "state": "running",
            "step": parts.state.step,
            "steps": parts.config.train.steps,
            "waiting": now,
            "actors": [*parts.ranks.doing(), *([] if parts.far is None else parts.far.doing())],
            "pid": os.getpid(),
            "time": time.time(),
        }
    )
    parts.observer.waiting(now)
