"""The published RM-R1 recipe, run for two steps on a random Qwen2 checkpoint with real texts."""

from __future__ import annotations

import json
from pathlib import Path

from real_inputs import gsm8k, write_pairs, write_random_qwen2

from ratchet.config.read import read_config
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore


def test_two_steps_of_the_published_recipe_run_on_real_texts(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 200)
    write_random_qwen2(tmp_path / "model", [row["answer"] + row["question"] for row in gsm8k("train")[:500]])
    config = read_config(
        [
            "judge/rm-r1",
            f"policy.model={tmp_path / 'model'}",
            f"environment.source={tmp_path / 'pairs.jsonl'}",
            f"run.folder={tmp_path / 'runs'}",
            "run.name=rm-r1",
            "run.threads=1",
            "policy.context=2048",
            "explore.prompts_per_step=8",  # of 1,024
            "explore.samples_per_prompt=3",  # of 7
            "explore.max_tokens=48",  # of 8,192
            "train.steps=2",
        ]
    )
    result = train(config)
    assert result.finished
    store = RunStore.open(result.folder)
    rows = store.metrics()
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["opt/updates"] == 8 for row in rows), "eight updates per batch, as published"
    assert rows[0]["kl/ref"] >= 0
    groups = store.read_groups(1)
    text = "\n".join(m.content for m in groups[0].task.prompt)
    assert "[Start of answer A]" in text
    assert "impartial judge" in text
    turn = groups[0].rollouts[0].trajectories[0].turns[0]
    assert len(turn.prompt) > 150, "a real prompt: system message, request, two solutions"
    saved = json.loads((result.folder / "checkpoints" / "step_000002" / "config.json").read_text())
    assert saved["architectures"] == ["Qwen2ForCausalLM"]
