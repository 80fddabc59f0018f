"""Models that `transformers` computes: any `AutoModelForCausalLM`, behind the interface of our own decoder.

For families of another form than `policy.decoder` computes, and for adapters. Nothing here samples: `engines.hosted`
does. `transformers` is loaded when it is needed and not before; code that a checkpoint brings along is never run.

What our own decoder does better: prompts that samples share are computed once for each of them here, and the kernels
of `ratchet.kernels` are not used.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ratchet.core.errors import ModelError
from ratchet.core.shape import ModelShape
from ratchet.kernels import reference
from ratchet.kernels.layout import Layout
from ratchet.kernels.reference import Ops, TokenStats

PROBED_TOKENS = 7
"""Tokens on which it is found out how a model makes its logits."""

LOADING = (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError)
"""What `transformers` raises for a checkpoint it cannot use."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A packed batch as padded rows: parents stand before their children, once for each."""

    tokens: Tensor
    """(R, L) token numbers, padded on the right with 0."""
    mask: Tensor
    """(R, L) 1 for tokens, 0 for padding."""
    place: Tensor
    """(T,) where each packed token stands in the flattened rows."""


def rows_of(tokens: Tensor, layout: Layout) -> Rows:
    """Return packed tokens as rows. A parent's own tokens are found in the row of its first child."""
    start, parent = layout.start.tolist(), layout.parent.tolist()
    with_children = set(parent)
    spans = []
    for p in range(len(parent)):
        own = np.arange(start[p], start[p + 1])
        if parent[p] >= 0:
            spans.append(np.concatenate([np.arange(start[parent[p]], start[parent[p] + 1]), own]))
        elif p not in with_children and len(own):
            spans.append(own)
    width = max(map(len, spans))
    index = np.zeros((len(spans), width), dtype=np.int64)
    mask = np.zeros((len(spans), width), dtype=np.int64)
    place = np.zeros(start[-1], dtype=np.int64)
    for r in range(len(spans) - 1, -1, -1):  # backwards: the first child's row has the last word on its parent
        span = spans[r]
        index[r, : len(span)], mask[r, : len(span)] = span, 1
        place[span] = r * width + np.arange(len(span))
    at, there = torch.from_numpy(index).to(tokens.device), torch.from_numpy(mask).to(tokens.device)
    return Rows(tokens[at] * there, there, torch.from_numpy(place).to(tokens.device))


def _stats_of_logits(
    hidden: Tensor,
    head: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    reference: tuple[Tensor, Tensor] | None = None,
    max_logits: int = 0,
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None,
) -> TokenStats:
    """`reference.token_stats` of a model whose `hidden` are its logits already; they are held at once."""
    logp = (hidden.float() / temperature).log_softmax(-1)
    p = logp.exp()
    entropy = -(p * logp).sum(-1)
    kl = torch.zeros_like(entropy)
    if reference is not None:
        kl = (p * (logp - (reference[0].float() / temperature).log_softmax(-1))).sum(-1)
    return TokenStats(logp.gather(1, target[:, None])[:, 0], entropy, kl)


PLAIN = Ops(reference.linear, reference.rms_norm, reference.swiglu, reference.attention, reference.token_stats)
WHOLE = Ops(reference.linear, reference.rms_norm, reference.swiglu, reference.attention, _stats_of_logits)


