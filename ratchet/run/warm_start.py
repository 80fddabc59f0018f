"""Supervised fine-tuning on an environment's demonstrations: the same trainer with the SFT row of the table.

A finished warm start is kept in a cache under the hash of everything that decides it, so the second run with the
same settings begins at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Demonstrates, Environment
from ratchet.core.rollout import Group, Rollout, Score, Status, StopReason, Trajectory, Turn
from ratchet.core.task import Message, Split, Task
from ratchet.environments.table import build_environment, close_environment
from ratchet.explore.handle import continued
from ratchet.policy.policy import Policy
from ratchet.policy.tokenizer import Tokenizer
from ratchet.run.checkpoint import DISK_ERRORS, damage, seal, why
from ratchet.run.observer import Observer
from ratchet.run.policies import saved_policy
from ratchet.train.trainer import Trainer

FORMAT = 1
"""Raised when the same settings would give another result, so that old cache entries are not used."""
HASHED = 32
"""Demonstrations that are part of a cache entry's name."""


def warm_started(config: RunConfig, policy: Policy, observer: Observer) -> Policy:
    """Return the policy after its warm start, from the cache if it is there. `policy` is trained in place."""
    if not config.warm_start.steps:
        return policy
    folder = cache_folder(config) / warm_start_key(config, policy)
    if not _is_kept(folder):
        with _alone(folder, observer):
            if not _is_kept(folder):  # another process may have just kept it
                _train(config, policy, observer)
                _keep(policy, folder)
                observer.note(f"Warm start: kept in {folder}")
                return policy
    observer.note(f"Warm start: found in {folder}")
    return saved_policy(config, folder, device=policy.device)


