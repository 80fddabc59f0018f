"""A run behind an address: the door to `ratchet train` with an endpoint that programs of others play through."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.config.read import config_from_tree, merge, read_config
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError

INSTEAD: Mapping[str, str] = {
    "device": "run.device",
    "dtype": "policy.dtype",
    "max_tokens": "explore.max_tokens",
    "max_seconds": "explore.rollout_timeout_s",
}
"""Options of a frozen model's endpoint, and the settings of a run that say the same."""


@dataclass(frozen=True, slots=True)
class Training:
    """What the command line said of a run that is served."""

    source: Path
    step: int | None
    config: str
    settings: Sequence[str]
    address: Mapping[str, str | int]
    """``host`` and ``port``, where they were given."""


def check_words(given: Collection[str], *, config: str, settings: Sequence[str]) -> None:
    """Check that the words of the command go together; `given` are the options that somebody typed.

    **Raises**: `ConfigError` for settings of no config, and for options that a run does not go by.
    """
    if not config and settings:
        raise ConfigError(
            f'"{settings[0]}" would change the config of a run, and none is started: add --train CONFIG, or leave it '
            "out."
        )
    for option in sorted(given) if config else ():
        flag = f"--{option.replace('_', '-')}"
        if option in INSTEAD:
            raise ConfigError(f"{flag} is about a frozen model. With --train, write {INSTEAD[option]}=... instead.")
        if option not in ("host", "port", "step", "train", "plain"):
            raise ConfigError(f"{flag} is about a frozen model, and a run does not go by it. Leave it out.")


def config_of(asked: Training) -> RunConfig:
    """Return the config of the run: that of a file, on the model, played through an endpoint.

    An environment of ours becomes the inner one: it makes the tasks, and judges where no reward is posted.

    **Raises**: `ConfigError` as `ratchet train`, and for a run without the checkpoint.
    """
    config = read_config([asked.config, *asked.settings])
    tree = merge(config.model_dump(mode="json"), {"policy": {"model": _model(asked.source, asked.step)}})
    environment = config.environment
    if environment.name == "verifiers":
        raise ConfigError(
            'environment.name = "verifiers" is played by a process of the run\'s own, and waits for no program: use '
            f"ratchet train {asked.config}."
        )
    if environment.name != "agents":
        inner = {"name": "agents", "inner": environment.name, "inner_options": environment.options}
        tree = {**tree, "environment": inner}
    return config_from_tree(merge(tree, {"environment": dict(asked.address)}))


def serve_training(asked: Training, *, plain: bool) -> None:
    """Train until the run is over; sessions come from outside. **Raises**: as `ratchet train`."""
    config = config_of(asked)
    if config.cluster.ranks > 1:
        raise ConfigError(
            f"cluster.ranks = {config.cluster.ranks} starts several processes, and --train one. Put policy.model and "
            '[environment] name = "agents" into the config, and use ratchet train.'
        )
    from ratchet.cli.view import watching
    from ratchet.run.launch import train

    with watching(plain=plain) as observer:
        train(config, observer)


def _model(source: Path, step: int | None) -> str:
    """Return what policy.model is: the checkpoint of a run, a folder, or an id of the hub."""
    if (source / "config.toml").is_file():
        from ratchet.run.checkpoint import chosen_checkpoint

        return str(chosen_checkpoint(source / "checkpoints", step))
    if step is not None:
        raise ConfigError(f"--step {step} chooses a checkpoint of a run, and {source} is no run folder.")
    return str(source)
