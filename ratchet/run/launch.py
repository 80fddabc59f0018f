"""Starting a run and going on with one: the two functions behind ``ratchet train`` and ``ratchet resume``."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ratchet.algorithms.algorithm import Algorithm
from ratchet.config.plan import Plan
from ratchet.config.read import config_from_tree, merge, parse_override
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError, RatchetError, RunError
from ratchet.core.protocols import Environment
from ratchet.core.task import Split
from ratchet.environments.table import UsesSandbox, close_environment
from ratchet.explore.recorded import RecordedGroups
from ratchet.policy.policy import Policy
from ratchet.rewards.probe import probe, verdict
from ratchet.run.changes import Change, accept, changes
from ratchet.run.checkpoint import Checkpoint, RunState, checkpoint_path, newest_sound, read_checkpoint
from ratchet.run.control import roll_back_if_asked
from ratchet.run.finish import finish
from ratchet.run.lock import alone
from ratchet.run.loops import checkpoint, remove_old_checkpoints, run_loops
from ratchet.run.machine import describe_environment
from ratchet.run.observer import Observer, Silent
from ratchet.run.parts import (
    Models,
    Parts,
    assemble,
    buffer_name,
    buffer_table,
    check_buffer,
    choose_device,
    fresh_policy,
    frozen_copy,
    make_algorithm,
    make_environment,
    plan_for,
    teacher_of,
)
from ratchet.run.source import recorded_groups
from ratchet.run.sync import Weights, frozen
from ratchet.run.warm_start import warm_started
from ratchet.store.run_store import RunStore

PROBED_TASKS = 8
"""Tasks the reward probe asks about before the first step."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    folder: Path
    finished: bool
    """False when it was stopped before its last step."""


def train(config: RunConfig, observer: Observer | None = None) -> RunResult:
    """Run a config from its beginning to its end. Raises `ConfigError` or `RunError`."""
    observer = observer or Silent()
    set_threads(config)
    algorithm = make_algorithm(config)
    check_buffer(config)
    environment = make_environment(config)
    try:
        policy = fresh_policy(config, environment)
        plan = plan_for(config, policy, environment)
        recorded = recorded_groups(config, policy)
        teacher = teacher_of(config, algorithm, policy)
        folder = choose_folder(config)
        check_writable(folder.parent)
        probed = probe_reward(config, environment, observer)
        policy = warm_started(config, policy, observer)
        store = RunStore.create(folder, config.model_dump(mode="json"), plan.as_json(), describe_environment())
        observer.note(f"Run: {folder}")
        with alone(folder):
            models = Models(policy, frozen_copy(policy) if config.train.reference_kl else None, teacher)
            parts = _assembled(config, algorithm, store, models, plan, environment, recorded, observer)
            parts.store.append_event("reward_probe", 0, rows=probed)
            if isinstance(environment, UsesSandbox):
                parts.store.append_event("sandbox", 0, **config.sandbox.model_dump(mode="json"))
            checkpoint(parts)
            return _drive(parts)
    finally:
        close_environment(environment)


def resume(
    folder: Path, observer: Observer | None = None, *, words: Sequence[str] = (), accept_changes: bool = False
) -> RunResult:
    """Go on with a run from its newest sound checkpoint. Raises `ConfigError` or `RunError`.

    `words` are ``key=value`` settings laid over the run's config. A config that differs from the one the run went by
    so far is refused unless `accept_changes`; the changes are then an event of the run.
    """
    store = RunStore.open(folder)
    with alone(folder):
        return _resumed(store, observer or Silent(), words, accept_changes)


def _assembled(
    config: RunConfig,
    algorithm: Algorithm,
    store: RunStore,
    models: Models,
    plan: Plan,
    environment: Environment,
    recorded: RecordedGroups | None,
    observer: Observer,
) -> Parts:
    """Return the parts of a run that begins."""
    policy = models.policy
    fingerprint = policy.fingerprint()
    name = buffer_name(config, store)
    state = RunState(0, 0, fingerprint, buffer=name, asked=config.model_dump(mode="json"))
    table = buffer_table(config, store, policy, name, create=True)
    parts = assemble(config, algorithm, store, models, plan, environment, state, table, recorded, observer)
    parts.fingerprints[0] = fingerprint
    parts.sync.offer(frozen(policy.weights(), 0, fingerprint))
    store.append_event("start", 0, parameters=plan.parameters, fingerprint=fingerprint)
    return parts


