"""All frameworks by name. Of equals in detection, the first counts."""

from __future__ import annotations

from collections.abc import Mapping

from ratchet.core.errors import ConfigError, nearest
from ratchet.logs.frameworks.areal import AREAL
from ratchet.logs.frameworks.art import ART
from ratchet.logs.frameworks.entry import Framework
from ratchet.logs.frameworks.nemo_rl import NEMO_RL
from ratchet.logs.frameworks.openrlhf import OPENRLHF
from ratchet.logs.frameworks.plain import PLAIN, RATCHET
from ratchet.logs.frameworks.prime_rl import PRIME_RL
from ratchet.logs.frameworks.roll import ROLL
from ratchet.logs.frameworks.skyrl import SKYRL
from ratchet.logs.frameworks.slime import SLIME
from ratchet.logs.frameworks.tinker import TINKER
from ratchet.logs.frameworks.torchforge import TORCHFORGE
from ratchet.logs.frameworks.trl import TRL
from ratchet.logs.frameworks.verl import TRINITY, VERL

DETECTED: tuple[Framework, ...] = (
    TRL, VERL, TRINITY, OPENRLHF, AREAL, SLIME, PRIME_RL, SKYRL, NEMO_RL, ROLL, TINKER, TORCHFORGE, ART, RATCHET,
)  # fmt: skip
"""Frameworks a log can be recognised as."""

FRAMEWORKS: Mapping[str, Framework] = {f.name: f for f in (*DETECTED, PLAIN)}
ALIASES: Mapping[str, str] = {
    "unsloth": "trl",
    "trinity_rft": "trinity",
    "nemo": "nemo_rl",
    "prime": "prime_rl",
    "tinker_cookbook": "tinker",
    "forge": "torchforge",
    "miles": "slime",
}
"""Other names people use."""


def framework_named(name: str) -> Framework:
    """Return a framework by name, in any case and with hyphens or underscores. Raises `ConfigError`."""
    plain = name.lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in FRAMEWORKS:
        raise ConfigError(f'There is no framework "{name}" here.{nearest(plain, [*FRAMEWORKS, *ALIASES])}')
    return FRAMEWORKS[plain]
