"""The table of algorithms. A row is a builder whose keyword-only parameters are the options a recipe may set.

Defaults are the published ones and exist only here. To add a method, write its functions beside their like and one
row below; outside the package, name it ``my_module:my_builder`` or ``file.py:my_builder``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import Field, ValidationError, validate_call

from ratchet.algorithms.advantages import centred, ones, standardised
from ratchet.algorithms.algorithm import Algorithm, keep_all, weigh_equally
from ratchet.algorithms.losses import clipped_ratio, negative_log_likelihood, reinforce
from ratchet.algorithms.reductions import constant_length, sequence_mean, token_mean
from ratchet.core.errors import ConfigError, nearest
from ratchet.core.load import LoadError, is_path, load_object

Clip = Annotated[float, Field(gt=0, lt=1, description="How far the ratio may fall below 1 before its gradient is cut.")]
ClipHigh = Annotated[float, Field(gt=0, description="How far the ratio may rise above 1 before its gradient is cut.")]
Length = Annotated[int, Field(ge=1, description="Divisor of every sample's token sum, in tokens.")]


def grpo(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2, std: bool = True) -> Algorithm:
    """GRPO: clipped ratio on group-standardised rewards, mean over tokens, then over samples.

    ``L = -(1/S) sum_i (1/|y_i|) sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)``
    with ``A_i = (r_i - mean) / std``, or ``r_i - mean`` when `std` is false.

    Source: Shao et al. 2024 (arXiv 2402.03300), eq. 3.
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised if std else centred,
        weight=weigh_equally,
        loss=partial(clipped_ratio, low=clip_low, high=clip_high),
        reduce=sequence_mean,
        min_group=2,
    )


def dr_grpo(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2, length: Length = 1024) -> Algorithm:
    """Dr.GRPO: GRPO without its two biases: no division by std, a constant instead of the sample's length.

    ``L = -(1/(S L)) sum_i sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)`` with ``A_i = r_i - mean``.

    Source: Liu et al. 2025 (arXiv 2503.20783), section 3.2.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(clipped_ratio, low=clip_low, high=clip_high),
        reduce=partial(constant_length, length=length),
        min_group=2,
    )


def reinforce_group(*, std: bool = False) -> Algorithm:
    """REINFORCE with the group mean as baseline: no ratio, no clip, mean over tokens.

    ``L = -(1/N) sum_i sum_t A_i log p(y_it)`` with ``A_i = r_i - mean``.

    Source: Williams 1992; the form used as the unregularised baseline by Yao et al. 2025 (arXiv 2509.24203).
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised if std else centred,
        weight=weigh_equally,
        loss=reinforce,
        reduce=token_mean,
        min_group=2,
    )


def sft() -> Algorithm:
    """Supervised fine-tuning: negative log-likelihood of demonstrations, mean over tokens.

    ``L = -(1/N) sum_i sum_t log p(y_it)``.
    """
    return Algorithm(
        keep=keep_all,
        advantage=ones,
        weight=weigh_equally,
        loss=negative_log_likelihood,
        reduce=token_mean,
        silent_at_zero=False,
        sampled=False,
    )


ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "reinforce": reinforce_group,
    "sft": sft,
}


def build_algorithm(name: str, options: Mapping[str, Any]) -> Algorithm:
    """Return the algorithm of a name with its options set.

    Raises `ConfigError` for an unknown name or option, or a value out of bounds, with the nearest known name.
    """
    if is_path(name):
        builder = _users_builder(name)
    elif name in ALGORITHMS:
        builder = ALGORITHMS[name]
    else:
        raise ConfigError(f'algorithm.name = "{name}" is not known.{nearest(name, ALGORITHMS)}')
    parameters = inspect.signature(builder).parameters
    for key in options:
        if key not in parameters:
            raise ConfigError(f"algorithm.{key}: {name} has no such option.{nearest(key, parameters)}")
    try:
        built = validate_call(builder)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"algorithm.{key} = {first['input']!r}: {first['msg']}.") from None
    if not isinstance(built, Algorithm):
        raise ConfigError(f'algorithm.name = "{name}" returned a {type(built).__name__}, not an Algorithm.')
    return built


def _users_builder(path: str) -> Callable[..., Algorithm]:
    """Return the builder a path names. Raises `ConfigError` if it cannot be loaded or called."""
    try:
        found = load_object(path)
    except LoadError as error:
        raise ConfigError(f"algorithm.name: {error}") from error
    if not callable(found):
        raise ConfigError(f'algorithm.name = "{path}" is a {type(found).__name__}; name a function instead.')
    return found
