"""Reading and writing Hugging Face checkpoint folders: which stored tensor is which part of the decoder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ratchet.core.errors import ModelError
from ratchet.core.shape import ModelShape
from ratchet.policy.decoder import Decoder

Stored = tuple[str, int]
"""A stored tensor's name and its number of rows (0 for a vector or a whole matrix)."""


def stored_names(shape: ModelShape) -> dict[str, list[Stored]]:
    """Return, for each decoder parameter, the stored tensors that make it up, top to bottom."""
    names: dict[str, list[Stored]] = {
        "embedding": [("model.embed_tokens.weight", 0)],
        "final_norm": [("model.norm.weight", 0)],
    }
    if not shape.tied:
        names["untied_head"] = [("lm_head.weight", 0)]
    for i in range(shape.layers):
        names |= _layer_names(shape, f"layers.{i}.", f"model.layers.{i}.")
    return names


def _layer_names(shape: ModelShape, ours: str, theirs: str) -> dict[str, list[Stored]]:
    q, kv, wide = shape.query_heads * shape.head_size, shape.key_heads * shape.head_size, shape.intermediate
    attn, mlp = theirs + "self_attn.", theirs + "mlp."
    qkv = [(f"{attn}{x}_proj", n) for x, n in (("q", q), ("k", kv), ("v", kv))]
    gate_up = [(f"{mlp}{x}_proj", wide) for x in ("gate", "up")]
    if shape.family == "phi3":  # stored as we keep them
        qkv, gate_up = [(attn + "qkv_proj", 0)], [(mlp + "gate_up_proj", 0)]
    names: dict[str, list[Stored]] = {
        ours + "attn_norm": [(theirs + "input_layernorm.weight", 0)],
        ours + "qkv": [(f"{name}.weight", n) for name, n in qkv],
        ours + "out": [(attn + "o_proj.weight", 0)],
        ours + "mlp_norm": [(theirs + "post_attention_layernorm.weight", 0)],
        ours + "gate_up": [(f"{name}.weight", n) for name, n in gate_up],
        ours + "down": [(mlp + "down_proj.weight", 0)],
    }
    if shape.qkv_bias:
        names[ours + "qkv_bias"] = [(f"{name}.bias", n) for name, n in qkv]
    if shape.out_bias:
        names[ours + "out_bias"] = [(attn + "o_proj.bias", 0)]
    if shape.mlp_bias:
        names[ours + "gate_up_bias"] = [(f"{name}.bias", n) for name, n in gate_up]
        names[ours + "down_bias"] = [(mlp + "down_proj.bias", 0)]
    if shape.qk_norm:
        names[ours + "q_norm"] = [(attn + "q_norm.weight", 0)]
        names[ours + "k_norm"] = [(attn + "k_norm.weight", 0)]
    return names


def split_weights(weights: Mapping[str, Tensor], shape: ModelShape) -> dict[str, Tensor]:
    """Return the decoder's parameters under the names `transformers` knows: views where it can be."""
    tensors: dict[str, Tensor] = {}
    for ours, stored in stored_names(shape).items():
        whole = weights[ours]
        parts = whole.split([rows for _, rows in stored]) if len(stored) > 1 else [whole]
        tensors |= {name: part for (name, _), part in zip(stored, parts, strict=True)}
    return tensors


def joined_weights(stored: Mapping[str, Tensor], shape: ModelShape) -> dict[str, Tensor]:
    """Return tensors under the names `transformers` knows as the decoder's parameters."""
    return {
        ours: torch.cat([stored[name] for name, _ in pieces]) if len(pieces) > 1 else stored[pieces[0][0]]
        for ours, pieces in stored_names(shape).items()
    }


def read_weights(decoder: Decoder, folder: Path) -> None:
    """Fill a decoder from a folder's safetensors, whole or sharded.

    Raises `ModelError` naming the tensor that is missing or has another shape.
    """
    files = _files(folder)
    parameters = dict(decoder.named_parameters())
    with torch.no_grad():
        for ours, stored in stored_names(decoder.shape).items():
            pieces = []
            for name, rows in stored:
                piece, whole = _tensor(files, name, folder), parameters[ours].shape
                expected = (rows, *whole[1:]) if rows else tuple(whole)
                if tuple(piece.shape) != expected:
                    raise ModelError(
                        f"{folder}: {name} has shape {tuple(piece.shape)}, config.json implies {expected}. "
                        "Weights and configuration do not belong together."
                    )
                pieces.append(piece)
            joined = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
            parameters[ours].copy_(joined)


def write_weights(tensors: Mapping[str, Tensor], folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``model.safetensors`` from tensors with the names `transformers` reads."""
    plain = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})


def write_config(config: Mapping[str, Any], folder: Path, *, end_tokens: list[int], pad_token: int) -> None:
    """Write ``config.json`` and ``generation_config.json``."""
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"eos_token_id": end_tokens, "pad_token_id": pad_token}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def read_config(folder: Path) -> tuple[dict[str, Any], list[int]]:
    """Return a folder's ``config.json`` and its end tokens. Raises `ModelError` if there is no checkpoint."""
    if not folder.is_dir():
        raise ModelError(
            f'policy.model = "{folder}": there is no such folder. Give the folder of a Hugging Face checkpoint.'
        )
    path = folder / "config.json"
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise ModelError(f"{folder} has no config.json: it is not a Hugging Face checkpoint. It holds: {found}.")
    try:
        config = json.loads(path.read_text())
        generation_path = folder / "generation_config.json"
        generation = json.loads(generation_path.read_text()) if generation_path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{folder}: a configuration file is not JSON: {error}.") from None
    if not isinstance(config, dict) or not isinstance(generation, dict):
        raise ModelError(f"{folder}: a configuration file holds no JSON object. Copy the checkpoint again.")
    return config, _end_tokens(config, generation)


def _end_tokens(*sources: Mapping[str, Any]) -> list[int]:
    end: list[int] = []
    for source in sources:
        value = source.get("eos_token_id")
        for token in value if isinstance(value, list) else [] if value is None else [value]:
            if token not in end:
                end.append(int(token))
    return end


def _files(folder: Path) -> dict[str, Path]:
    """Return which file of a folder holds each stored tensor."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            return {name: folder / file for name, file in json.loads(index.read_text())["weight_map"].items()}
        except (ValueError, KeyError):
            raise ModelError(f"{index} is not an index of shards. Copy the checkpoint again.") from None
    single = folder / "model.safetensors"
    if not single.is_file():
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        held = f" It has {pickled[0]}, whose form can run code when it is read." if pickled else ""
        raise ModelError(
            f"{folder} has no model.safetensors.{held} Save it again: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...) writes safetensors."
        )
    return dict.fromkeys(_names(single), single)


def _names(file: Path) -> Iterator[str]:
    try:
        with safe_open(file, framework="pt") as opened:
            yield from list(opened.keys())
    except SafetensorError as error:
        raise ModelError(f"{file} cannot be read: {error}. The file is damaged or incomplete.") from None


def _tensor(files: dict[str, Path], name: str, folder: Path) -> Tensor:
    if name not in files:
        raise ModelError(f"{folder}: the weights hold no tensor {name}, which config.json implies.")
    try:
        with safe_open(files[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{files[name]} cannot be read: {error}. The file is damaged or missing.") from None
