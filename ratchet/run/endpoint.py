"""Where a run is played by an agent program: its endpoint is made here."""

from __future__ import annotations

from ratchet.config.schema import RunConfig
from ratchet.core.load import require_library
from ratchet.core.protocols import Environment
from ratchet.environments.agents import Agents
from ratchet.policy.tokenizer import Tokenizer
from ratchet.run.observer import Observer, Silent
from ratchet.run.source import sampling_of


def open_endpoint(
    config: RunConfig, environment: Environment, tokenizer: Tokenizer, observer: Observer | None = None
) -> None:
    """Open the endpoint, if the environment is played through one, and tell where it is. **Raises**: `ConfigError`."""
    if not isinstance(environment, Agents):
        return
    require_library("starlette", extra="serve", purpose='environment.name = "agents"')
    from ratchet.serve.training import opener

    environment.serve_by(opener(environment, tokenizer, sampling_of(config)))
    told = observer or Silent()
    told.note(f"Endpoint:   {environment.open()}/v1 waits for an agent program (docs/how-to/train-agents.md)")
