"""Random small models as `transformers` makes them, saved with a tokenizer beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from builders import tiny_policy

from ratchet.kernels.layout import layout_of
from ratchet.policy.policy import FrozenNetwork
from ratchet.policy.tokenizer import Tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "intermediate_size": 48, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "eos_token_id": 1, "bos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
OTHER_SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mamba": {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "use_mambapy": False},
}


def save_theirs(family: str, folder: Path, *, tokenizer: Tokenizer | None = None, seed: int = 0, **changes: Any) -> Any:
    """Write a random model of a family and return it; every weight is drawn, norms and biases too."""
    import transformers

    ends = {"eos_token_id": 1, "bos_token_id": None, "pad_token_id": 0}
    sizes = {**OTHER_SIZES[family], **ends} if family in OTHER_SIZES else SIZES
    if tokenizer is not None:
        sizes = {**sizes, "vocab_size": tokenizer.vocab_size}
    config = transformers.AutoConfig.for_model(family, **{**sizes, **changes})
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if family != "mamba":  # its own weights would run away
                weight.copy_(torch.randn_like(weight) * 0.2 + (1.0 if "norm" in name or "ln_" in name else 0.0))
    model.save_pretrained(folder)
    (tokenizer or tiny_policy().tokenizer).save(folder)
    return model


@torch.no_grad()
def logits_of(network: FrozenNetwork, tokens: list[int]) -> torch.Tensor:
    """Return what a network says after each token of a text: (T, V)."""
    found = network(torch.tensor(tokens), layout_of([len(tokens)], [-1], torch.device("cpu")))
    return found @ network.head.T if network.head.numel() else found


@torch.no_grad()
def theirs_of(model: Any, tokens: list[int]) -> torch.Tensor:
    """Return what a model of `transformers` says after each token of a text: (T, V)."""
    logits: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return logits
