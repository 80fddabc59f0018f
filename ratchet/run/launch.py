"""Starting a run and going on with one: the two functions behind ``ratchet train`` and ``ratchet resume``."""

from __future__ import annotations

import asyncio
import shlex
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ratchet.algorithms.algorithm import Algorithm
from ratchet.config.plan import Plan
from ratchet.config.read import config_from_tree, merge, parse_override
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError, RatchetError, RunError
from ratchet.core.protocols import Environment
from ratchet.core.task import Split
from ratchet.engines.build import check_engine, check_server
from ratchet.environments.table import UsesSandbox, close_environment
from ratchet.explore.recorded import RecordedGroups
from ratchet.loggers.table import make_loggers
from ratchet.rewards.probe import probe, verdict
from ratchet.run import garbage
from ratchet.run.alarms import online_alarms
from ratchet.run.changes import Change, accept, changes
from ratchet.run.checkpoint import Checkpoint, RunState, checkpoint_path, newest_sound, read_checkpoint
from ratchet.run.control import done, past_requests
from ratchet.run.endpoint import open_endpoint
from ratchet.run.finish import finish
from ratchet.run.folder import check_writable, choose_folder
from ratchet.run.follow import follow
from ratchet.run.guard import Decision, Diagnose, Halt, TurnBack
from ratchet.run.hosts import Hosts, hosted
from ratchet.run.lock import alone
from ratchet.run.loops import checkpoint, remove_old_checkpoints, run_loops, tell_loggers
from ratchet.run.machine import describe_environment
from ratchet.run.model import rehearse, tell_model
from ratchet.run.observer import Observer, Silent
from ratchet.run.parts import (
    Parts,
    assemble,
    buffer_name,
    buffer_table,
    check_buffer,
    make_algorithm,
    make_environment,
    plan_for,
    set_threads,
)
from ratchet.run.policies import (
    Models,
    check_critic,
    choose_device,
    fresh_policy,
    saved_policy,
    starting_policy,
    teacher_of,
)
from ratchet.run.ranks import Begin
from ratchet.run.source import recorded_groups, sampling_of
from ratchet.run.sync import Weights, frozen
from ratchet.run.turning import clear_away, declare, pending
from ratchet.run.warm_start import warm_started
from ratchet.run.watching import Watching
from ratchet.store.run_store import Row, RunStore

PROBED_TASKS = 8
"""Tasks the reward probe asks about before the first step."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    folder: Path
    finished: bool
    """False when it was stopped before its last step."""


def train(config: RunConfig, observer: Observer | None = None, *, diagnose: Diagnose = online_alarms) -> RunResult:
    """Run a config from its beginning to its end. Raises `ConfigError` or `RunError`.

    `diagnose` is what the guard goes by, if the config enables it: the doctor's online rules, or others. A process that
    torchrun started as rank 1 or later trains along with rank 0, and returns when the run ends.
    """
    observer = observer or Silent()
    with hosted(config, observer) as hosts:
        if hosts.ranks.rank:
            follow(hosts.ranks)
            return RunResult(Path(config.run.folder), finished=True)
        return _begun(config, observer, diagnose, hosts)


def _begun(config: RunConfig, observer: Observer, diagnose: Diagnose, hosts: Hosts) -> RunResult:
    """Run a config from its beginning, as rank 0."""
    ranks = hosts.ranks
    set_threads(config, ranks.beside)
    algorithm = make_algorithm(config)
    check_buffer(config)
    check_engine(config.engine, sampling_of(config))
    watching = Watching(observer, diagnose, make_loggers(config.log), *hosts)
    environment = make_environment(config)
    try:
        policy = fresh_policy(config, environment)
        check_critic(config, algorithm, policy)
        plan = plan_for(config, policy, environment)
        check_server(config.engine, policy, context=plan.context_tokens, sampling=sampling_of(config))
        recorded = recorded_groups(config, policy)
        teacher = teacher_of(config, algorithm, policy)
        folder = choose_folder(config)
        check_writable(folder.parent)
        open_endpoint(config, environment, policy.tokenizer, observer)
        probed = probe_reward(config, environment, observer)
        policy = warm_started(config, policy, observer)
        store = RunStore.create(folder, config.model_dump(mode="json"), plan.as_json(), describe_environment())
        observer.note(f"Run: {folder}")
        with alone(folder):
            models = Models(policy, policy.frozen() if config.train.reference_kl else None, teacher)
            parts = _assembled(config, algorithm, store, models, plan, environment, recorded, watching)
            parts.store.append_event("reward_probe", 0, rows=probed)
            if isinstance(environment, UsesSandbox):
                parts.store.append_event("sandbox", 0, **config.sandbox.model_dump(mode="json"))
            ranks.tell(Begin(config, checkpoint(parts).resolve()))
            tell_model(parts)
            rehearse(parts)
            return _drive(parts, watching)
    finally:
        close_environment(environment)


def resume(
    folder: Path,
    observer: Observer | None = None,
    *,
    words: Sequence[str] = (),
    accept_changes: bool = False,
    diagnose: Diagnose = online_alarms,
) -> RunResult:
    """Go on with a run from its newest sound checkpoint. Raises `ConfigError` or `RunError`.

    `words` are ``key=value`` settings laid over the run's config. A config that differs from the one the run went by
    so far is refused unless `accept_changes`; the changes are then an event of the run.
    """
    store = RunStore.open(folder)
    observer = observer or Silent()
    with hosted(_changed(store.config_tree(), words), observer) as hosts:
        if hosts.ranks.rank:
            follow(hosts.ranks)
            return RunResult(folder, finished=True)
        with alone(folder):
            return _resumed(store, Watching(observer, diagnose, (), *hosts), words, accept_changes)


def _changed(tree: Mapping[str, Any], words: Sequence[str]) -> RunConfig:
    """Return a run's config with ``key=value`` settings laid over it."""
    for word in words:
        tree = merge(tree, parse_override(word))
    return config_from_tree(tree)


