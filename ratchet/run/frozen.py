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
from ratchet.policy.checkpoint import read_config
from ratchet.policy.policy import Policy
from ratchet.policy.shape import shape_from_hf


@dataclass(slots=True)
class Frozen:
    """The frozen agents' policy."""

    config: RunConfig
    start: Path
    """Folder of the checkpoint that the run begins with."""
    device: torch.device
    made: Speaker | None = None
    known: ModelShape | None = None

    def speaker(self) -> Speaker:
        """Return who speaks. **Raises**: `ConfigError` or `ModelError` if the policy cannot be had."""
        if self.made is None:
            self.made = self._make()
        return self.made

    def shape(self) -> ModelShape | None:
        """Return the shape of the agents' model, which need not be loaded: a resumed run may count agents that an
        earlier process asked. None for a server's model. **Raises**: `ConfigError` or `ModelError`."""
        if self.known is None and not self.config.subagent.is_server:
            folder = self._folder()
            self.known = shape_from_hf(read_config(folder)[0], str(folder))
        return self.known

    async def close(self) -> None:
        """Close whoever speaks, if anyone does."""
        if self.made is not None:
            await self.made.close()

    def _make(self) -> Speaker:
        agent = self.config.subagent
        sampling = Sampling(agent.max_tokens, agent.temperature, agent.top_p, agent.top_k)
        if agent.is_server:
            return RemoteSpeaker(agent.policy, agent.model, sampling, timeout_s=agent.timeout_s)
        asked = self.config.policy.model_copy(update={"chat_template": "", "lora": LoraSection()})
        policy = Policy.load(self._folder(), device=self.device, dtype=self.config.policy.dtype, asked=asked)
        context = min(self.config.policy.context or policy.shape.context, policy.shape.context)
        engine = local_engine(
            policy, context=context, max_rows=self.config.engine.max_rows, name=self.config.engine.name
        )
        engine.load(policy.weights(), 0, policy.fingerprint())
        return EngineSpeaker(engine, policy.tokenizer, sampling, context)

    def _folder(self) -> Path:
        policy = self.config.subagent.policy
        folder = self.start if policy == "start" else Path(policy)
        if not folder.is_dir():
            raise ConfigError(
                f'subagent.policy = "{policy}" is no folder. Name a Hugging Face checkpoint, "start", or a URL.'
            )
        return folder
