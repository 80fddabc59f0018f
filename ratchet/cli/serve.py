"""A checkpoint behind an address: opening the model, and stopping."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ratchet.core.errors import ConfigError
from ratchet.core.load import require_library

if TYPE_CHECKING:
    from ratchet.serve.limits import Limits
    from ratchet.serve.model import Served


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line said."""

    source: Path
    step: int | None
    name: str
    host: str
    port: int
    context: int
    rows: int
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    max_tokens: int
    max_seconds: float
    per_minute: int
    at_once: int
    max_body: int

    def limits(self) -> Limits:
        """Return the bounds of the endpoint."""
        from ratchet.serve.limits import Limits

        return Limits(
            body_bytes=self.max_body,
            per_minute=self.per_minute,
            at_once=self.at_once,
            seconds=self.max_seconds,
            tokens=self.max_tokens,
        )


def serve_model(asked: Asked) -> None:
    """Serve until interrupted. **Raises**: `ConfigError` for a model, an address or a token that will not do."""
    for library in ("starlette", "uvicorn"):
        require_library(library, extra="serve", purpose="ratchet serve")
    from ratchet.serve.address import TOKEN, hosts_of, listen, shown, token_for

    token = token_for(asked.host, "--host")
    listening = listen(asked.host, asked.port, "--host", "--port")
    try:
        served = open_model(asked)
        from ratchet.serve.app import build_app

        app = build_app(served, asked.limits(), token=token, hosts=hosts_of(asked.host))
        port = listening.getsockname()[1]
        click.echo(f"{served.name}: http://{shown(asked.host)}:{port}/v1 (Ctrl-C stops)")
        click.echo(f"Clients need {'the token in ' + TOKEN if token else 'no key; any will do'}.")
        with suppress(KeyboardInterrupt):  # uvicorn ends its answers, then hands the signal on
            _run(app, listening)
    finally:
        listening.close()
    served.engine.close()


def open_model(asked: Asked) -> Served:
    """Return the model, loaded. **Raises**: `ConfigError` if the folder is neither a run nor a model."""
    import torch

    from ratchet.engines.build import local_engine
    from ratchet.policy.policy import Policy
    from ratchet.run.checkpoint import chosen_checkpoint
    from ratchet.run.model import computed_by
    from ratchet.serve.model import Served

    is_run = (asked.source / "config.toml").is_file()
    if asked.step is not None and not is_run:
        raise ConfigError(f"--step {asked.step} chooses a checkpoint of a run, and {asked.source} is no run folder.")
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda, but torch sees no GPU here. Choose cpu or auto.")
    device = "cuda" if asked.device != "cpu" and torch.cuda.is_available() else "cpu"
    folder = chosen_checkpoint(asked.source / "checkpoints", asked.step) if is_run else asked.source
    policy = Policy.load(folder, device=device, dtype=asked.dtype)
    if policy.origin.hosted:
        click.echo(f"Model: {computed_by(policy)}")
    if not policy.tokenizer.converses:
        click.echo("It has no chat template: completions are answered, chat completions are refused.")
    context = min(asked.context or policy.shape.context, policy.shape.context)
    engine = local_engine(policy, context=context, max_rows=asked.rows)
    fingerprint = policy.fingerprint()
    engine.load(policy.weights(), 0, fingerprint)
    name = asked.name or asked.source.resolve().name
    return Served(name, engine, policy.tokenizer, context, fingerprint, int(time.time()))


def _run(app: Any, listening: socket.socket) -> None:
    """Serve until a signal comes; answers that are being written get a few seconds."""
    import uvicorn

    settings = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=5, ws="none")
    asyncio.run(uvicorn.Server(settings).serve(sockets=[listening]))