def _resumed(store: RunStore, observer: Observer, words: Sequence[str], accept_changes: bool) -> RunResult:
    """Go on with a run that nobody else works on."""
    folder, tree = store.folder, store.config_tree()
    for word in words:
        tree = merge(tree, parse_override(word))
    config = config_from_tree(tree)
    set_threads(config)
    if (step := roll_back_if_asked(store, keep=config.record.keep_checkpoints)) is not None:
        observer.note(f"Rolled back to step {step}, as asked; newer checkpoints are put aside.")
    path, complaints = newest_sound(folder / "checkpoints")
    saved = read_checkpoint(path)
    found = changes(saved.state.asked, config.model_dump(mode="json"))
    accept(found, accepted=accept_changes, resume=shlex.join(["ratchet", "resume", str(folder), *words]))
    for complaint in complaints:
        observer.note(complaint)
        store.append_event("damaged_checkpoint", -1, what=complaint)
    if saved.state.step >= config.train.steps and _has_ended(store):
        observer.note(f"{folder} is finished: all {config.train.steps} steps are done.")
        return RunResult(folder, finished=True)
    environment = make_environment(config)
    try:
        return _drive(_reassembled(config, store, saved, found, environment, observer))
    finally:
        close_environment(environment)


def _has_ended(store: RunStore) -> bool:
    """Return whether a run was finished to the last file: a kill may have come between."""
    finished = any(event["kind"] == "finished" for event in store.events())
    return finished and store.status().get("state") == "finished" and (store.folder / "report.md").is_file()


def _reassembled(
    config: RunConfig,
    store: RunStore,
    saved: Checkpoint,
    found: Sequence[Change],
    environment: Environment,
    observer: Observer,
) -> Parts:
    """Return the parts of a run as they stood at a checkpoint; from here on it goes by `config`."""
    device, dtype = choose_device(config), config.policy.dtype
    algorithm = make_algorithm(config)
    policy = Policy.load(saved.folder, device=device, dtype=dtype)
    if policy.fingerprint() != saved.state.fingerprint:
        raise RunError(
            f"{saved.folder}: the weights are not those of its state.json. Remove this folder and resume again."
        )
    first = Policy.load(checkpoint_path(saved.folder.parent, 0), device=device, dtype=dtype)
    reference = first.decoder.requires_grad_(False) if config.train.reference_kl else None
    models = Models(policy, reference, teacher_of(config, algorithm, policy))
    recorded = recorded_groups(config, policy)
    plan = plan_for(config, policy, environment)
    state = replace(saved.state, asked=config.model_dump(mode="json"))
    table = buffer_table(config, store, policy, config.buffer.name or state.buffer, create=False)
    if found:
        store.replace_config(config.model_dump(mode="json"), plan.as_json(), step=state.step)
        store.append_event("config_changed", state.step, changes=[c._asdict() for c in found])
        observer.note(f"Changed, and recorded: {'; '.join(map(str, found))}")
    known = {int(version): made for version, made in state.fingerprints.items()}
    kept = table.rewind(state.step, known, past=config.buffer.kind == "replay")
    parts = assemble(config, algorithm, store, models, plan, environment, state, table, recorded, observer)
    parts.trainer.restore(saved.optimiser)
    parts.fingerprints |= known
    parts.sync.offer(frozen(policy.weights(), state.version, state.fingerprint))
    for version, tensors in saved.samplers.items():
        parts.fingerprints[version] = state.samplers[str(version)]
        on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
        parts.sync.offer(Weights(on_device, version, state.samplers[str(version)]))
    remove_old_checkpoints(parts)  # a kill may have come between a checkpoint and this
    facts = {"checkpoint": saved.folder.name, "groups_kept": kept, "environment": describe_environment()}
    store.append_event("resume", state.step, **facts)
    observer.note(f"Resuming {store.folder} at step {state.step} of {config.train.steps}")
    if config.sync.partial_rollouts:
        observer.note("sync.partial_rollouts: what follows depends on timing and will not repeat bit for bit.")
    return parts


