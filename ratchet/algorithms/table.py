"""The table: one builder per published method, whose keyword parameters are the options a recipe may set.

Defaults are the published ones and exist only in the rows: `on_policy`, `off_policy` for samples of any origin,
`assisted` for methods that learn from more than rewards. To add a method, write its functions beside their like and one
row; outside the package, name it ``my_module:my_builder`` or ``file.py:my_builder``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError, validate_call

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.assisted import distill, ppo, remax, sft
from ratchet.algorithms.off_policy import (
    asymre,
    k1_5,
    k2_5,
    min_opmd,
    opmd_kimi,
    opmd_pairwise,
    rec_one_side,
    rec_ring,
    rec_two_side,
    red_adaptive,
    red_drop,
    red_weight,
    topr,
)
from ratchet.algorithms.on_policy import (
    cispo,
    dapo,
    dr_grpo,
    gmpo,
    grpo,
    gspo,
    reinforce_group,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
    sapo,
)
from ratchet.core.errors import ConfigError, nearest
from ratchet.core.load import is_path, load_function

ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "gspo": gspo,
    "gmpo": gmpo,
    "cispo": cispo,
    "sapo": sapo,
    "rloo": rloo,
    "remax": remax,
    "reinforce": reinforce_group,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
    "ppo": ppo,
    "rec_one_side": rec_one_side,
    "rec_two_side": rec_two_side,
    "rec_ring": rec_ring,
    "red_drop": red_drop,
    "red_weight": red_weight,
    "red_adaptive": red_adaptive,
    "topr": topr,
    "asymre": asymre,
    "opmd_kimi": opmd_kimi,
    "opmd_pairwise": opmd_pairwise,
    "min_opmd": min_opmd,
    "k1_5": k1_5,
    "k2_5": k2_5,
    "distill": distill,
    "sft": sft,
}


def build_algorithm(name: str, options: Mapping[str, Any]) -> Algorithm:
    """Return the algorithm of a name with its options set.

    Raises `ConfigError` for an unknown name or option, or a value out of bounds, with the nearest known name.
    """
    if is_path(name):
        builder = load_function(name, where="algorithm.name")
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
