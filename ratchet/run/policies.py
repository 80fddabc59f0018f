"""The policies of a run: the one that is trained, and the frozen ones that it is compared with or learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ratchet.algorithms.algorithm import Algorithm
from ratchet.config.schema import LoraSection, RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Environment
from ratchet.environments.single_turn import Alphabet
from ratchet.policy.adapter import snapshot_of
from ratchet.policy.hosted import HostedDecoder
from ratchet.policy.policy import FrozenNetwork, Policy
from ratchet.run.checkpoint import checkpoint_path

PRINTABLE = "".join(chr(c) for c in range(32, 127)) + "\n"
"""What a tiny tokenizer knows when its environment does not say."""


@dataclass(frozen=True, slots=True)
class Models:
    """The policy and the frozen decoders that training looks at."""

    policy: Policy
    reference: FrozenNetwork | None
    """The starting policy, which the KL is measured to."""
    teacher: FrozenNetwork | None


def choose_device(config: RunConfig) -> torch.device:
    """Return the device the config asks for. Raises `ConfigError` if it is not there."""
    wanted = config.run.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError('run.device = "cuda", but torch sees no GPU here. Set run.device = "cpu" or "auto".')
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def fresh_policy(config: RunConfig, environment: Environment) -> Policy:
    """Return the policy a run starts from, before its warm start."""
    device = choose_device(config)
    if config.policy.model:
        asked, dtype = config.policy, config.policy.dtype
        return Policy.load(config.policy.model, device=device, dtype=dtype, asked=asked, seed=config.run.seed)
    words, characters = (
        (environment.words, environment.characters) if isinstance(environment, Alphabet) else ((), PRINTABLE)
    )
    return Policy.tiny(
        config.policy.tiny,
        words=words,
        characters=characters,
        seed=config.run.seed,
        device=device,
        dtype=config.policy.dtype,
        attention=config.policy.attention,
    )


def saved_policy(config: RunConfig, folder: Path | str, *, device: torch.device | str = "") -> Policy:
    """Return the policy of a checkpoint, or of another model folder, as the config wants models to be computed.

    It lives on the run's device unless another is named. What a checkpoint holds itself is not asked for again: a chat
    template, an adapter.
    """
    asked = config.policy.model_copy(update={"chat_template": "", "lora": LoraSection()})
    return Policy.load(folder, device=device or choose_device(config), dtype=config.policy.dtype, asked=asked)


def teacher_of(config: RunConfig, algorithm: Algorithm, policy: Policy) -> FrozenNetwork | None:
    """Return the frozen teacher where the algorithm needs one.

    Raises `ConfigError` if there is none, one that nobody asks, or one that speaks other tokens.
    """
    folder, needed = config.policy.teacher, "teacher" in algorithm.needs
    if not folder and not needed:
        return None
    if not folder:
        raise ConfigError(
            f'algorithm.name = "{config.algorithm.name}" learns from a teacher, but policy.teacher is empty. Set it to '
            "the folder of a Hugging Face checkpoint with the policy's tokenizer."
        )
    if not needed:
        raise ConfigError(
            f'policy.teacher = "{folder}" is given, but algorithm.name = "{config.algorithm.name}" asks no teacher. '
            'Leave it out, or set algorithm.name = "distill".'
        )
    teacher = saved_policy(config, folder)
    if teacher.tokenizer.fingerprint != policy.tokenizer.fingerprint:
        raise ConfigError(
            f'policy.teacher = "{folder}" has another tokenizer ({teacher.tokenizer.fingerprint}) than the policy '
            f"({policy.tokenizer.fingerprint}): it cannot read the policy's tokens. Choose one of the same family."
        )
    return teacher.decoder.requires_grad_(False)


def starting_policy(config: RunConfig, policy: Policy, checkpoints: Path) -> FrozenNetwork | None:
    """Return the policy that the run began with, which the KL is measured to."""
    if not config.train.reference_kl:
        return None
    folder = checkpoint_path(checkpoints, 0)
    if policy.origin.base is not None:  # the weights beneath the adapter are there already
        assert isinstance(policy.decoder, HostedDecoder)
        return snapshot_of(policy.decoder, folder)
    return saved_policy(config, folder).decoder.requires_grad_(False)


def check_critic(config: RunConfig, algorithm: Algorithm, policy: Policy) -> None:
    """Raise `ConfigError` for a critic that cannot be made of this policy."""
    if algorithm.critic is None:
        return
    if config.cluster.shard == "full":
        raise ConfigError(
            f'algorithm.name = "{config.algorithm.name}" trains a critic, which cluster.shard = "full" cannot spread '
            'yet. Set cluster.shard = "none", or take a method without a critic (grpo, rloo).'
        )
    if policy.origin.base is not None:
        raise ConfigError(
            "algorithm.name trains a critic, which is a copy of all weights, and policy.lora trains an adapter only. "
            "Take a method without a critic (grpo, rloo), or set policy.lora.rank = 0."
        )
    if isinstance(policy.decoder, HostedDecoder) and policy.decoder.whole:
        raise ConfigError(
            f"algorithm.name trains a critic on hidden states, and {policy.shape.family} gives none that its logits "
            "are a plain product of. Take a method without a critic (grpo, rloo)."
        )
