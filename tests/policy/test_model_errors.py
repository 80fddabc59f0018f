"""Every way a model folder cannot be used is a `ModelError` that names the folder and the trouble."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny_policy
from safetensors.torch import load_file, save_file

from ratchet.config.schema import PolicySection
from ratchet.core.errors import ConfigError, ModelError
from ratchet.core.task import Message
from ratchet.policy.policy import Policy, fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound checkpoint, to be spoiled."""
    tiny_policy(family="qwen3").save(tmp_path)
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Policy.load(folder)
    return str(caught.value)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "gone")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors"),
        ("tokenizer.json", "has no tokenizer.json"),
    ],
)
def test_a_file_that_is_missing_is_named(folder: Path, file: str, told: str) -> None:
    (folder / file).unlink()
    assert told in refusal(folder)


@pytest.mark.parametrize(
    "file", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_file_that_was_cut_short_is_named(folder: Path, file: str) -> None:
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    told = refusal(folder)
    assert str(folder) in told


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": {"model.norm.weight": "gone.safetensors"}}'])
def test_an_index_of_shards_that_cannot_be_used_is_named(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    assert str(folder) in refusal(folder)


def test_a_tensor_that_is_missing_is_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert "no tensor model.layers.1.mlp.up_proj.weight" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight"]
)
def test_a_tensor_of_another_shape_is_named(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    save_file(tensors, folder / "model.safetensors")
    told = refusal(folder)
    assert "has shape" in told
    assert "do not belong together" in told


def test_tensors_whose_shapes_are_wrong_but_add_up_are_refused(folder: Path) -> None:
    # A query and a key projection swapped have the same number of rows together.
    tensors = load_file(folder / "model.safetensors")
    q, k = (f"model.layers.0.self_attn.{x}_proj.weight" for x in "qk")
    tensors[q], tensors[k] = tensors[k], tensors[q]
    save_file(tensors, folder / "model.safetensors")
    assert "has shape" in refusal(folder)


def test_a_tokenizer_with_more_tokens_than_the_weights_is_refused(folder: Path) -> None:
    tiny_policy(characters="abcdefghijklmnopqrstuvwxyz0123456789+=? ABC").tokenizer.save(folder)
    assert "They do not belong together" in refusal(folder)


def test_a_vocabulary_without_an_end_token_is_refused(folder: Path) -> None:
    for file in ("config.json", "generation_config.json"):
        edit(folder / file, lambda c: c.pop("eos_token_id"))
    edit(folder / "tokenizer_config.json", lambda c: c.pop("eos_token"))
    assert "names no end token" in refusal(folder)


def test_the_end_token_of_the_tokenizer_is_enough(folder: Path) -> None:
    for file in ("config.json", "generation_config.json"):
        edit(folder / file, lambda c: c.pop("eos_token_id"))
    assert Policy.load(folder).tokenizer.end_tokens == (1,)


def test_end_tokens_of_all_files_count(folder: Path) -> None:
    edit(folder / "generation_config.json", lambda c: c.update(eos_token_id=[4, 1]))
    assert set(Policy.load(folder).tokenizer.end_tokens) == {1, 4}


def test_a_tokenizer_without_a_chat_template_is_refused_when_a_conversation_is_put(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda c: c.pop("chat_template"))
    policy = Policy.load(folder)
    with pytest.raises(ModelError, match="has no chat template"):
        policy.tokenizer.chat([Message("user", "hi")])


@pytest.mark.parametrize("template", ["{{ raise_exception('only users') }}", "{% for %}"])
def test_a_chat_template_that_refuses_or_is_broken_is_a_config_error(folder: Path, template: str) -> None:
    edit(folder / "tokenizer_config.json", lambda c: c.update(chat_template=template))
    with pytest.raises(ConfigError, match="chat template"):
        Policy.load(folder).tokenizer.chat([Message("user", "hi")])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "gpt2"}, 'model_type "gpt2" is not one this decoder computes'),
        ({"model_type": None}, "is not one this decoder computes"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, 'rope scaling "longrope"'),
        ({"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}, "attention of 16 tokens in some"),
        ({"partial_rotary_factor": 0.5}, "a rotary embedding of 0.5 of each head"),
        ({"quantization_config": {"bits": 4}}, "quantised weights"),
        ({"hidden_act": "gelu"}, 'activation "gelu"'),
    ],
)
def test_a_model_our_decoder_does_not_compute_is_refused_if_only_that_is_allowed(
    folder: Path, changes: dict[str, Any], told: str
) -> None:
    edit(folder / "config.json", lambda c: c.update(changes))
    with pytest.raises(ModelError) as caught:
        Policy.load(folder, asked=PolicySection(decoder="own"))
    assert told in str(caught.value)
    assert 'set policy.decoder = "auto"' in str(caught.value)


def test_scaling_without_its_numbers_is_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(rope_scaling={"rope_type": "llama3", "factor": 4.0}))
    assert "have no 'low_freq_factor'" in refusal(folder)


def test_what_is_in_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    assert "It holds: notes.txt." in refusal(tmp_path)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "whose form can run code when it is read" in refusal(folder)


def test_a_token_whose_number_the_weights_do_not_have_is_refused(folder: Path) -> None:
    # As many tokens as before, but one of them beyond the last row.
    def move(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary[max(vocabulary, key=lambda token: vocabulary[token])] = 500

    edit(folder / "tokenizer.json", move)
    told = refusal(folder)
    assert "token number 500" in told
    assert "They do not belong together" in told


@pytest.mark.parametrize(
    "key", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
)
def test_a_configuration_without_a_size_is_refused(folder: Path, key: str) -> None:
    edit(folder / "config.json", lambda c: c.pop(key))
    assert f"config.json has no '{key}'" in refusal(folder)


@pytest.mark.parametrize("bit", [0, 12, 31])
@pytest.mark.parametrize("name", ["embedding", "layers.1.q_norm", "final_norm"])
def test_one_bit_of_one_weight_changes_the_fingerprint(name: str, bit: int) -> None:
    policy = tiny_policy(family="qwen3")
    before = policy.fingerprint()
    flat = policy.weights()[name].view(-1).view(torch.int32)
    flat[len(flat) // 2] ^= torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)
    assert policy.fingerprint() != before
    flat[len(flat) // 2] ^= torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)
    assert policy.fingerprint() == before


def test_the_fingerprint_sees_places_and_names_but_not_the_order_of_a_mapping() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0])
    assert fingerprint({"x": a, "y": b}) == fingerprint({"y": b, "x": a})
    assert fingerprint({"x": a.flip(0), "y": b}) != fingerprint({"x": a, "y": b})
    assert fingerprint({"z": a, "y": b}) != fingerprint({"x": a, "y": b})


def test_a_fresh_policy_depends_on_its_seed_alone() -> None:
    assert tiny_policy(seed=3).fingerprint() == tiny_policy(seed=3).fingerprint() != tiny_policy(seed=4).fingerprint()
