"""From a folder to a policy: which decoder computes it, and every way a folder cannot be used.

Our own decoder runs what has its form. Anything else that `transformers` can run as `AutoModelForCausalLM` is run by
it, and the policy's origin says why. With an adapter, `transformers` and `peft` compute the training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ratchet.config.schema import PolicySection
from ratchet.core.errors import ModelError
from ratchet.core.shape import ModelShape
from ratchet.kernels.choose import ops_for
from ratchet.policy.adapter import Base, add_adapter, check_four_bit, read_adapter, read_base
from ratchet.policy.checkpoint import read_config, read_weights
from ratchet.policy.decoder import Decoder
from ratchet.policy.hosted import HostedDecoder, load_hosted
from ratchet.policy.hub import model_folder, revision_of
from ratchet.policy.policy import Origin, Policy, Precision, fingerprint
from ratchet.policy.shape import FormError, shape_from_hf
from ratchet.policy.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked for."""

    device: torch.device
    dtype: Precision
    asked: PolicySection

    def network(
        self, folder: Path, why: str, shape: ModelShape | None = None, *, four_bit: bool = False
    ) -> HostedDecoder:
        """Return the model of a folder as `transformers` computes it; `why` says why it is to."""
        bf16, limit = self.dtype == "bfloat16", self.asked.context
        try:
            return load_hosted(folder, device=self.device, bf16=bf16, limit=limit, shape=shape, four_bit=four_bit)
        except ModelError as error:
            raise ModelError(f"{why} {error}".strip()) from None

    def base(
        self, name: str, folder: Path, shape: ModelShape | None, why: str, *, four_bit: bool
    ) -> tuple[HostedDecoder, Base]:
        """Return a frozen model for an adapter, and what is to be remembered of it."""
        if four_bit:
            check_four_bit(self.device)
        decoder = self.network(folder, why, shape, four_bit=four_bit)
        if self.dtype == "bfloat16" and not four_bit:
            decoder.model.to(torch.bfloat16)  # frozen weights need no master copy
        decoder.requires_grad_(False)
        made = fingerprint(dict(decoder.model.named_parameters()))
        return decoder, Base(str(folder.resolve()) if Path(name).exists() else name, made, four_bit)


def load_policy(name: Path | str, device: torch.device, dtype: Precision, asked: PolicySection, seed: int) -> Policy:
    """See `Policy.load`."""
    folder, wanted = model_folder(str(name)), _Wanted(device, dtype, asked)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return _with_saved_adapter(folder, wanted)
    config, end_tokens = read_config(folder)
    tokenizer = load_tokenizer(folder, end_tokens, template=asked.chat_template)
    shape, why = _own_shape(config, folder, asked)
    _check_vocabulary(tokenizer, shape.vocab if shape else _vocabulary(config), folder)
    origin = Origin(config=config, generation=_generation(folder), revision=revision_of(folder), hosted=why)
    if asked.lora.rank:
        hosted, base = wanted.base(str(name), folder, shape, why, four_bit=asked.lora.four_bit)
        add_adapter(hosted, asked.lora, seed=seed)
        return Policy(hosted, tokenizer, device, dtype, _adapted(origin, base))
    if shape is not None:
        decoder = Decoder(shape, ops_for(device, dtype, asked.attention))
        read_weights(decoder, folder)
        return Policy(decoder.to(device), tokenizer, device, dtype, origin)
    hosted = wanted.network(folder, why)
    _check_vocabulary(tokenizer, hosted.shape.vocab, folder)
    return Policy(hosted, tokenizer, device, dtype, origin)


def _own_shape(config: Mapping[str, Any], folder: Path, asked: PolicySection) -> tuple[ModelShape | None, str]:
    """Return the shape of a model that our own decoder is to run, or None and the reason why it is not to."""
    if asked.decoder == "transformers":
        return None, 'policy.decoder = "transformers" asks for it.'
    try:
        return shape_from_hf(config, str(folder), limit=asked.context), ""
    except FormError as error:
        if asked.decoder == "own":
            raise ModelError(
                f'{error} policy.decoder = "own" forbids to run it by transformers: set policy.decoder = "auto", or '
                "use another model."
            ) from None
        return None, str(error)


def _with_saved_adapter(folder: Path, wanted: _Wanted) -> Policy:
    """Return the policy of a checkpoint that holds an adapter: its base is loaded from where it was."""
    saved = read_base(folder)
    below = model_folder(saved.model)
    if not below.is_dir():
        raise ModelError(
            f'{folder} holds an adapter for the model "{saved.model}", which is not there any more. Put it back, or '
            f"correct {folder / 'base.json'}."
        )
    config, end_tokens = read_config(below)
    tokenizer = load_tokenizer(folder, end_tokens, template=wanted.asked.chat_template)
    shape, why = _own_shape(config, below, wanted.asked)
    decoder, base = wanted.base(saved.model, below, shape, why, four_bit=saved.four_bit)
    if base.fingerprint != saved.fingerprint:
        raise ModelError(
            f"{folder} holds an adapter for weights with the fingerprint {saved.fingerprint}, but {saved.model} has "
            f"{base.fingerprint} now (policy.dtype = {wanted.dtype}). It was trained on others; put those back."
        )
    read_adapter(decoder, folder)
    origin = Origin(config=config, generation=_generation(below), revision=revision_of(below), hosted=why)
    return Policy(decoder, tokenizer, wanted.device, wanted.dtype, _adapted(origin, base))


def _adapted(origin: Origin, base: Base) -> Origin:
    return replace(origin, hosted=origin.hosted or "policy.lora trains an adapter with peft.", base=base)


def _check_vocabulary(tokenizer: Tokenizer, vocab: int | None, folder: Path) -> None:
    """Raise `ModelError` if the tokenizer can say what the weights have no row for."""
    if vocab is None:
        return
    if tokenizer.vocab_size > vocab:
        raise ModelError(
            f"{folder}: the tokenizer knows {tokenizer.vocab_size} tokens, the weights {vocab}. They do not belong "
            "together."
        )
    beyond = [t for t in (*tokenizer.end_tokens, tokenizer.largest_token) if t >= vocab]
    if beyond:
        raise ModelError(
            f"{folder}: the tokenizer has a token number {beyond[0]} ({tokenizer.pieces(beyond[:1])[0]!r}), the "
            f"weights have {vocab} rows. They do not belong together."
        )


def _vocabulary(config: Mapping[str, Any]) -> int | None:
    value = config.get("vocab_size")
    return int(value) if isinstance(value, int) else None


def _generation(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found
