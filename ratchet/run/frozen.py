"""Who speaks for frozen agents in a run: made when the first one is spawned, and the same ever after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ratchet.config.schema import LoraSection, RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Sampling
from ratchet.core.shape import ModelShape
from ratchet.engines.build import local_engine
from ratchet.explore.handle import EngineSpeaker, Speaker
from ratchet.explore.remote import RemoteSpeaker
from ratchet.policy.policy import Policy


@dataclass(slots=True)
class Frozen:
    """The frozen agents' policy."""

    config: RunConfig
    start: Path
    """Folder of the checkpoint that the run begins with."""
    device: torch.device
    made: Speaker | None = None
    shape: ModelShape | None = None
    """Its shape, once it was made; None for a server's model."""

    def speaker(self) -> Speaker:
        """Return who speaks. **Raises**: `ConfigError` or `ModelError` if the policy cannot be had."""
        if self.made is None:
            self.made = self._make()
        return self.made

    async def close(self) -> None:
        """Close whoever speaks, if anyone does."""
        if self.made is not None:
            await self.made.close()

    def _make(self) -> Speaker:
        agent = self.config.subagent
        sampling = Sampling(agent.max_tokens, agent.temperature, agent.top_p, agent.top_k)
        if agent.is_server:
            return RemoteSpeaker(agent.policy, agent.model, sampling, timeout_s=agent.timeout_s)
        folder = self.start if agent.policy == "start" else Path(agent.policy)
        if not folder.is_dir():
            raise ConfigError(
                f'subagent.policy = "{agent.policy}" is no folder. Name a Hugging Face checkpoint, "start", or a URL.'
            )
        asked = self.config.policy.model_copy(update={"chat_template": "", "lora": LoraSection()})
        policy = Policy.load(folder, device=self.device, dtype=self.config.policy.dtype, asked=asked)
        context = min(self.config.policy.context or policy.shape.context, policy.shape.context)
        engine = local_engine(
            policy, context=context, max_rows=self.config.engine.max_rows, name=self.config.engine.name
        )
        engine.load(policy.weights(), 0, policy.fingerprint())
        self.shape = policy.shape
        return EngineSpeaker(engine, policy.tokenizer, sampling, context)
