"""The questions environment on the real GSM8K file, with the final answer judged by math-verify in its own process."""

from __future__ import annotations

import os
from pathlib import Path

from real_inputs import gsm8k, write_random_qwen2

from ratchet.config.read import read_config
from ratchet.core.task import Split
from ratchet.run.launch import train
from ratchet.run.parts import make_environment
from ratchet.store.run_store import RunStore


def test_two_steps_run_on_the_gsm8k_questions(tmp_path: Path) -> None:
    questions = gsm8k("train")
    assert len(questions) == 7473
    write_random_qwen2(tmp_path / "model", [row["answer"] + row["question"] for row in questions[:500]])
    (tmp_path / "recipe.toml").write_text(
        f"""
        [run]
        threads = 1
        folder = "{tmp_path / "runs"}"
        name = "gsm8k"
        [policy]
        model = "{tmp_path / "model"}"
        [environment]
        name = "questions"
        path = "{Path(os.environ["RATCHET_TEST_DATA"]) / "gsm8k_train.jsonl"}"
        verifier = "math"
        held_out = 0.0
        [explore]
        prompts_per_step = 6
        samples_per_prompt = 3
        max_tokens = 24
        [train]
        steps = 2
        """
    )
    config = read_config([str(tmp_path / "recipe.toml")])
    environment = make_environment(config)
    assert environment.num_tasks(Split("train", 0)) == 7473
    store = RunStore.open(train(config).folder)
    rows = store.metrics()
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["ledger/trained"] == row["rollouts/asked"] == 18 for row in rows)
    probe = next(e for e in store.events() if e["kind"] == "reward_probe")["rows"]
    assert probe[0]["probe"] == "gold"
    assert probe[0]["full_share"] == 1.0
