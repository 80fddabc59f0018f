"""Reading and writing the ``config.json`` of a Hugging Face checkpoint. No torch."""

from __future__ import annotations

from typing import Any

from ratchet.core.errors import ModelError
from ratchet.core.shape import ModelShape

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Families of one form: RMSNorm, rotary positions, grouped queries, SwiGLU. `model_type` -> architecture."""


def shape_from_hf(config: dict[str, Any], where: str) -> ModelShape:
    """Return the shape a ``config.json`` describes.

    Raises `ModelError` for families of another form and for options this decoder does not compute.
    """
    family = config.get("model_type", "")
    if family not in FAMILIES:
        raise ModelError(
            f'{where}: model_type "{family}" is not one this decoder computes ({", ".join(sorted(FAMILIES))}). '
            "Use a checkpoint of one of these families."
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    refused = {
        f'rope scaling "{kind}"': kind != "default",
        "sliding-window attention": bool(config.get("sliding_window"))
        and (family == "mistral" or bool(config.get("use_sliding_window"))),
        "biases in the feed-forward layers": bool(config.get("mlp_bias")),
        "a bias on the attention output": family in ("llama", "qwen3") and bool(config.get("attention_bias")),
        f'activation "{config.get("hidden_act")}"': config.get("hidden_act", "silu") != "silu",
    }
    for what, present in refused.items():
        if present:
            raise ModelError(f"{where}: {what} is not computed by this decoder. Use a checkpoint without it.")
    try:
        heads = int(config["num_attention_heads"])
        return ModelShape(
            family=family,
            vocab=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            query_heads=heads,
            key_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
            intermediate=int(config["intermediate_size"]),
            context=int(config.get("max_position_embeddings", 2048)),
            rope_base=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            tied=bool(config.get("tie_word_embeddings", False)),
            qk_norm=family == "qwen3",
            qkv_bias=family == "qwen2",
        )
    except KeyError as missing:
        raise ModelError(
            f"{where}: config.json has no {missing}. It is not a complete {family} configuration."
        ) from None


def shape_to_hf(shape: ModelShape, *, end_tokens: list[int], pad_token: int) -> dict[str, Any]:
    """Return the ``config.json`` that `transformers` reads as this shape."""
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
