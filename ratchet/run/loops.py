"""The program that trains: two short loops that share a buffer and one backward edge."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ratchet.buffer.buffer import Taken
from ratchet.core.errors import RunError
from ratchet.core.rollout import Group, Positive
from ratchet.explore.measure import explore_metrics
from ratchet.run.checkpoint import checkpoint_path, prune, write_checkpoint
from ratchet.run.costs import step_costs
from ratchet.run.evaluate import evaluate
from ratchet.run.gate import check_versions, first_step_gate
from ratchet.run.guard import Decision
from ratchet.run.machine import resident_bytes
from ratchet.run.parts import Parts
from ratchet.run.ranks import Step
from ratchet.run.source import explorer_of, sampling_of
from ratchet.train.ledger import ledger
from ratchet.train.trainer import StepReport

VERSIONS_KNOWN = 1024
"""Versions before the newest whose fingerprints are kept although no checkpoint needs them: answers may take long."""


async def explore_loop(p: Parts) -> None:
    """Sample the batch of every step with the weights its schedule names."""
    k = p.state.step
    while k < p.config.train.steps:
        with p.waits.on("explorer", "training"):
            await p.buffer.room_for(k)
        # What `room_for` let through finds its weights published, so this never waits while it holds the engine.
        async with p.engine_use:
            with p.waits.on("explorer", "weights"):
                await p.sync.arrive(p.schedule.version_for(k))
            if p.curriculum.is_due(k):
                with p.waits.on("explorer", "curriculum"):
                    await prepare(p, k)
            k = await sample(p, k)


async def sample(p: Parts, k: int) -> int:
    """Sample the batch of step k and, while its last groups are played, of steps after it that need no other weights.

    As many groups are under way as a step has: where one ends, the next begins. Return the first step not begun.
    """
    greedy = "greedy" in p.trainer.algorithm.needs
    waiting, playing = deque(p.buffer.missing(k)), list[asyncio.Task[Group]]()  # a resumed run finds some groups there
    room: asyncio.Task[None] | None = None
    try:
        while waiting or playing:
            while waiting and len(playing) < p.config.explore.prompts_per_step:
                group = p.source.group(k, waiting.popleft(), p.config.explore.samples_per_prompt, greedy=greedy)
                playing.append(asyncio.create_task(group))
            if room is None and not waiting and follows(p, k + 1):
                room = asyncio.create_task(p.buffer.room_for(k + 1))
            await asyncio.wait([*playing, *([room] if room else [])], return_when=asyncio.FIRST_COMPLETED)
            for played in [task for task in playing if task.done()]:
                playing.remove(played)
                await p.buffer.put(played.result())
            if room is not None and room.done():
                k, room = k + 1, None
                waiting.extend(p.buffer.missing(k))
        return k + 1
    finally:
        left = [*playing, *([room] if room else [])]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def follows(p: Parts, k: int) -> bool:
    """Whether step k may be sampled with the weights the engine holds, as it stands."""
    return k < p.config.train.steps and p.sync.holds(p.schedule.version_for(k)) and not p.curriculum.is_due(k)


async def train_loop(p: Parts) -> Decision | None:
    """Train on the batch of every step, put everything on disk, publish the weights.

    End early, with what is to be done, if the guard or a person says so.
    """
    await evaluate_if_due(p)  # a run that was stopped between a step and its evaluation
    for k in range(p.state.step, p.config.train.steps):
        if (turn := await as_asked(p)) is not None:
            return turn
        started = time.perf_counter()
        with p.waits.on("trainer", "groups"):
            taken = await p.buffer.take(k)
        explored = time.perf_counter() - started
        async with p.training:
            row = await finish_step(p, k, taken, explored)
        await p.sync.publish(p.policy.weights(), p.state.version, p.state.fingerprint)
        p.sync.retire(p.schedule.version_for(k + 1))
        await evaluate_if_due(p)
        checkpoint_if_due(p, row)
        p.observer.step(row, p.config.train.steps)
        tell_loggers(p)
        if (decision := p.guard.decide(k, row)) is not None:
            return decision
        await p.buffer.trained(k)
    return None


async def as_asked(p: Parts) -> Decision | None:
    """Do what a person asked for between two steps: write a checkpoint, or wait while the run is paused or stops.

    Return where the run must turn back to, if that was asked.
    """
    while True:
        p.control.look(p.state.step)
        if p.control.turn is not None:
            return p.control.turn
        if p.control.take_checkpoint() and not checkpoint_path(p.store.folder / "checkpoints", p.state.step).is_dir():
            checkpoint(p)
        cause = p.control.holds
        if not cause:
            return None
        with p.waits.on("trainer", cause):
            await p.control.change()


async def finish_step(p: Parts, k: int, taken: Taken, explored_s: float) -> Mapping[str, float]:
    """Train step k, record it, return its row. A stop waits for the end: the step is done or not begun."""
    started = time.perf_counter()
    asked = [*taken.fresh, *taken.stale]
    facts = explore_metrics(asked)
    if p.config.record.rollouts:
        p.store.write_groups(k, asked)
    refuse_failures(p, k, asked)
    again = p.positives.choose(k)
    checked = before_training(p, k, [*taken.trained, *(positive.group for positive in again)])
    report = await train_step(p, k, taken.trained, again)
    if p.config.record.rollouts and report.differences is not None:
        p.store.write_differences(k, report.differences)
    kept = p.buffer.finish(k) | p.positives.finish(k, asked, again) | p.curriculum.metrics(k, asked)
    fingerprint = p.policy.fingerprint()
    p.fingerprints[k + 1] = fingerprint
    trained_s = time.perf_counter() - started
    costs = step_costs(p.policy.shape, asked, p.frozen.shape, train_flops=report.flops)
    costs |= p.curriculum.costs(k)
    totals = dict(p.state.totals)
    for name, value in {**costs, "seconds": explored_s + trained_s}.items():
        totals[name] = totals.get(name, 0.0) + value
    p.state = replace(p.state, step=k + 1, version=k + 1, fingerprint=fingerprint, totals=totals)
    row = {
        "step": k,
        **facts,
        **report.metrics,
        **checked,
        **kept,
        **{name: float(count) for name, count in fates(p, taken).items()},
        **{f"{name}/step": value for name, value in costs.items()},
        **{f"{name}/total": value for name, value in totals.items()},
        **p.waits.take_seconds(),
        "time/explore": explored_s,
        "time/train": trained_s,
        "time/step": explored_s + trained_s,
        "mem/rss_bytes": float(resident_bytes()),
        **p.loggers.metrics(),
    }
    p.store.append_metrics(row)
    return row


async def prepare(p: Parts, k: int) -> None:
    """Let the curriculum decide what step k may train on; the engine holds its weights."""

    async def play(step: int, problems: Sequence[int], attempts: int) -> list[Group]:
        explorer = explorer_of(
            p.config,
            p.environment,
            p.engine,
            p.policy,
            p.plan,
            p.frozen,
            task_at=problems.__getitem__,
            names=("curriculum", step),
        )
        return [group async for group in explorer.groups(step, 0, len(problems), attempts)]

    def flops(groups: Sequence[Group]) -> float:
        found = step_costs(p.policy.shape, groups, p.frozen.shape)
        return found["flops/generate"] + found.get("flops/agents", 0.0)

    await p.curriculum.prepare(k, p.schedule.version_for(k), play, flops)


async def train_step(p: Parts, k: int, groups: Sequence[Group], again: Sequence[Positive]) -> StepReport:
    """Train on some groups, in a thread if the sampler is to work on meanwhile; all ranks together."""

    def train() -> StepReport:
        p.ranks.tell(Step(groups, k, again))
        with p.ranks.together():
            return p.trainer.step(groups, k, again)

    return train() if p.thread is None else await asyncio.get_running_loop().run_in_executor(p.thread, train)


def fates(p: Parts, taken: Taken) -> Mapping[str, int]:
    """Say where every prompt, rollout and token sampled for this step went."""
    chosen = {id(g) for g in taken.trained}
    left = {"stale": taken.stale, "in_buffer": [g for g in taken.fresh if id(g) not in chosen]}
    return ledger([*taken.fresh, *taken.stale], [g for g in taken.trained if p.trainer.takes(g)], left)


def before_training(p: Parts, k: int, groups: Sequence[Group]) -> Mapping[str, float]:
    """Refuse samples of weights the trainer never produced; at step 0, hold sampler and trainer together."""
    if p.config.data.from_run:  # other weights sampled these; `kl/old` says how far they are
        return {}
    if k > 0:
        check_versions(groups, p.fingerprints)
        return {}
    agreed = first_step_gate(p.trainer, groups, sampling_of(p.config), p.config.policy.dtype, p.fingerprints)
    p.store.append_event("gate", 0, **agreed)
    return agreed


def refuse_failures(p: Parts, k: int, groups: Sequence[Group]) -> None:
    """Raise `RunError` when too many attempts of a step failed, with the first reason."""
    rollouts = [r for g in groups for r in g.rollouts]
    failed = [r for r in rollouts if r.score is None]
    if len(failed) > p.config.explore.max_failed_share * len(rollouts):
        counts: dict[str, int] = {}
        for rollout in failed:
            counts[rollout.status.value] = counts.get(rollout.status.value, 0) + 1
        told = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))
        raise RunError(
            f"Step {k}: {len(failed)} of {len(rollouts)} attempts failed ({told}), more than "
            f"explore.max_failed_share = {p.config.explore.max_failed_share:g} allows. The first said: "
            f"{failed[0].error}"
        )


def checkpoint_if_due(p: Parts, row: Mapping[str, float]) -> None:
    """Write a checkpoint where the config asks for one, and after the last step."""
    step = p.state.step
    if step % p.config.record.checkpoint_every and step != p.config.train.steps:
        return
    reward, best = row.get("reward/mean"), p.state.best_reward
    if reward is not None and (best is None or reward > best):
        p.state = replace(p.state, best_step=step, best_reward=reward)
    checkpoint(p)


def checkpoint(p: Parts) -> Path:
    """Write the state of the run, then remove checkpoints that need not stay. Return where it lies."""
    p.sync.retire(p.schedule.version_for(p.state.step))
    older = [w for w in p.sync.kept() if w.version < p.state.version]
    held = {*p.buffer.versions(), *p.positives.versions(), p.state.version, *(w.version for w in older)}
    p.state = replace(
        p.state,
        samplers={str(w.version): w.fingerprint for w in older},
        fingerprints={str(v): p.fingerprints[v] for v in sorted(held) if v in p.fingerprints},
    )
    for version in [v for v in p.fingerprints if v < p.state.version - VERSIONS_KNOWN and v not in held]:
        del p.fingerprints[version]
    folder = p.store.folder / "checkpoints"
    p.buffer.flush()
    samplers = {w.version: w.tensors for w in older}
    path = write_checkpoint(
        folder,
        p.policy,
        p.state,
        p.trainer.state(),
        samplers,
        others=lambda at: p.ranks.save(at.resolve(), p.state.fingerprint),
    )
    p.store.append_event("checkpoint", p.state.step, path=str(path.relative_to(p.store.folder)))
    remove_old_checkpoints(p)
    return path


def remove_old_checkpoints(p: Parts) -> None:
    """Remove the checkpoints that need not stay, then let the buffer forget what only they could ask for."""
    keep, held = p.config.record.keep_checkpoints, p.guard.held(p.state.step)
    oldest = prune(p.store.folder / "checkpoints", keep, held | {p.state.best_step}, done=p.state.step)
    p.buffer.keep_from(min({oldest, *held}))


async def evaluate_if_due(p: Parts) -> None:
    """Evaluate the trained weights on held-out tasks where the config asks for it, once per step."""
    settings, step = p.config.eval, p.state.step
    due = (step == p.config.train.steps or (settings.every > 0 and step % settings.every == 0)) and step > 0
    due |= settings.at_start and step == 0
    if not settings.tasks or not due or p.state.evaluated_step == step:
        return
    with p.waits.on("trainer", "evaluation"):
        async with p.engine_use:  # not while a batch is being sampled: its weights are not the ones to evaluate
            await evaluate(p)
    p.state = replace(p.state, evaluated_step=step)


def tell_loggers(p: Parts) -> None:
    """Ring for the loggers, and record what became of them; what they are told they read from the store."""
    p.loggers.ring()
    for notice in p.loggers.notices():
        p.store.append_event(notice.kind, p.state.step, logger=notice.logger, what=notice.what)
        if notice.kind == "logger_begun":
            p.observer.note(f"Logger:     {notice.logger}, {notice.what}")
        else:
            p.observer.note(f"Logger {notice.logger}: {notice.what}. The run goes on; its own files hold everything.")


def already_done(p: Parts) -> bool:
    """Whether all steps are trained."""
    return p.state.step >= p.config.train.steps


async def run_loops(p: Parts, stop: asyncio.Event) -> Decision | bool:
    """Run both loops to the end, or until `stop` is set, or until the guard decides otherwise.

    Return what it decided; else whether the loops reached the end.
    """
    exploring, training = asyncio.create_task(explore_loop(p)), asyncio.create_task(train_loop(p))
    stopping = asyncio.create_task(stop.wait())
    watching = asyncio.create_task(p.control.watch(stop, lambda: p.state.step))
    tasks = (exploring, training, stopping, watching, asyncio.create_task(p.ranks.ended()))
    decision: Decision | None = None
    try:
        while not (training.done() and exploring.done()):
            await asyncio.wait([t for t in tasks if not t.done()], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # raises what the loop raised
            decision = training.result() if training.done() else None
            if stopping.done() or decision is not None:
                break
        async with p.training:  # a step in a thread runs to its end and is recorded
            for task in tasks:
                task.cancel()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if decision is not None:
        return decision
    if stopping.done() and not stopping.cancelled() and not already_done(p):
        _checkpoint_where_it_stopped(p)
        return False
    return True


def _checkpoint_where_it_stopped(p: Parts) -> None:
    if not checkpoint_path(p.store.folder / "checkpoints", p.state.step).is_dir():
        checkpoint(p)
