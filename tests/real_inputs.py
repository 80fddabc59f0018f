"""Real inputs at toy size: GSM8K texts, a byte-level BPE tokenizer with ChatML, random Qwen2 and Qwen3
checkpoints."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def gsm8k(split: str) -> list[dict[str, str]]:
    """Return the lines of GSM8K, or skip: the data is not part of the project."""
    folder = os.environ.get("RATCHET_TEST_DATA")
    if not folder:
        pytest.skip("RATCHET_TEST_DATA is not set: it names the folder with gsm8k_train.jsonl and gsm8k_test.jsonl")
    with (Path(folder) / f"gsm8k_{split}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_pairs(path: Path, count: int) -> None:
    """Write preference pairs: a right solution, and the same with its last number changed throughout."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as out:
        for row in gsm8k("train")[:count]:
            final = row["answer"].rpartition("#### ")[2]
            wrong = str(int(final.replace(",", "")) + rng.choice([-3, -1, 1, 2, 10]))
            rejected = re.sub(rf"(?<![\d.]){re.escape(final)}(?![\d.])", wrong, row["answer"])
            pair = {"question": row["question"], "chosen": row["answer"], "rejected": rejected}
            out.write(json.dumps(pair) + "\n")


def write_random_qwen2(folder: Path, texts: list[str]) -> None:
    """Write a random Qwen2 checkpoint of about 0.2 M weights with a tokenizer trained on `texts`."""
    transformers = pytest.importorskip("transformers")
    _write_random(folder, texts, transformers.Qwen2Config, transformers.Qwen2ForCausalLM)


def write_random_qwen3(folder: Path, texts: list[str]) -> None:
    """Write a random Qwen3 checkpoint of about 0.2 M weights with a tokenizer trained on `texts`."""
    transformers = pytest.importorskip("transformers")
    _write_random(folder, texts, transformers.Qwen3Config, transformers.Qwen3ForCausalLM, head_dim=32)


def _write_random(folder: Path, texts: list[str], config: Any, model: Any, **settings: int) -> None:
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1024, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    torch.manual_seed(0)
    made = config(
        vocab_size=1024, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=128, max_position_embeddings=4096, tie_word_embeddings=True,
        eos_token_id=backend.token_to_id("<|im_end|>"), pad_token_id=0, bos_token_id=None, **settings,
    )  # fmt: skip
    model(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
