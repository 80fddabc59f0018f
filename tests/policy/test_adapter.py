"""Adapters by `peft`: trained beside frozen weights, sampled from merged, saved alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign import logits_of, save_theirs, theirs_of
from safetensors.torch import load_file

from ratchet.config.schema import LoraSection, PolicySection
from ratchet.core.errors import ModelError
from ratchet.engines.build import runner_for
from ratchet.policy.policy import Policy

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("default")

TOKENS = np.random.default_rng(2).integers(0, 60, 30).tolist()
LORA = PolicySection(model="set", lora=LoraSection(rank=3, alpha=6.0))


def adapted(folder: Path, family: str = "qwen2", *, trained: bool = True, asked: PolicySection = LORA) -> Policy:
    """Return a policy with an adapter; `trained` moves it away from nothing."""
    save_theirs(family, folder)
    policy = Policy.load(folder, asked=asked, seed=5)
    if trained:
        torch.manual_seed(3)
        with torch.no_grad():
            for weight in policy.weights().values():
                weight.copy_(torch.randn_like(weight) * 0.2)
    return policy


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_a_fresh_adapter_changes_nothing_and_is_all_that_is_trained(family: str, tmp_path: Path) -> None:
    policy = adapted(tmp_path, family, trained=False)
    base = Policy.load(tmp_path)
    torch.testing.assert_close(logits_of(policy.decoder, TOKENS), logits_of(base.decoder, TOKENS), rtol=1e-4, atol=1e-4)
    trained = {n for n, p in policy.decoder.named_parameters() if p.requires_grad}
    assert trained == set(policy.weights())
    assert all(".lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    assert 0 < policy.num_trained < policy.shape.num_parameters / 2


def test_an_adapter_depends_on_the_seed_alone(tmp_path: Path) -> None:
    first = adapted(tmp_path, trained=False)
    torch.rand(7)
    same, other = (Policy.load(tmp_path, asked=LORA, seed=seed) for seed in (5, 6))
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_the_engine_samples_from_the_merged_weights(family: str, tmp_path: Path) -> None:
    policy = adapted(tmp_path, family)
    runner = runner_for(policy)
    runner.load(policy.weights())
    _, logits = runner.prefill([np.array(TOKENS)], [1], room=1)
    expected = logits_of(policy.decoder, TOKENS)
    assert float((expected - logits_of(Policy.load(tmp_path).decoder, TOKENS)).abs().max()) > 0.1
    torch.testing.assert_close(logits[0], expected[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_a_checkpoint_holds_the_adapter_alone_and_peft_reads_it(family: str, tmp_path: Path) -> None:
    policy = adapted(tmp_path / "model", family)
    policy.save(tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert sum(t.numel() for t in tensors.values()) == policy.num_trained
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    again = Policy.load(tmp_path / "saved")
    assert again.fingerprint() == policy.fingerprint()
    assert again.weights().keys() == policy.weights().keys()
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "saved").eval()
    torch.testing.assert_close(theirs_of(theirs, TOKENS), logits_of(policy.decoder, TOKENS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_an_export_is_the_merged_model(family: str, tmp_path: Path) -> None:
    policy = adapted(tmp_path / "model", family)
    policy.export(tmp_path / "whole")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32).eval()
    torch.testing.assert_close(theirs_of(theirs, TOKENS), logits_of(policy.decoder, TOKENS), rtol=1e-4, atol=1e-4)
    ours = Policy.load(tmp_path / "whole")
    assert ours.origin.base is None
    torch.testing.assert_close(logits_of(ours.decoder, TOKENS), logits_of(policy.decoder, TOKENS), rtol=1e-4, atol=1e-4)


def test_a_reference_stays_while_the_adapter_moves(tmp_path: Path) -> None:
    policy = adapted(tmp_path)
    reference, before = policy.frozen(), logits_of(policy.decoder, TOKENS)
    with torch.no_grad():
        for weight in policy.weights().values():
            weight.mul_(1.5)
    torch.testing.assert_close(logits_of(reference, TOKENS), before, rtol=0, atol=0)
    assert float((logits_of(policy.decoder, TOKENS) - before).abs().max()) > 0.1


def test_chosen_layers_alone_get_an_adapter(tmp_path: Path) -> None:
    asked = PolicySection(model="set", lora=LoraSection(rank=2, targets=("q_proj", "v_proj")))
    policy = adapted(tmp_path, asked=asked)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in policy.weights()} == {"q_proj", "v_proj"}
    with pytest.raises(ModelError, match=r"policy\.lora"):
        Policy.load(tmp_path, asked=PolicySection(model="set", lora=LoraSection(rank=2, targets=("nothing",))))


def test_weights_beneath_that_changed_are_found_out(tmp_path: Path) -> None:
    adapted(tmp_path / "model").save(tmp_path / "saved")
    save_theirs("qwen2", tmp_path / "model", seed=9)
    with pytest.raises(ModelError, match="It was trained on others"):
        Policy.load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("base.json", None, "no base.json that says which weights"),
        ("base.json", "{", "cannot be read"),
        ("base.json", '{"model": "/gone", "fingerprint": "", "four_bit": false}', "is not there any more"),
        ("adapter_model.safetensors", "", "is damaged or missing"),
        ("adapter_config.json", "{", "cannot be read"),
    ],
)
def test_a_saved_adapter_that_cannot_be_used_is_named(
    name: str, content: str | None, told: str, tmp_path: Path
) -> None:
    adapted(tmp_path / "model").save(tmp_path / "saved")
    (tmp_path / "saved" / name).unlink()
    if content is not None:
        (tmp_path / "saved" / name).write_text(content)
    with pytest.raises(ModelError, match=told):
        Policy.load(tmp_path / "saved")


def test_four_bits_without_the_library_or_a_gpu_are_refused(tmp_path: Path) -> None:
    save_theirs("qwen2", tmp_path)
    asked = PolicySection(model="set", lora=LoraSection(rank=2, four_bit=True))
    with pytest.raises(ModelError, match=r"four_bit = true needs (the library bitsandbytes|a GPU)"):
        Policy.load(tmp_path, asked=asked)


def test_frozen_weights_are_in_bfloat16_and_the_adapter_in_float32(tmp_path: Path) -> None:
    save_theirs("qwen2", tmp_path)
    policy = Policy.load(tmp_path, dtype="bfloat16", asked=LORA)
    kinds = {p.requires_grad: p.dtype for p in policy.decoder.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    policy.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "base.json").read_text())["model"] == str(tmp_path.resolve())
