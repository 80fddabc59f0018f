"""The recipe of the stale study for a real model, run for two steps on a random Qwen3 checkpoint with GSM8K."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from real_inputs import gsm8k, write_random_qwen3

from ratchet.config.read import read_config
from ratchet.config.schedule import Schedule
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_random_qwen3(folder, [row["answer"] + row["question"] for row in gsm8k("train")[:500]])
    return folder


@pytest.mark.parametrize("method", ["grpo", "rec_one_side", "red_weight"])
def test_two_steps_of_the_recipe_run_on_the_gsm8k_questions(tmp_path: Path, model: Path, method: str) -> None:
    config = read_config(
        [
            "stale/math",
            f"algorithm.name={method}",
            f"policy.model={model}",
            f"environment.path={Path(os.environ['RATCHET_TEST_DATA']) / 'gsm8k_train.jsonl'}",
            "environment.reward_workers=1",
            f"run.folder={tmp_path}",
            "run.name=math",
            "run.threads=1",
            "run.device=cpu",
            "explore.prompts_per_step=4",  # of 16
            "explore.samples_per_prompt=4",  # of 8
            "explore.max_tokens=16",  # of 2,048
            "algorithm.lr=1e-3",  # of 6e-8: so large that two steps show
            "train.steps=2",  # of 450
            "eval.tasks=2",
        ]
    )
    assert (config.algorithm.kl_coef, config.algorithm.kl, config.algorithm.entropy_coef) == (0, "k2", 0)
    assert (config.explore.temperature, config.explore.top_p, config.train.updates_per_batch) == (1, 1, 1)
    store = RunStore.open(train(config).folder)
    rows = store.metrics()
    assert [row["step"] for row in rows] == [0, 1]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(row["ledger/trained"] == row["rollouts/asked"] == 16 for row in rows)
    assert all(0 <= row["reward/mean"] <= 1 for row in rows)
    law = Schedule(config.sync)
    for k, row in enumerate(rows):
        sampled_by = {
            turn.version
            for group in store.read_groups(k)
            for rollout in group.rollouts
            for trajectory in rollout.trajectories
            for turn in trajectory.turns
        }
        assert sampled_by == {law.version_for(k)} == {0}
        assert row["stale/mean"] == row["stale/max"] == k
    assert [law.version_for(k) for k in (19, 20, 39, 40)] == [0, 20, 20, 40]
    assert any(event["kind"] == "eval" and event["step"] == 2 for event in store.events())
