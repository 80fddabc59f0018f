"""Reading and writing the ``config.json`` of a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet.core.errors import ModelError
from ratchet.core.shape import ModelShape
from ratchet.policy.rope import scaling_from_hf

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "seed_oss": "SeedOssForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
"""Families of one form: RMSNorm, rotary positions, grouped queries, SwiGLU. `model_type` -> architecture."""

SCALED = ("default", "dynamic", "linear", "llama3", "yarn")
"""Kinds of rotary scaling that are computed."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 4096},
    "phi3": {"rms_norm_eps": 1e-5, "sliding_window": None},
    "seed_oss": {"attention_bias": True, "head_dim": 128},
    "smollm3": {"tie_word_embeddings": True, "rope_theta": 2e6},
}
"""What a key that is missing means to `transformers`, where that differs from family to family."""


class FormError(ModelError):
    """A sound model of another form than the project's own decoder computes."""


def shape_from_hf(config: Mapping[str, Any], where: str, *, limit: int = 0) -> ModelShape:
    """Return the shape a ``config.json`` describes, for contexts of at most `limit` tokens (0: its own limit).

    Raises `FormError` for families of another form and for options this decoder does not compute, `ModelError` for an
    incomplete configuration.
    """
    family = config.get("model_type", "")
    if family not in FAMILIES:
        raise FormError(
            f'{where}: model_type "{family}" is not one this decoder computes ({", ".join(sorted(FAMILIES))}).'
        )
    config = {**DEFAULTS.get(family, {}), **config}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = _rope_kind(rope, where)
    try:
        heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
        most = int(config.get("max_position_embeddings", 2048))
        context = min(most, limit or most)
        attention_bias = bool(config.get("attention_bias")) and family in ("llama", "qwen3", "seed_oss", "smollm3")
        shape = ModelShape(
            family=family,
            vocab=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            layers=layers,
            query_heads=heads,
            key_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
            intermediate=int(config["intermediate_size"]),
            context=context,
            rope_base=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            tied=bool(config.get("tie_word_embeddings", False)),
            qk_norm=family == "qwen3",
            qkv_bias=family == "qwen2" or attention_bias,
            out_bias=bool(config.get("attention_out_bias")) if family == "seed_oss" else attention_bias,
            mlp_bias=bool(config.get("mlp_bias")) and family in ("llama", "seed_oss", "smollm3"),
            window=_window(config, family, layers, context, where),
            unrotated=_unrotated(config, layers) if family == "smollm3" else (),
            scaling=scaling_from_hf(rope, kind, most, where),
        )
    except KeyError as missing:
        raise ModelError(
            f"{where}: config.json has no {missing}. It is not a complete {family} configuration."
        ) from None
    _check(config, rope, where)
    return shape


def _rope_kind(rope: Mapping[str, Any], where: str) -> str:
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind not in SCALED:
        raise FormError(f'{where}: rope scaling "{kind}" is not computed by this decoder.')
    return kind


def _check(config: Mapping[str, Any], rope: Mapping[str, Any], where: str) -> None:
    """Raise `FormError` for options that this decoder does not compute."""
    partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    refused = {
        f'activation "{config.get("hidden_act")}"': config.get("hidden_act", "silu") != "silu",
        f"a rotary embedding of {partial:g} of each head": partial != 1.0,
        "quantised weights": bool(config.get("quantization_config")),
    }
    for what, present in refused.items():
        if present:
            raise FormError(f"{where}: {what} is not computed by this decoder.")


def _window(config: Mapping[str, Any], family: str, layers: int, context: int, where: str) -> int:
    """Return the width of sliding-window attention; 0 if no context of ours is longer. Raises `FormError`."""
    everywhere = family in ("mistral", "phi3")
    window = config.get("sliding_window", 4096) if everywhere or config.get("use_sliding_window") else None
    if not window or int(window) >= context:
        return 0
    first = int(config.get("max_window_layers", 28))
    kinds = config.get("layer_types") or ["sliding" if i >= first else "full" for i in range(layers)]
    sliding = [str(kind).startswith("sliding") for kind in kinds[:layers]]
    if everywhere or (all(sliding) and family != "smollm3"):
        return int(window)
    if family == "smollm3" or any(sliding):
        raise FormError(
            f"{where}: sliding-window attention of {window} tokens in some layers is not computed by this decoder for "
            f"contexts of {context} (policy.context = {window} would need no window)."
        )
    return 0


def _unrotated(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Return the layers without rotary positions."""
    every = int(config.get("no_rope_layer_interval", 4))
    rotated = config.get("no_rope_layers") or [int((i + 1) % every != 0) for i in range(layers)]
    return tuple(i for i in range(layers) if not rotated[i])


def shape_to_hf(shape: ModelShape, *, end_tokens: list[int], pad_token: int) -> dict[str, Any]:
    """Return the ``config.json`` that `transformers` reads as this shape: of a model that was made here."""
    config: dict[str, Any] = {
        "architectures": [FAMILIES[shape.family]],
        "model_type": shape.family,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.query_heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head_size,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_base,
        "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": shape.tied,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_cache": True,
        "dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": end_tokens[0] if len(end_tokens) == 1 else end_tokens,
        "pad_token_id": pad_token,
    }
    if shape.family in ("llama", "qwen3"):
        config["attention_bias"] = False
    if shape.family == "mistral":
        config["sliding_window"] = None
    return config
