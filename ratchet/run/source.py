"""Where a run's groups come from: its own explorer, or what another run recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ratchet.config.plan import Plan
from ratchet.config.read import config_from_tree
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Engine, Environment, Sampling
from ratchet.core.rollout import Group
from ratchet.core.task import Split
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.explore.recorded import RecordedGroups
from ratchet.policy.policy import Policy
from ratchet.policy.tokenizer import load_tokenizer
from ratchet.run.checkpoint import newest_sound
from ratchet.run.frozen import Frozen
from ratchet.store.run_store import RunStore


class Source(Protocol):
    """Where groups come from: the explorer, or a recorded run."""

    async def group(self, step: int, index: int, samples: int, *, greedy: bool = False) -> Group:
        """Return group `index`, for a step."""
        ...


def sampling_of(config: RunConfig) -> Sampling:
    """Return how the config's explorer draws tokens."""
    explore = config.explore
    return Sampling(
        max_tokens=explore.max_tokens,
        temperature=explore.temperature,
        top_p=explore.top_p,
        top_k=explore.top_k,
        stop=explore.stop,
    )


def explorer_of(
    config: RunConfig,
    environment: Environment,
    engine: Engine,
    policy: Policy,
    plan: Plan,
    frozen: Frozen,
    *,
    task_at: Callable[[int], int],
    names: tuple[str | int, ...] = (),
) -> Explorer:
    """Return an explorer of the training split; `task_at` and `names` as in `Explorer`."""
    return Explorer(
        environment,
        engine,
        policy.tokenizer,
        Split("train", config.run.seed),
        sampling_of(config),
        ExploreLimits(context=plan.context_tokens, rollout_timeout_s=config.explore.rollout_timeout_s),
        task_at=task_at,
        names=names,
        frozen=frozen.speaker,
    )


def recorded_groups(config: RunConfig, policy: Policy) -> RecordedGroups | None:
    """Return the recorded run that ``data.from_run`` names, if any. Raises `ConfigError` if it does not fit."""
    if not config.data.from_run:
        return None
    folder = Path(config.data.from_run)
    recorded = RecordedGroups(folder)
    theirs = config_from_tree(RunStore.open(folder).config_tree()).explore
    for name in ("temperature", "top_p", "top_k"):
        was, asked = getattr(theirs, name), getattr(config.explore, name)
        if was != asked:
            raise ConfigError(
                f'data.from_run = "{folder}" was sampled with explore.{name} = {was:g}, this run asks for {asked:g}, '
                f"so that its recorded log-probabilities are of another distribution. Set explore.{name} = {was:g}."
            )
    spoken = load_tokenizer(newest_sound(folder / "checkpoints")[0], policy.tokenizer.end_tokens)
    if spoken.fingerprint != policy.tokenizer.fingerprint:
        raise ConfigError(
            f'data.from_run = "{folder}" was recorded with another tokenizer ({spoken.fingerprint}) than this '
            f"policy's ({policy.tokenizer.fingerprint}): its tokens mean something else here. Train the same model."
        )
    return recorded