def _assembled(
    config: RunConfig,
    algorithm: Algorithm,
    store: RunStore,
    models: Models,
    plan: Plan,
    environment: Environment,
    recorded: RecordedGroups | None,
    watching: Watching,
) -> Parts:
    """Return the parts of a run that begins."""
    policy = models.policy
    fingerprint = policy.fingerprint()
    name = buffer_name(config, store)
    state = RunState(0, 0, fingerprint, buffer=name, asked=config.model_dump(mode="json"))
    table = buffer_table(config, store, policy, name, create=True)
    parts = assemble(config, algorithm, store, models, plan, environment, state, table, recorded, watching)
    parts.fingerprints[0] = fingerprint
    parts.sync.offer(frozen(policy.weights(), 0, fingerprint))
    store.append_event("start", 0, parameters=plan.parameters, fingerprint=fingerprint)
    return parts


def _resumed(store: RunStore, watching: Watching, words: Sequence[str], accept_changes: bool) -> RunResult:
    """Go on with a run that nobody else works on."""
    folder, observer = store.folder, watching.observer
    turn = _pending_turn(store)
    config = _changed(store.config_tree() if turn is None else clear_away(store, turn), words)
    set_threads(config, watching.ranks.beside)
    path, complaints = newest_sound(folder / "checkpoints")
    saved = read_checkpoint(path)
    found = changes(saved.state.asked, config.model_dump(mode="json"))
    if turn is None or words:  # what the guard has decided, or a person has asked for, needs no further word
        accept(found, accepted=accept_changes, resume=shlex.join(["ratchet", "resume", str(folder), *words]))
    for complaint in complaints:
        observer.note(complaint)
        store.append_event("damaged_checkpoint", -1, what=complaint)
    if saved.state.step >= config.train.steps and _has_ended(store):
        observer.note(f"{folder} is finished: all {config.train.steps} steps are done.")
        return RunResult(folder, finished=True)
    watching = replace(watching, loggers=make_loggers(config.log))
    environment = make_environment(config)
    try:
        parts = _reassembled(config, store, saved, found, environment, watching, turn)
        rehearse(parts)
        return _drive(parts, watching)
    finally:
        close_environment(environment)


def _pending_turn(store: RunStore) -> Row | None:
    """Return the rollback that is to be done, or to be ended, before the run goes on."""
    if (asked := past_requests(config_from_tree(store.config_tree()), store)) is not None:
        declare(store, done(store), asked)
    return pending(store)


