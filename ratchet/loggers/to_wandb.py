"""Weights & Biases, on its server or in files that ``wandb sync`` sends later."""

from __future__ import annotations

import netrc
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import wandb

from ratchet.config.loggers import WandbSection
from ratchet.core.errors import ConfigError
from ratchet.loggers.logger import About


class Wandb:
    """See `logger.Logger`."""

    def __init__(self, section: WandbSection) -> None:
        """**Raises**: `ConfigError` if it is to send and nobody is logged in: the library would ask, and wait."""
        self._section = section
        if section.mode == "online" and not _logged_in():
            raise ConfigError(
                'log.to = ["wandb"] sends to Weights & Biases, and nobody is logged in there. Run: wandb login; or set '
                'log.wandb.mode = "offline", which keeps files to send later.'
            )

    def begin(self, about: About, known: str) -> str:
        """Open the run, or the same run again."""
        name = known or secrets.token_hex(4)
        section = self._section
        self._run = wandb.init(
            project=section.project,
            entity=section.entity or None,
            id=name,
            name=about.name,
            group=about.study or None,
            tags=list(section.tags),
            mode=section.mode,
            dir=str(about.folder),
            resume="allow",
            config=dict(about.settings),
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Evaluations come behind the steps they belong to, which the library's own step forbids.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        return name

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand a row to the library's process, which keeps it in a file until it is sent."""
        self._run.log({"step": step, **numbers})

    def end(self, *, finished: bool) -> None:
        """Wait until everything is sent, or in the file."""
        self._run.finish(exit_code=0 if finished else 1)


def _logged_in() -> bool:
    """Return whether the library will find a key: in the environment, or where ``wandb login`` writes it.

    Looked up here, because the library's own functions for it are internal, or start its process.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    try:
        kept = [netrc.netrc(file).hosts for file in files if file.is_file()]
    except netrc.NetrcParseError:  # the library may read more than we do: let it try
        return True
    # A server of one's own may have any name; the login is always the same.
    return any("wandb" in host or login == "user" for hosts in kept for host, (login, _, _) in hosts.items())
