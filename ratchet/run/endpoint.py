"""Where a run is played by an agent program: its endpoint is made here."""

from __future__ import annotations

import sys

from ratchet.config.schema import RunConfig
from ratchet.core.load import require_library
from ratchet.core.protocols import Environment
from ratchet.environments.agents import Agents
from ratchet.environments.verifiers import Verifiers
from ratchet.policy.tokenizer import Tokenizer
from ratchet.run.observer import Observer, Silent
from ratchet.run.source import sampling_of


def open_endpoint(
    config: RunConfig, environment: Environment, tokenizer: Tokenizer, observer: Observer | None = None
) -> None:
    """Open the endpoint, if the environment is played through one, and tell where it is. **Raises**: `ConfigError`."""
    if not isinstance(environment, Agents | Verifiers):
        return
    require_library("starlette", extra="serve", purpose=f'environment.name = "{environment.name}"')
    from ratchet.serve.limits import Limits
    from ratchet.serve.training import opener

    told, sampling = observer or Silent(), sampling_of(config)
    if isinstance(environment, Verifiers):
        # Who asks is a process of the run's own, and how often is its own affair; the attempts bound it.
        limits = Limits(per_minute=sys.maxsize, at_once=sys.maxsize)
        environment.serve_by(opener(environment.agents, tokenizer, sampling, limits))
        told.note(f"Environment: {environment.described}, plays at {environment.open()}/v1")
        return
    environment.serve_by(opener(environment, tokenizer, sampling))
    told.note(f"Endpoint:   {environment.open()}/v1 waits for an agent program (docs/how-to/train-agents.md)")