def warm_start_key(config: RunConfig, policy: Policy) -> str:
    """Return the hash of what decides a warm start: the fresh weights, the demonstrations, the settings.

    The first demonstrations are part of it, so that an environment whose code has changed is learned anew.
    """
    settings = config.warm_start
    environment = build_environment(config.environment.name, {**config.environment.options, **settings.options})
    split, context = Split("warm_start", config.run.seed), policy.shape.context
    try:
        shown = demonstrations(environment, policy.tokenizer, split, 0, HASHED, context=context)
    finally:
        close_environment(environment)
    decides = {
        "format": FORMAT,
        "weights": policy.fingerprint(),
        "tokenizer": policy.tokenizer.backend.to_str(),
        "environment": config.environment.model_dump(mode="json"),
        "shown": [t.prompt.tolist() + t.output.tolist() for g in shown for t in g.rollouts[0].trajectories[0].turns],
        "warm_start": config.warm_start.model_dump(mode="json", exclude={"cache"}),
        "dtype": config.policy.dtype,
        "seed": config.run.seed,
    }
    text = json.dumps(decides, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def cache_folder(config: RunConfig) -> Path:
    """Return where warm starts are kept."""
    if config.warm_start.cache:
        return Path(config.warm_start.cache)
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "ratchet" / "warm_starts"


def demonstrations(
    environment: Environment, tokenizer: Tokenizer, split: Split, first: int, count: int, *, context: int
) -> list[Group]:
    """Return demonstrations first .. first + count - 1 as groups of one rollout whose tokens were not sampled.

    Raises `ConfigError` if the environment has none, if the tokenizer cannot read one, or if one does not fit into
    `context` tokens.
    """
    if not isinstance(environment, Demonstrates):
        raise ConfigError(
            f'The environment "{environment.name}" has no demonstrations, so there is nothing to warm-start on. '
            "Set warm_start.steps = 0 and start from a trained model, or give the environment a demonstration method."
        )
    groups = []
    for index in range(first, first + count):
        task = environment.task(split, index)
        shown = environment.demonstration(task, split.rng(index, "demonstration"))
        talk = [Message("assistant", shown)] if isinstance(shown, str) else list(shown)
        turns = _turns(tokenizer, task, talk, f"Demonstration {index}", context)
        rollout = Rollout(task.id, 0, (Trajectory(turns),), Status.OK, Score(1.0))
        groups.append(Group(task, index, 0, (rollout,)))
    return groups


def _turns(tokenizer: Tokenizer, task: Task, talk: Sequence[Message], name: str, context: int) -> tuple[Turn, ...]:
    """Return a conversation as turns whose tokens were not sampled."""
    turns: list[Turn] = []
    told: list[Message] = []
    for message in talk:
        if message.role != "assistant":
            told.append(message)
            continue
        if turns:
            prompt = continued(tokenizer, turns[-1].prompt, turns[-1].output, told, ended=True)
        else:
            prompt = tokenizer.chat(task.prompt)
        answer = tokenizer.encode(message.content)
        unknown = tokenizer.unknown_token
        if unknown is not None and (unknown in prompt or unknown in answer):
            text = "".join(m.content for m in (*task.prompt, *told)) + message.content
            raise ConfigError(
                f"The tokenizer cannot read a demonstration: {_unreadable(tokenizer, text)} of {text!r}. "
                "Add it to policy.tiny.characters."
            )
        output = np.append(answer, tokenizer.end_tokens[0]).astype(np.int32)
        if len(prompt) + len(output) > context:
            raise ConfigError(
                f"{name} has {len(prompt)} tokens of prompt and {len(output)} of answer, but the model holds "
                f"{context}. Raise policy.tiny.context, or make the demonstrations shorter."
            )
        none = np.zeros(0, dtype=np.float32)
        turns.append(Turn(prompt, output, none, none, -1, -1, "", StopReason.END, message.content, 0.0))
        told = []
    return tuple(turns)


def _is_kept(folder: Path) -> bool:
    return folder.is_dir() and not damage(folder)


@contextmanager
def _alone(folder: Path, observer: Observer) -> Iterator[None]:
    """Let one process at a time compute a warm start; the system frees the lock of one that was killed."""
    path = folder.with_name(f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(path, observer)
    except OSError as error:
        raise _not_kept(folder, error) from None
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path, observer: Observer) -> IO[str]:
    """Return the file at `path`, locked, as soon as nobody else has it."""
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            observer.note(f"Warm start: waiting for the warm start another process computes ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # some network folders have no locks: the work may be done twice, never wrongly
            observer.note(f"Warm start: {path} cannot be locked ({error.strerror}), so others may compute it too")
            return file
        # Who had the lock removed the file, and a third process may have made another: only the one at `path` counts.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _train(config: RunConfig, policy: Policy, observer: Observer) -> None:
    settings = config.warm_start
    environment = build_environment(config.environment.name, {**config.environment.options, **settings.options})
    method = AlgorithmSection(name="sft", lr=settings.lr)
    train = TrainSection(
        steps=settings.steps,
        betas=(0.9, 0.98),
        reference_kl=False,
        micro_batch_tokens=config.train.micro_batch_tokens,
        max_logits=config.train.max_logits,
    )
    trainer = Trainer(policy, build_algorithm("sft", {}), method, train, seed=config.run.seed)
    split = Split("warm_start", config.run.seed)
    for step in range(settings.steps):
        first, context = step * settings.batch, policy.shape.context
        groups = demonstrations(environment, policy.tokenizer, split, first, settings.batch, context=context)
        report = trainer.step(groups, step)
        if step % 20 == 19 or step + 1 == settings.steps:
            observer.progress("warm start", step + 1, settings.steps, report.metrics)


def _keep(policy: Policy, folder: Path) -> None:
    """Put the folder in place whole or not at all."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        policy.save(part)
        seal(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except DISK_ERRORS as error:
        shutil.rmtree(part, ignore_errors=True)
        raise _not_kept(folder, error) from None


def _not_kept(folder: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"The warm start cannot be kept in {folder.parent}: {why(error)}. Set warm_start.cache to a folder that can be "
        "written."
    )


def _unreadable(tokenizer: Tokenizer, text: str) -> str:
    for character in text:
        if tokenizer.encode(character).tolist() == [tokenizer.unknown_token]:
            return f"the character {character!r}"
    return "a character"