def set_threads(config: RunConfig) -> None:
    """Give torch the threads the config asks for."""
    torch.set_num_threads(config.run.threads or os.cpu_count() or 1)


def choose_folder(config: RunConfig) -> Path:
    """Return the run's folder: as named, or the study's name and the next free number."""
    base = Path(config.run.folder)
    if config.run.name:
        folder = base / config.run.name
        if folder.exists():
            raise ConfigError(
                f"There is a run at {folder} already. Choose another run.name, or go on with it: "
                f"ratchet resume {folder}"
            )
        return folder
    stem = config.run.study or config.environment.name.rpartition(":")[2]
    taken = [p.name.rpartition("-")[2] for p in base.glob(f"{stem}-*")] if base.is_dir() else []
    return base / f"{stem}-{1 + max((int(t) for t in taken if t.isdigit()), default=0):03d}"


def check_writable(folder: Path) -> None:
    """Raise `ConfigError` before anything is computed if run folders cannot be made there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / f".ratchet-{os.getpid()}"
        mark.touch()
        mark.unlink()
    except OSError as error:
        raise ConfigError(
            f'run.folder = "{folder}" cannot be written: {error.strerror}. Set run.folder to a folder that can.'
        ) from None


def probe_reward(config: RunConfig, environment: Environment, observer: Observer) -> list[dict[str, Any]]:
    """Ask the reward about gold and junk before the first step; unpaid gold is an error, paid junk a note."""
    split = Split("train", config.run.seed)
    tasks = [environment.task(split, i) for i in range(min(PROBED_TASKS, environment.num_tasks(split) or PROBED_TASKS))]
    rows = asyncio.run(probe(environment, tasks))
    findings = verdict(rows)
    for finding in findings:
        if finding.level == "error":
            raise ConfigError(f"Reward probe: {finding.text}")
        observer.note(f"Reward probe: {finding.text}")
    return [asdict(row) for row in rows]


def _drive(parts: Parts) -> RunResult:
    """Run the loops with signals turned into a clean stop; record how it ended."""
    store, started = parts.store, time.perf_counter()
    gc.collect()
    gc.freeze()  # what was made so far lives as long as the run; not looking through it again saves a few percent
    try:
        ended = asyncio.run(_until_stopped(parts))
    except BaseException as error:  # recorded for the one who looks later, then handed on
        kind = "failed" if isinstance(error, RatchetError) else "crashed"
        _record_end(parts, kind, {"error": str(error) or type(error).__name__, "trace": traceback.format_exc(limit=-6)})
        if isinstance(error, RunError):
            finish(store, parts.observer)
        raise
    if ended:
        _record_end(parts, "finished", {"seconds": round(time.perf_counter() - started, 3)})
        finish(store, parts.observer)
    else:
        _record_end(parts, "stopped", {"resume": f"ratchet resume {store.folder}"})
        finish(store, parts.observer)
        parts.observer.note(f"Stopped with {parts.state.step} steps done. Go on with: ratchet resume {store.folder}")
    return RunResult(store.folder, ended)


async def _until_stopped(parts: Parts) -> bool:
    """Run the loops; the first SIGINT or SIGTERM asks for a clean stop, the second ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def ask(number: int) -> None:
        parts.observer.note(f"{signal.Signals(number).name}: finishing this step, then stopping")
        stop.set()
        loop.remove_signal_handler(number)

    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, ask, number)
            handled.append(number)
        except (RuntimeError, ValueError, NotImplementedError):  # not the main thread: the program's own business
            break
    try:
        return await run_loops(parts, stop)
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
        await parts.frozen.close()
        parts.engine.close()
        parts.buffer.close()
        if parts.thread is not None:
            parts.thread.shutdown()


def _record_end(parts: Parts, kind: str, facts: Mapping[str, Any]) -> None:
    try:
        parts.store.append_event(kind, parts.state.step, **facts)
        parts.store.write_status({"state": kind, "step": parts.state.step, "steps": parts.config.train.steps, **facts})
    except RunError as error:  # the disk itself is the trouble; the first error is the one to show
        parts.observer.note(str(error))