def _turned_back(parts: Parts, turn: TurnBack, watching: Watching) -> Parts:
    """Return the parts of a run that goes on from an earlier checkpoint, with what the guard changes."""
    store = parts.store
    declare(store, parts.state.step, turn)
    row = pending(store)
    assert row is not None
    config = config_from_tree(clear_away(store, row))
    saved = read_checkpoint(checkpoint_path(store.folder / "checkpoints", turn.to))
    found = changes(saved.state.asked, config.model_dump(mode="json"))
    # Whoever follows the run's files goes on following them.
    watching = replace(watching, running=parts.loggers)
    return _reassembled(config, store, saved, found, parts.environment, watching, row)


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
    watching: Watching,
    turn: Row | None = None,
) -> Parts:
    """Return the parts of a run as they stood at a checkpoint; from here on it goes by `config`.

    `turn` is the rollback that brings the run there, if one does.
    """
    observer = watching.observer
    device, algorithm = choose_device(config), make_algorithm(config)
    policy = saved_policy(config, saved.folder)
    if policy.fingerprint() != saved.state.fingerprint:
        raise RunError(
            f"{saved.folder}: the weights are not those of its state.json. Remove this folder and resume again."
        )
    models = Models(policy, starting_policy(config, policy, saved.folder.parent), teacher_of(config, algorithm, policy))
    recorded = recorded_groups(config, policy)
    plan = plan_for(config, policy, environment)
    open_endpoint(config, environment, policy.tokenizer, observer)
    state = replace(saved.state, asked=config.model_dump(mode="json"))
    table = buffer_table(config, store, policy, config.buffer.name or state.buffer, create=False)
    known = {int(version): made for version, made in state.fingerprints.items()}
    kept = table.rewind(state.step, known, past=config.buffer.kind == "replay", ahead=turn is None)
    parts = assemble(config, algorithm, store, models, plan, environment, state, table, recorded, watching)
    if found:  # only now: settings that nothing can be made of leave the run as it was
        store.replace_config(config.model_dump(mode="json"), plan.as_json(), step=state.step)
        store.append_event("config_changed", state.step, changes=[c._asdict() for c in found])
        observer.note(f"Changed, and recorded: {'; '.join(map(str, found))}")
    moments = turn is None or not turn.get("fresh_optimiser")
    parts.trainer.restore(saved.optimiser, moments=moments)
    parts.ranks.tell(Begin(config, saved.folder.resolve(), moments))
    parts.fingerprints |= known
    parts.sync.offer(frozen(policy.weights(), state.version, state.fingerprint))
    for version, tensors in saved.samplers.items():
        parts.fingerprints[version] = state.samplers[str(version)]
        on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
        parts.sync.offer(Weights(on_device, version, state.samplers[str(version)]))
    remove_old_checkpoints(parts)  # a kill may have come between a checkpoint and this
    facts = {"checkpoint": saved.folder.name, "groups_kept": kept}
    if turn is not None:
        checkpoint(parts)  # it holds the changed config, so that a run killed before the next one goes on with it
        store.append_event("turned_back", state.step, **facts)
        what = f": {turn['what']}" if turn.get("what") else ", and nothing is changed"
        observer.note(f"Turned back from step {turn['step']} to step {state.step}{what}")
    else:
        store.append_event("resume", state.step, **facts, environment=describe_environment())
        observer.note(f"Resuming {store.folder} at step {state.step} of {config.train.steps}")
    if config.sync.partial_rollouts:
        observer.note("sync.partial_rollouts: what follows depends on timing and will not repeat bit for bit.")
    return parts


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


def _drive(parts: Parts, watching: Watching) -> RunResult:
    """Run the loops, again after each rollback, with signals turned into a clean stop; record how it ended."""
    store, started = parts.store, time.perf_counter()
    try:
        with garbage.seldom():
            ended = asyncio.run(_until_stopped(parts))
            while isinstance(ended, TurnBack):
                parts = _turned_back(parts, ended, watching)
                garbage.set_aside()  # the parts of the past can go
                ended = asyncio.run(_until_stopped(parts))
    except BaseException as error:  # recorded for the one who looks later, then handed on
        kind = "failed" if isinstance(error, RatchetError) else "crashed"
        _end_loggers(parts, finished=False)
        _record_end(parts, kind, {"error": str(error) or type(error).__name__, "trace": traceback.format_exc(limit=-6)})
        if isinstance(error, RunError):
            finish(store, parts.observer)
        raise
    _end_loggers(parts, finished=ended is True)
    resume_word = f"ratchet resume {store.folder}"
    if isinstance(ended, Halt):
        _record_end(parts, ended.kind, {"reason": ended.reason, "resume": resume_word})
        finish(store, parts.observer)
        if ended.kind == "stopped_by_guard":
            raise RunError(f"The guard stopped the run after step {parts.state.step - 1}: {ended.reason}")
        parts.observer.note(f"Paused with {parts.state.step} steps done. Go on with: {resume_word}")
    elif ended:
        _record_end(parts, "finished", {"seconds": round(time.perf_counter() - started, 3)})
        finish(store, parts.observer)
    else:
        _record_end(parts, "stopped", {"resume": resume_word})
        finish(store, parts.observer)
        parts.observer.note(f"Stopped with {parts.state.step} steps done. Go on with: {resume_word}")
    return RunResult(store.folder, ended is True)


async def _until_stopped(parts: Parts) -> Decision | bool:
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
        if parts.far is not None:
            await parts.far.close()
        await parts.frozen.close()
        parts.engine.close()
        parts.buffer.close()
        if parts.thread is not None:
            parts.thread.shutdown()


def _end_loggers(parts: Parts, *, finished: bool) -> None:
    """Let the loggers catch up with what is on disk, and record what became of them."""
    parts.loggers.end(finished=finished)
    try:
        tell_loggers(parts)
    except RunError as error:  # the disk itself is the trouble: the run's own end says so
        parts.observer.note(str(error))


def _record_end(parts: Parts, kind: str, facts: Mapping[str, Any]) -> None:
    try:
        parts.store.append_event(kind, parts.state.step, **facts)
        parts.store.write_status({"state": kind, "step": parts.state.step, "steps": parts.config.train.steps, **facts})
    except RunError as error:  # the disk itself is the trouble; the first error is the one to show
        parts.observer.note(str(error))
