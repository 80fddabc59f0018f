"""The policy and `transformers` read each other's folders, and compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import tiny_policy

from ratchet.core.task import Message
from ratchet.kernels.layout import layout_of
from ratchet.policy.policy import Policy
from ratchet.policy.tokenizer import load_tokenizer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")  # another library's warnings are its own

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
CONVERSATION = (
    Message("system", "be quick"),
    Message("user", "1 + 2 = ?"),
    Message("assistant", "3"),
    Message("user", "why"),
)


def logits_of(policy: Policy, tokens: list[int]) -> torch.Tensor:
    hidden = policy.decoder(torch.tensor(tokens), layout_of([len(tokens)], [-1], policy.device))
    return hidden @ policy.decoder.head.T


def theirs_of(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens])).logits[0]


def save_theirs(family: str, tied: bool, folder: Path, **saving: object) -> torch.nn.Module:
    """Write a random model of a family as `transformers` makes it, with a tokenizer beside it."""
    config = transformers.AutoConfig.for_model(
        family, vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, intermediate_size=48, max_position_embeddings=64, tie_word_embeddings=tied, rms_norm_eps=1e-5,
        sliding_window=None, eos_token_id=1, bos_token_id=None, pad_token_id=0,
        rope_parameters={"rope_theta": 500.0, "rope_type": "default"},
    )  # fmt: skip
    torch.manual_seed(len(family) + tied)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Norms and biases begin at 1 and 0, where mixing two of them up would not show.
            weight.copy_(torch.randn_like(weight) * 0.2 + (1.0 if "norm" in name else 0.0))
    model.save_pretrained(folder, **saving)
    tiny_policy().tokenizer.save(folder)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_checkpoint_that_transformers_saved_gives_the_same_logits(family: str, tied: bool, tmp_path: Path) -> None:
    theirs = save_theirs(family, tied, tmp_path)
    ours = Policy.load(tmp_path)
    assert (ours.shape.family, ours.shape.tied, ours.shape.rope_base) == (family, tied, 500.0)
    assert ours.shape.num_parameters == sum(p.numel() for p in theirs.parameters())
    tokens = np.random.default_rng(0).integers(0, 60, 40).tolist()
    torch.testing.assert_close(logits_of(ours, tokens), theirs_of(theirs, tokens), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_sharded_checkpoint_is_read_like_a_whole_one(tmp_path: Path) -> None:
    theirs = save_theirs("qwen2", False, tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    torch.testing.assert_close(
        logits_of(Policy.load(tmp_path), [3, 9, 4]), theirs_of(theirs, [3, 9, 4]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_tiny_policy_is_a_checkpoint_that_transformers_loads(family: str, tied: bool, tmp_path: Path) -> None:
    ours = tiny_policy(family=family, tied=tied)
    ours.save(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = ours.tokenizer.chat(CONVERSATION).tolist()
    torch.testing.assert_close(logits_of(ours, tokens), theirs_of(theirs, tokens), rtol=1e-4, atol=1e-4)
    assert theirs.generation_config.eos_token_id in (1, [1])


def test_a_saved_policy_loads_with_the_same_bits(tmp_path: Path) -> None:
    ours = tiny_policy(family="qwen2")
    ours.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.shape == ours.shape
    assert again.fingerprint() == ours.fingerprint()
    assert again.tokenizer.end_tokens == ours.tokenizer.end_tokens


@pytest.mark.parametrize("text", ["<think>1+2</think>3", "ab<|end|>", "a ü\n b", "", "<think><think>"])
def test_transformers_reads_the_tiny_tokenizer_the_same_way(text: str, tmp_path: Path) -> None:
    ours = tiny_policy().tokenizer
    ours.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids = ours.encode(text).tolist()
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)


@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:2], CONVERSATION[:3]])
@pytest.mark.parametrize("reply", [True, False])
def test_a_conversation_is_rendered_as_apply_chat_template_does(
    messages: tuple[Message, ...], reply: bool, tmp_path: Path
) -> None:
    ours = tiny_policy().tokenizer
    ours.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    rows = [{"role": m.role, "content": m.content} for m in messages]
    assert ours.render(messages, reply=reply) == theirs.apply_chat_template(
        rows, tokenize=False, add_generation_prompt=reply
    )


def test_a_template_with_the_words_of_real_ones_is_rendered_as_apply_chat_template_does(tmp_path: Path) -> None:
    # Trimmed blocks, loop controls, a namespace, a filter, the begin token: what Llama's and Qwen's templates use.
    template = (
        "{{ bos_token }}{% set ns = namespace(first=true) %}\n"
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'tool' %}{% continue %}{% endif %}\n"
        "    {{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n"
        "    {%- if loop.last %}{{ message | tojson }}{% endif %}\n"
        "{%- endfor %}\n"
        "{% if add_generation_prompt %}\n{{- '<|im_start|>assistant\\n' }}{% endif %}\n"
    )
    tokenizer = tiny_policy().tokenizer
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    ours = load_tokenizer(tmp_path, [1])
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    messages = [Message("user", "  größe \n"), Message("tool", "x"), Message("assistant", 'a "quoted" <b>')]
    rows = [{"role": m.role, "content": m.content} for m in messages]
    assert ours.render(messages) == theirs.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
