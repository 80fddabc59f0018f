"""Wide search over GSM8K's questions, run for two steps on a random Qwen3 checkpoint with frozen agents."""

from __future__ import annotations

import json
from pathlib import Path

from real_inputs import gsm8k, write_random_qwen3

from ratchet.config.read import read_config
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore


def test_two_steps_of_the_recipe_run_on_real_texts(tmp_path: Path) -> None:
    rows = gsm8k("test")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_random_qwen3(tmp_path / "model", [row["question"] for row in rows[:500]])
    config = read_config(
        [
            "swarm/wide",
            f"policy.model={tmp_path / 'model'}",
            f"environment.path={tmp_path / 'texts.jsonl'}",
            f"run.folder={tmp_path / 'runs'}",
            "run.name=wide",
            "run.threads=1",
            "run.device=cpu",
            "policy.context=1024",  # of 32,768
            "explore.prompts_per_step=2",  # of 32
            "explore.samples_per_prompt=2",  # of 8
            "explore.max_tokens=24",  # of 4,096
            "subagent.max_tokens=16",  # of 2,048
            "train.steps=2",  # of 300
            "eval.tasks=1",
        ]
    )
    store = RunStore.open(train(config).folder)
    table = store.metrics()
    assert [row["step"] for row in table] == [0, 1]
    assert all(row["ledger/trained"] == row["rollouts/asked"] == 4 for row in table)
    assert all(row["reward/trained/mean"] == row["reward/mean"] == 0 for row in table), "random weights find nothing"
    prompt = store.read_groups(0)[0].task.prompt
    assert "numbered texts" in prompt[0].content
    spoken = store.read_groups(0)[0].rollouts[0].trajectories[0].turns[0]
    assert len(spoken.prompt) > 250, "the tools are told in the prompt"
