"""The policy: network, tokenizer and shape in one object, loaded from or saved to one folder."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ratchet.config.schema import PolicySection, TinySection
from ratchet.core.seeds import derive
from ratchet.core.shape import ModelShape
from ratchet.kernels.choose import Attention, ops_for
from ratchet.policy.adapter import Base, Snapshot, adapter_weights, merged_weights, save_adapter
from ratchet.policy.checkpoint import joined_weights, split_weights, write_config, write_weights
from ratchet.policy.decoder import Decoder
from ratchet.policy.hosted import HostedDecoder, hosted_copy, hosted_from_config
from ratchet.policy.shape import shape_to_hf
from ratchet.policy.tokenizer import Tokenizer, tiny_tokenizer

Precision = Literal["float32", "bfloat16"]

Network = Decoder | HostedDecoder
"""What is trained: our own decoder, or a model that `transformers` computes."""

FrozenNetwork = Decoder | HostedDecoder | Snapshot
"""What is only looked at: a reference, a teacher."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a policy comes from, and what must be kept of it."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """``config.json`` as it was found; empty for a model made here."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """``generation_config.json`` as it was found."""
    revision: str = ""
    """Commit of the hub's model."""
    hosted: str = ""
    """Why `transformers` computes it and not our own decoder; empty if our own does."""
    base: Base | None = None
    """The frozen weights beneath an adapter; None without one."""


class Policy:
    """A network with the tokenizer it was made for."""

    def __init__(
        self,
        decoder: Network,
        tokenizer: Tokenizer,
        device: torch.device,
        dtype: Precision,
        origin: Origin | None = None,
    ) -> None:
        """`dtype` is that of matrix products; the decoder's own functions must be those of this dtype."""
        self.decoder, self.tokenizer, self.device, self.dtype = decoder, tokenizer, device, dtype
        self.shape: ModelShape = decoder.shape
        self.origin = origin or Origin()

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: torch.device | str = "cpu",
        dtype: Precision = "float32",
        asked: PolicySection | None = None,
        seed: int = 0,
    ) -> Policy:
        """Return the policy of a Hugging Face folder or hub id. Raises `ModelError` when it cannot be used.

        `asked` says what else is wanted of it: the context it is for, which decoder computes it, an adapter (drawn with
        `seed`), a chat template of one's own.
        """
        from ratchet.policy.load import load_policy  # it makes policies, so it must come after this class

        return load_policy(folder, torch.device(device), dtype, asked or PolicySection(), seed)

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
        attention: Attention = "sdpa",
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
        decoder = Decoder(shape, ops_for(device, dtype, attention))
        decoder.initialise(torch.Generator().manual_seed(derive(seed, "initialise") % 2**62))
        return cls(decoder.to(device), tokenizer, device, dtype)

    def weights(self) -> dict[str, Tensor]:
        """Return what is trained, by name: views, not copies. With an adapter, the adapter alone."""
        if self.origin.base is not None:
            assert isinstance(self.decoder, HostedDecoder)
            return adapter_weights(self.decoder)
        return {name: p.detach() for name, p in self.decoder.named_parameters()}

    def fingerprint(self, weights: Mapping[str, Tensor] | None = None) -> str:
        """Return a digest of the weights, or of others such as `weights` gives: twelve hexadecimal digits."""
        own = fingerprint(self.weights() if weights is None else weights)
        base = self.origin.base
        return own if base is None else hashlib.blake2b(f"{base.fingerprint} {own}".encode(), digest_size=6).hexdigest()

    @property
    def num_trained(self) -> int:
        """Number of weights that are trained."""
        return sum(w.numel() for w in self.weights().values())

    def frozen(self) -> FrozenNetwork:
        """Return the network as it is now, which will not change any more."""
        if self.origin.base is not None:
            assert isinstance(self.decoder, HostedDecoder)
            return Snapshot(self.decoder, self.weights())
        return copy.deepcopy(self.decoder).requires_grad_(False)

    def stored_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return weights such as `weights` gives, whole and by the names `transformers` knows them by."""
        if isinstance(self.decoder, Decoder):
            return split_weights(weights, self.shape)
        if self.origin.base is not None:
            return merged_weights(self.decoder, weights)
        return {name.removeprefix("model."): weight for name, weight in weights.items()}

    def own_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return weights such as `weights` gives, whole and as our own decoder names them; for models of its form."""
        assert not self.shape.counted
        if isinstance(self.decoder, Decoder):
            return weights
        return joined_weights(self.stored_weights(weights), self.shape)

    def hosted(self) -> HostedDecoder:
        """Return a model of `transformers` of this form, whose weights are yet to be copied in."""
        bf16 = self.dtype == "bfloat16"
        if isinstance(self.decoder, HostedDecoder) and self.origin.base is None:
            return hosted_copy(self.decoder)
        config = {k: v for k, v in self._config().items() if k != "quantization_config"}
        shape = self.shape
        return hosted_from_config(config, shape, device=self.device, bf16=bf16).requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write a folder from which `load` makes this policy again, bit for bit.

        It is one that `transformers` loads; with an adapter, one that `peft` loads.
        """
        base = self.origin.base
        if base is None:
            self.export(folder)
            return
        folder.mkdir(parents=True, exist_ok=True)
        assert isinstance(self.decoder, HostedDecoder)
        save_adapter(self.decoder, base, folder)
        self.tokenizer.save(folder)

    def export(self, folder: Path, *, dtype: Precision = "float32") -> None:
        """Write a folder that `transformers` loads: weights, configuration, tokenizer, chat template.

        An adapter is merged into the weights.
        """
        folder.mkdir(parents=True, exist_ok=True)
        stored, kind = self.stored_weights(self.weights()), torch.bfloat16 if dtype == "bfloat16" else torch.float32
        if self.shape.counted:  # its files may name and arrange weights in their own way
            model = self.decoder
            if self.origin.base is not None or dtype != "float32":
                model = self.hosted()
                model.copy_stored(stored)
                model.model.to(kind)
            assert isinstance(model, HostedDecoder)
            model.model.save_pretrained(folder)
        else:
            write_weights(stored, folder, kind)
            config = {k: v for k, v in self._config().items() if k not in ("torch_dtype", "quantization_config")}
            write_config({**config, "dtype": dtype}, folder, **self._tokens())
        if self.origin.generation:
            text = json.dumps({**self.origin.generation, "eos_token_id": self._tokens()["end_tokens"]}, indent=2)
            (folder / "generation_config.json").write_text(text + "\n")
        self.tokenizer.save(folder)

    def _config(self) -> Mapping[str, Any]:
        return self.origin.config or shape_to_hf(self.shape, **self._tokens())

    def _tokens(self) -> dict[str, Any]:
        return {"end_tokens": list(self.tokenizer.end_tokens), "pad_token": self.tokenizer.pad_token}


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
