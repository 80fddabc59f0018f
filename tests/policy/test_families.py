"""Every family and variant that our own decoder runs computes what `transformers` computes, trained and sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import logits_of, save_theirs, theirs_of

from ratchet.config.schema import PolicySection
from ratchet.core.errors import ModelError
from ratchet.engines.build import runner_for
from ratchet.kernels.layout import layout_of
from ratchet.policy.decoder import Decoder
from ratchet.policy.policy import Policy

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")

BASE = {"rope_theta": 500.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "every head has its own keys": ("llama", {"num_key_value_heads": 4}),
    "one key head": ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama with all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen3 with attention biases": ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
    "qwen2 with biases, tied": ("qwen2", {"tie_word_embeddings": True}),
    "linear scaling": ("llama", {"rope_parameters": {**BASE, "rope_type": "linear", "factor": 4.0}}),
    "dynamic scaling": ("llama", {"rope_parameters": {**BASE, "rope_type": "dynamic", "factor": 4.0}}),
    "llama3 scaling": (
        "llama",
        {
            "rope_parameters": {
                **BASE, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "yarn": (
        "qwen2",
        {
            "rope_parameters": {
                **BASE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
            },
        },
    ),
    "yarn with its own attention": (
        "qwen3",
        {
            "rope_parameters": {
                **BASE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                "attention_factor": 0.8, "beta_fast": 6.0, "beta_slow": 0.5,
            },
        },
    ),
    "a window shorter than the text": ("mistral", {"sliding_window": 8}),
    "a window longer than any text": ("mistral", {"sliding_window": 64}),
    "smollm3, whose fourth layer turns nothing": (
        "smollm3",
        {"num_hidden_layers": 4, "tie_word_embeddings": True, "rope_parameters": {**BASE, "rope_type": "default"}},
    ),
    "phi3, stored fused": ("phi3", {"sliding_window": None}),
    "seed_oss": ("seed_oss", {"attention_bias": True, "attention_out_bias": False}),
}  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 60, 40).tolist()


@pytest.fixture(params=VARIANTS, scope="module")
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Any]:
    family, changes = VARIANTS[request.param]
    folder = tmp_path_factory.mktemp("model")
    theirs = save_theirs(family, folder, seed=len(request.param), **changes)
    return Policy.load(folder, asked=PolicySection(decoder="own")), theirs


def test_logits_are_those_of_transformers(both: tuple[Policy, Any]) -> None:
    ours, theirs = both
    assert isinstance(ours.decoder, Decoder)
    assert not ours.origin.hosted
    assert ours.shape.num_parameters == sum(p.numel() for p in theirs.parameters())
    torch.testing.assert_close(logits_of(ours.decoder, TOKENS), theirs_of(theirs, TOKENS), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_decoding_gives_the_logits_of_a_whole_pass(both: tuple[Policy, Any]) -> None:
    ours, _ = both
    whole = logits_of(ours.decoder, TOKENS)
    runner = runner_for(ours)
    runner.load(ours.weights())
    rows, first = runner.prefill([np.array(TOKENS[:20]), np.array(TOKENS[:3])], [1, 2], room=20)
    torch.testing.assert_close(first, whole[[19, 2]], rtol=1e-4, atol=1e-4)
    for i in range(20, 36):
        step = runner.step([*rows[0], *rows[1]], torch.tensor([TOKENS[i], TOKENS[i - 17], TOKENS[i - 17]]))
        torch.testing.assert_close(step, whole[[i, i - 17, i - 17]], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_prompt_shared_by_two_answers_reads_as_each_alone(both: tuple[Policy, Any]) -> None:
    ours, _ = both
    prompt, a, b = TOKENS[:12], TOKENS[12:31], TOKENS[31:40]
    packed = torch.tensor([*prompt, *a, *b])
    hidden = ours.decoder(packed, layout_of([12, 19, 9], [-1, 0, 0], ours.device))
    logits = hidden @ ours.decoder.head.T
    torch.testing.assert_close(logits[:31], logits_of(ours.decoder, [*prompt, *a]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[31:], logits_of(ours.decoder, [*prompt, *b])[12:], rtol=1e-4, atol=1e-4)


def test_what_is_saved_is_read_by_both_and_loses_nothing(both: tuple[Policy, Any], tmp_path: Path) -> None:
    ours, theirs = both
    ours.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.fingerprint() == ours.fingerprint()
    assert again.shape == ours.shape
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(theirs_of(back, TOKENS), theirs_of(theirs, TOKENS), rtol=1e-5, atol=1e-5)


def test_layers_computed_again_give_the_same_gradient(both: tuple[Policy, Any]) -> None:
    ours, _ = both
    gradients = []
    for again in (False, True):
        ours.decoder.checkpointing = again
        hidden = ours.decoder(torch.tensor(TOKENS), layout_of([40], [-1], ours.device))
        hidden.square().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in ours.decoder.named_parameters() if p.grad is not None})
        ours.decoder.zero_grad(set_to_none=True)
    ours.decoder.checkpointing = False
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=0)


def test_a_context_within_the_window_needs_none(tmp_path: Path) -> None:
    save_theirs("mistral", tmp_path, sliding_window=8)
    assert Policy.load(tmp_path).shape.window == 8
    short = Policy.load(tmp_path, asked=PolicySection(context=8))
    assert (short.shape.window, short.shape.context) == (0, 8)


def test_export_in_bfloat16_is_half_as_large_and_close(tmp_path: Path) -> None:
    theirs = save_theirs("qwen3", tmp_path / "model")
    Policy.load(tmp_path / "model").export(tmp_path / "small", dtype="bfloat16")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("model", "small")]
    assert sizes[1] < 0.7 * sizes[0]
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert back.dtype == torch.bfloat16
    torch.testing.assert_close(theirs_of(back.float(), TOKENS), theirs_of(theirs, TOKENS), rtol=0.2, atol=0.5)


def test_what_our_own_decoder_lacks_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    save_theirs("gpt2", tmp_path)
    with pytest.raises(ModelError, match=r'model_type "gpt2".*policy.decoder = "own" forbids'):
        Policy.load(tmp_path, asked=PolicySection(decoder="own"))
