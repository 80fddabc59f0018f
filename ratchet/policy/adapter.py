"""Low-rank adapters by `peft`: what is trained is a few matrices beside frozen weights, and nothing else is saved.

The model with its adapter is computed by `transformers`. Sampling uses the merged weights, on our own decoder where the
model's form allows it. A checkpoint holds the adapter in the form that `peft` reads, and the name and fingerprint of
the base it belongs to; an export holds the merged model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ratchet.config.schema import LoraSection
from ratchet.core.errors import ModelError
from ratchet.core.seeds import derive
from ratchet.core.shape import ModelShape
from ratchet.kernels.layout import Layout
from ratchet.kernels.reference import Ops
from ratchet.policy.hosted import HostedDecoder

BASE_FILE = "base.json"
WEIGHTS_FILE = "adapter_model.safetensors"
NAME = "default"
"""What `peft` calls an adapter that has no other name."""


@dataclass(frozen=True, slots=True)
class Base:
    """The frozen weights an adapter belongs to."""

    model: str
    """Folder or hub id."""
    fingerprint: str
    four_bit: bool


class Snapshot:
    """A model with the adapter it had at some time: the weights beneath are shared, not copied."""

    def __init__(self, decoder: HostedDecoder, weights: Mapping[str, Tensor]) -> None:
        self._decoder = decoder
        self._weights = {name: weight.detach().clone() for name, weight in weights.items()}
        self.shape: ModelShape = decoder.shape
        self.ops: Ops = decoder.ops

    @property
    def head(self) -> Tensor:
        """The output projection, which adapters leave alone."""
        return self._decoder.head

    def __call__(self, tokens: Tensor, layout: Layout) -> Tensor:
        """See `HostedDecoder.forward`. Not for use beside another forward pass of the same model."""
        out: Tensor = torch.func.functional_call(self._decoder, self._weights, (tokens, layout))
        return out


def check_four_bit(device: torch.device) -> None:
    """Raise `ModelError` where weights in four bits cannot be had."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise ModelError(
            "policy.lora.four_bit = true needs the library bitsandbytes. pip install bitsandbytes, or leave it out."
        ) from None
    if device.type != "cuda":
        raise ModelError("policy.lora.four_bit = true needs a GPU. Set run.device, or leave it out.")


def add_adapter(decoder: HostedDecoder, lora: LoraSection, *, seed: int) -> None:
    """Put a fresh adapter into a model, in place: at first it changes nothing. Raises `ModelError`."""
    peft = _peft()
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.targets) or "all-linear",
        lora_dropout=0.0,  # what is trained must be what was sampled
        task_type="CAUSAL_LM",
    )
    _inject(peft, settings, decoder, seed)


def read_adapter(decoder: HostedDecoder, folder: Path) -> None:
    """Put the adapter of a folder into a model, in place. Raises `ModelError`."""
    peft = _peft()
    try:
        settings = peft.LoraConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(f"{folder}: adapter_config.json cannot be read: {error}.") from None
    settings.inference_mode = False
    _inject(peft, settings, decoder, 0)
    stored = adapter_tensors(folder)
    with torch.no_grad():
        for name, weight in adapter_weights(decoder).items():
            if _stored_name(name) not in stored or stored[_stored_name(name)].shape != weight.shape:
                raise ModelError(f"{folder}: {WEIGHTS_FILE} holds no fitting {_stored_name(name)}.")
            weight.copy_(stored[_stored_name(name)])


def adapter_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a saved adapter under the names `peft` stores them by. Raises `ModelError`."""
    try:
        return load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS_FILE} cannot be read: {error}. The file is damaged or missing.") from None


def snapshot_of(decoder: HostedDecoder, folder: Path) -> Snapshot:
    """Return a model with the adapter of a folder, such as that of a run's first checkpoint."""
    stored = adapter_tensors(folder)
    weights = adapter_weights(decoder)
    return Snapshot(decoder, {name: stored[_stored_name(name)].to(w.device) for name, w in weights.items()})


def adapter_weights(decoder: HostedDecoder) -> dict[str, Tensor]:
    """Return what is trained, by the decoder's own names: views, not copies."""
    return {name: p.detach() for name, p in decoder.named_parameters() if p.requires_grad}


def save_adapter(decoder: HostedDecoder, base: Base, folder: Path) -> None:
    """Write a folder that `peft` loads onto the base, and what the base was."""
    tensors = {_stored_name(name): w.cpu().contiguous() for name, w in adapter_weights(decoder).items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    settings = decoder.model.peft_config[NAME]
    settings.base_model_name_or_path = base.model
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    settings.inference_mode = False
    told = {"model": base.model, "fingerprint": base.fingerprint, "four_bit": base.four_bit}
    (folder / BASE_FILE).write_text(json.dumps(told, indent=2) + "\n")


def read_base(folder: Path) -> Base:
    """Return what a saved adapter belongs to. Raises `ModelError`."""
    path = folder / BASE_FILE
    try:
        told = json.loads(path.read_text())
        return Base(str(told["model"]), str(told["fingerprint"]), bool(told["four_bit"]))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds an adapter, and no {BASE_FILE} that says which weights it was trained on. Only adapters "
            "that Ratchet saved can be gone on with; merge another one first (peft: merge_and_unload)."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read: {error}. The file is damaged.") from None


@torch.no_grad()
def merged_weights(decoder: HostedDecoder, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the model without an adapter that computes the same, by the names of such a model.

    Source: Hu et al. 2021 (arXiv 2106.09685), W + alpha / rank * B A.
    """
    modules = dict(decoder.model.named_modules())
    out: dict[str, Tensor] = {}
    for name, parameter in decoder.model.named_parameters():
        if ".lora_" in name:
            continue
        weight = _plain(parameter)
        where, found, kind = name.partition(".base_layer.")
        if found and kind == "weight":
            layer = modules[where]
            a, b = (adapter[f"model.{where}.lora_{x}.{NAME}.weight"].float() for x in "AB")
            change = layer.scaling[NAME] * (b @ a)
            weight = weight.float() + (change.T if layer.fan_in_fan_out else change)
        out[name.replace(".base_layer.", ".")] = weight
    return out


def _plain(parameter: Tensor) -> Tensor:
    """Return a parameter as numbers: those in four bits are unpacked."""
    if type(parameter).__name__ != "Params4bit":
        return parameter.detach()
    import bitsandbytes

    packed: Any = parameter
    weight: Tensor = bitsandbytes.functional.dequantize_4bit(packed.data, packed.quant_state)
    return weight


def _inject(peft: Any, settings: Any, decoder: HostedDecoder, seed: int) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # found out by peft itself
        torch.manual_seed(derive(seed, "adapter") % 2**62)
        try:
            peft.inject_adapter_in_model(settings, decoder.model, NAME)
        except ValueError as error:
            raise ModelError(f"policy.lora: {' '.join(str(error).split())[:400]}") from None
    decoder.model.eval()
    for name, parameter in decoder.named_parameters():
        if parameter.requires_grad:
            assert ".lora_" in name, f"{name} would be trained and not saved"
            parameter.data = parameter.data.float()


def _stored_name(name: str) -> str:
    return "base_model." + name.replace(f".{NAME}.", ".")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ModelError(
            "policy.lora.rank is above 0, which needs the library peft. pip install 'ratchet[peft]'"
        ) from None
    return peft
