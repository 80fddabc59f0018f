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
from ratchet.policy.shape import shape_to_hf

Stored = tuple[str, int]
"""A stored tensor's name and its number of rows (0 for a vector or a whole matrix)."""


def stored_names(shape: ModelShape) -> dict[str, list[Stored]]:
    """Return, for each decoder parameter, the stored tensors that make it up, top to bottom."""
    q, kv = shape.query_heads * shape.head_size, shape.key_heads * shape.head_size
    names: dict[str, list[Stored]] = {
        "embedding": [("model.embed_tokens.weight", 0)],
        "final_norm": [("model.norm.weight", 0)],
    }
    if not shape.tied:
        names["untied_head"] = [("lm_head.weight", 0)]
    for i in range(shape.layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        attn, mlp = theirs + "self_attn.", theirs + "mlp."
        names |= {
            ours + "attn_norm": [(theirs + "input_layernorm.weight", 0)],
            ours + "qkv": [(f"{attn}{x}_proj.weight", n) for x, n in (("q", q), ("k", kv), ("v", kv))],
            ours + "out": [(attn + "o_proj.weight", 0)],
            ours + "mlp_norm": [(theirs + "post_attention_layernorm.weight", 0)],
            ours + "gate_up": [(f"{mlp}{x}_proj.weight", shape.intermediate) for x in ("gate", "up")],
            ours + "down": [(mlp + "down_proj.weight", 0)],
        }
        if shape.qkv_bias:
            names[ours + "qkv_bias"] = [(f"{attn}{x}_proj.bias", n) for x, n in (("q", q), ("k", kv), ("v", kv))]
        if shape.qk_norm:
            names[ours + "q_norm"] = [(attn + "q_norm.weight", 0)]
            names[ours + "k_norm"] = [(attn + "k_norm.weight", 0)]
    return names


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


def split_weights(weights: Mapping[str, Tensor], shape: ModelShape) -> dict[str, Tensor]:
    """Return the decoder's weights by the names `transformers` knows them by: views, not copies."""
    tensors: dict[str, Tensor] = {}
    for ours, stored in stored_names(shape).items():
        whole = weights[ours].detach()
        parts = whole.split([rows for _, rows in stored]) if len(stored) > 1 else [whole]
        tensors |= {name: part for (name, _), part in zip(stored, parts, strict=True)}
    return tensors


def write_weights(decoder: Decoder, folder: Path) -> None:
    """Write ``model.safetensors`` with the names `transformers` reads."""
    split = split_weights(dict(decoder.named_parameters()), decoder.shape)
    tensors = {name: weight.float().cpu().contiguous() for name, weight in split.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_config(shape: ModelShape, folder: Path, *, end_tokens: list[int], pad_token: int) -> None:
    """Write ``config.json`` and ``generation_config.json``."""
    config = shape_to_hf(shape, end_tokens=end_tokens, pad_token=pad_token)
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
        raise ModelError(f"{folder} has no config.json: it is not a Hugging Face checkpoint.")
    try:
        config = json.loads(path.read_text())
        generation_path = folder / "generation_config.json"
        generation = json.loads(generation_path.read_text()) if generation_path.is_file() else {}
    except json.JSONDecodeError as error:
        raise ModelError(f"{folder}: a configuration file is not JSON: {error}.") from None
    end: list[int] = []
    for source in (config, generation):
        value = source.get("eos_token_id")
        for token in value if isinstance(value, list) else [] if value is None else [value]:
            if token not in end:
                end.append(int(token))
    return config, end


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
        raise ModelError(f"{folder} has no model.safetensors. Save the checkpoint with safe serialization.")
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
