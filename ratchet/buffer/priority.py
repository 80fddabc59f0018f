"""What replay prefers. Pure: a group and how often it was used in, a number out; the highest numbers are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from numbers import Real
from statistics import fmean

from ratchet.buffer.facts import oldest_version
from ratchet.config.schema import BufferSection
from ratchet.core.errors import ConfigError, nearest
from ratchet.core.load import describe, is_path, load_function
from ratchet.core.rollout import Group

Priority = Callable[[Group, int], float]
"""(group, times it was used) -> priority."""


def freshness(version: int, uses: int, *, reuse_penalty: float) -> float:
    """Return ``version - reuse_penalty * uses``: the newest weights' groups first."""
    return version - reuse_penalty * uses


def advantage(group: Group, uses: int, *, reuse_penalty: float) -> float:
    """Return ``mean_i |r_i - mean(r)| - reuse_penalty * uses`` over the rollouts with a score: the groups that teach
    most first. Equal rewards teach nothing and give 0, like a group without a score."""
    rewards = [r.score.value for r in group.usable if r.score is not None]
    mean = fmean(rewards) if rewards else 0.0
    return (fmean(abs(r - mean) for r in rewards) if rewards else 0.0) - reuse_penalty * uses


def priority_from(config: BufferSection) -> Priority:
    """Return the priority the config names.

    **Raises**: `ConfigError` for an unknown name, or code that cannot be loaded; what is returned raises it when a
    user's function fails or returns no finite number.
    """
    name, penalty = config.priority, config.reuse_penalty
    if is_path(name):
        return partial(_ask, load_function(name, where="buffer.priority"), name)
    if name == "freshness":
        return lambda group, uses: freshness(oldest_version(group), uses, reuse_penalty=penalty)
    if name == "advantage":
        return partial(advantage, reuse_penalty=penalty)
    raise ConfigError(
        f'buffer.priority = "{name}" is not known.{nearest(name, ("freshness", "advantage"))} '
        "Your own is named file.py:function."
    )


def _ask(function: Callable[..., object], path: str, group: Group, uses: int) -> float:
    """Return what a user's function says about a group."""
    where = f'buffer.priority = "{path}", asked about group {group.index} of step {group.step} after {uses} uses,'
    try:
        value = function(group, uses)
    # The function is the user's and may raise anything at all; whatever it is, they must read it.
    except Exception as error:
        raise ConfigError(f"{where} raised {describe(error)}. It is called as function(group, uses).") from error
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ConfigError(f"{where} returned {value!r}, which is not a finite number. Return a float.")
    return float(value)
