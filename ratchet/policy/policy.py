"""The policy: decoder, tokenizer and shape in one object, loaded from or saved to one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ratchet.config.schema import TinySection
from ratchet.core.errors import ModelError
from ratchet.core.seeds import derive
from ratchet.core.shape import ModelShape
from ratchet.kernels.choose import ops_for
from ratchet.policy.checkpoint import read_config, read_weights, write_config, write_weights
from ratchet.policy.decoder import Decoder
from ratchet.policy.shape import shape_from_hf
from ratchet.policy.tokenizer import Tokenizer, load_tokenizer, tiny_tokenizer

Precision = Literal["float32", "bfloat16"]


class Policy:
    """A decoder with the tokenizer it was made for."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, device: torch.device, dtype: Precision) -> None:
        """`dtype` is that of matrix products; the decoder's own functions must be those of this dtype."""
        self.decoder, self.tokenizer, self.device, self.dtype = decoder, tokenizer, device, dtype
        self.shape: ModelShape = decoder.shape

    @classmethod
    def load(cls, folder: Path | str, *, device: torch.device | str = "cpu", dtype: Precision = "float32") -> Policy:
        """Return the policy of a Hugging Face checkpoint folder. Raises `ModelError` when it cannot be used."""
        folder, device = Path(folder), torch.device(device)
        config, end_tokens = read_config(folder)
        shape = shape_from_hf(config, str(folder))
        tokenizer = load_tokenizer(folder, end_tokens)
        if tokenizer.vocab_size > shape.vocab:
            raise ModelError(
                f"{folder}: the tokenizer knows {tokenizer.vocab_size} tokens, the weights {shape.vocab}. "
                "They do not belong together."
            )
        decoder = Decoder(shape, ops_for(device, dtype))
        read_weights(decoder, folder)
        return cls(decoder.to(device), tokenizer, device, dtype)

    @classmethod
    def tiny(
        cls,
        options: TinySection,
        *,
        words: Sequence[str],
        characters: str,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: Precision = "float32",
    ) -> Policy:
        """Return a freshly initialised small model that reads and writes the given words and characters."""
        device = torch.device(device)
        tokenizer = tiny_tokenizer([*words, *options.words], characters + options.characters)
        shape = ModelShape(
            family=options.family,
            vocab=tokenizer.vocab_size,
            hidden=options.hidden,
            layers=options.layers,
            query_heads=options.query_heads,
            key_heads=options.key_heads,
            head_size=options.head_size,
            intermediate=options.intermediate,
            context=options.context,
            rope_base=options.rope_base,
            norm_eps=1e-6,
            tied=options.tied,
            qk_norm=options.family == "qwen3",
            qkv_bias=options.family == "qwen2",
        )
        decoder = Decoder(shape, ops_for(device, dtype))
        decoder.initialise(torch.Generator().manual_seed(derive(seed, "initialise") % 2**62))
        return cls(decoder.to(device), tokenizer, device, dtype)

    def weights(self) -> dict[str, Tensor]:
        """Return the decoder's parameters by name: views, not copies."""
        return {name: p.detach() for name, p in self.decoder.named_parameters()}

    def fingerprint(self) -> str:
        """Return a digest of the weights: twelve hexadecimal digits."""
        return fingerprint(self.weights())

    def save(self, folder: Path) -> None:
        """Write a folder that `transformers` loads: weights, configuration, tokenizer, chat template."""
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(self.decoder, folder)
        tokenizer = self.tokenizer
        write_config(self.shape, folder, end_tokens=list(tokenizer.end_tokens), pad_token=tokenizer.pad_token)
        tokenizer.save(folder)


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return a digest that changes when any bit of any weight does: twelve hexadecimal digits.

    Each tensor's bit patterns are summed, plainly and weighted by position, modulo 2^64: a single pass at memory
    speed on any device. It guards against mistakes, not against forgery.
    """
    digest = hashlib.blake2b(digest_size=6)
    for name in sorted(weights):
        bits = weights[name].contiguous().view(-1).float().view(torch.int32).long()
        place = torch.arange(1, len(bits) + 1, device=bits.device)
        sums = torch.stack([bits.sum(), (bits * (place * 2654435761 | 1)).sum()]).cpu()
        digest.update(name.encode() + sums.numpy().tobytes())
    return digest.hexdigest()