class HostedDecoder(nn.Module):
    """A model of `transformers` that answers like `policy.decoder.Decoder`."""

    def __init__(self, model: Any, shape: ModelShape, *, bf16: bool) -> None:
        """`bf16` computes matrix products in bfloat16; weights keep the type they have."""
        super().__init__()
        self.model, self.shape, self.bf16 = model.eval(), shape, bf16
        self.takes = frozenset(inspect.signature(model.forward).parameters)
        self._checkpointing = False
        self.whole = not self._has_plain_head()
        """Whether `forward` returns logits, because they are more than a product of hidden states with a matrix."""
        self.ops = WHOLE if self.whole else PLAIN

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        first: Tensor = next(self.model.parameters())
        return first.device

    @property
    def head(self) -> Tensor:
        """(V, C) output projection, a last column for its bias where it has one; empty if `whole`."""
        if self.whole:
            return torch.zeros(0, 0, device=self.device)
        out = self.model.get_output_embeddings()
        weight: Tensor = out.weight if out.weight.dtype == torch.float32 else out.weight.float()
        return weight if out.bias is None else torch.cat([weight, out.bias.float()[:, None]], 1)

    @property
    def untied_head(self) -> Tensor | None:
        """The output projection if it is not the embedding."""
        out = self.model.get_output_embeddings()
        if out is None or out.weight is self.model.get_input_embeddings().weight:
            return None
        weight: Tensor = out.weight
        return weight

    @property
    def checkpointing(self) -> bool:
        """Whether a layer's activations are computed again for its backward pass instead of kept."""
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        self._checkpointing = wanted
        if not wanted:
            return
        if not self.model.supports_gradient_checkpointing:
            raise ModelError(
                f"train.gradient_checkpointing = true, but {type(self.model).__name__} of transformers has no such "
                "thing. Leave it out."
            )
        from transformers.modeling_layers import GradientCheckpointingLayer

        with warnings.catch_warnings():  # later versions have another name for it too, which earlier ones lack
            warnings.simplefilter("ignore", FutureWarning)
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for layer in self.model.modules():
            # Only the layers themselves must think that they are being trained; dropout inside them must not.
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = True

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Return the final hidden states of packed tokens, or their logits if `whole`. Shapes: (T,) to (T, C)."""
        rows = rows_of(tokens, layout)
        out = self._logits(rows.tokens, rows.mask) if self.whole else self._states(rows.tokens, rows.mask)
        found: Tensor = out.flatten(0, 1)[rows.place].float()
        if not self.whole and self.model.get_output_embeddings().bias is not None:
            found = torch.cat([found, torch.ones_like(found[:, :1])], 1)
        return found

    def call(self, **arguments: Any) -> Any:
        """Return what the model returns for those arguments that it takes."""
        known = {k: v for k, v in arguments.items() if v is not None and (k in self.takes or "kwargs" in self.takes)}
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.model(**known)

    def copy_stored(self, weights: Mapping[str, Tensor]) -> None:
        """Copy in weights under the names the model itself has for them."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])

    def _states(self, tokens: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            states: Tensor = self.model.base_model(
                input_ids=tokens, attention_mask=mask, use_cache=False
            ).last_hidden_state
        return states

    def _logits(self, tokens: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.call(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        return logits

    @torch.no_grad()
    def _has_plain_head(self) -> bool:
        """Whether logits are the final hidden states times the output matrix, asked of the model itself."""
        out, base = self.model.get_output_embeddings(), self.model.base_model
        if not isinstance(out, nn.Linear) or base is self.model:
            return False
        count = min(PROBED_TOKENS, self.shape.vocab)
        tokens = torch.arange(count, device=self.device)[None] % self.shape.vocab
        mask = torch.ones_like(tokens)
        states, logits = self._states(tokens, mask), self._logits(tokens, mask)
        if states.shape[-1] != out.in_features:
            return False
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            ours = F.linear(states.to(out.weight.dtype), out.weight, out.bias)
        room = 2e-2 if self.bf16 or out.weight.dtype != torch.float32 else 1e-4
        return bool(torch.allclose(ours.float(), logits.float(), rtol=room, atol=room))


def load_hosted(
    folder: Path,
    *,
    device: torch.device,
    bf16: bool,
    limit: int,
    shape: ModelShape | None = None,
    four_bit: bool = False,
) -> HostedDecoder:
    """Return the model of a folder as `transformers` computes it, with its weights in float32.

    `shape` says what it is where that is known better; `four_bit` keeps the weights quantised, for an adapter's base.

    Raises `ModelError` if `transformers` is missing, cannot load it, or finds no weights for a part of it.
    """
    library = _library(folder)
    options: dict[str, Any] = {"dtype": torch.float32}
    if four_bit:
        options = {"dtype": torch.bfloat16, "quantization_config": _four_bit(library), "device_map": {"": device}}
    try:
        model, told = library.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True, **options
        )
    except LOADING as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{folder}: neither our own decoder nor transformers can run this model. transformers says: {reason[:400]}"
        ) from None
    wrong = [*told["missing_keys"], *(str(entry) for entry in told["mismatched_keys"])]
    if wrong:
        raise ModelError(
            f"{folder}: the weights hold no fitting tensor for {sorted(wrong)[0]} ({len(wrong)} such). Weights and "
            "configuration do not belong together."
        )
    if not four_bit:
        model = model.to(device)
    return HostedDecoder(model, shape or hosted_shape(model, folder, limit), bf16=bf16)


def _library(folder: Path | str) -> Any:
    try:
        import transformers
    except ImportError:
        raise ModelError(
            f"{folder} needs the library transformers: our own decoder does not run it. pip install 'ratchet[hf]'"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _four_bit(library: Any) -> Any:
    return library.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def hosted_from_config(
    config: Mapping[str, Any], shape: ModelShape, *, device: torch.device, bf16: bool
) -> HostedDecoder:
    """Return a model of `transformers` for a ``config.json``, with weights that are yet to be copied in."""
    library = _library(str(config.get("model_type")))
    made = library.AutoConfig.for_model(**{k: v for k, v in config.items() if k != "transformers_version"})
    with torch.random.fork_rng(devices=[]):
        model = library.AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    return HostedDecoder(model.to(device), shape, bf16=bf16)


def hosted_copy(decoder: HostedDecoder) -> HostedDecoder:
    """Return a copy of a model that will not change with it."""
    return copy.deepcopy(decoder).requires_grad_(False)


def hosted_shape(model: Any, folder: Path, limit: int) -> ModelShape:
    """Return what can be known of a model of any form. Raises `ModelError` if it is no decoder of text."""
    config = model.config.get_text_config(decoder=True)
    values = {
        **config.to_dict(),
        **{ours: config.to_dict().get(theirs) for ours, theirs in config.attribute_map.items()},
    }
    try:
        hidden, heads = int(values["hidden_size"]), int(values.get("num_attention_heads") or 1)
        layers, vocab = int(values["num_hidden_layers"]), int(values["vocab_size"])
    except (KeyError, TypeError):
        raise ModelError(f"{folder}: config.json does not say how wide and deep the model is.") from None
    most = int(values.get("max_position_embeddings") or values.get("max_seq_len") or 1 << 20)
    out, into = model.get_output_embeddings(), model.get_input_embeddings()
    return ModelShape(
        family=str(values.get("model_type", "unknown")),
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        query_heads=heads,
        key_heads=int(values.get("num_key_value_heads") or heads),
        head_size=int(values.get("head_dim") or hidden // heads),
        intermediate=int(values.get("intermediate_size") or 4 * hidden),
        context=min(most, limit or most),
        rope_base=0.0,
        norm_eps=0.0,
        tied=out is not None and out.weight is into.weight,
        qk_norm=False,
        qkv_bias=False,
        counted=sum(p.numel() for p in model.parameters()),
    )
