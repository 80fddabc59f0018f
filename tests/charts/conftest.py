"""Made-up run folders for the tests of charts."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ratchet.store.run_store import RunStore

CONFIG = {
    "run": {"study": "judge", "name": "", "seed": 3},
    "policy": {"model": "", "dtype": "float32", "tiny": {"family": "qwen3"}},
    "environment": {"name": "judge", "full_share": 0.25},
    "explore": {"max_tokens": 64, "temperature": 1.0},
    "algorithm": {"name": "grpo", "lr": 3e-4},
    "sync": {"interval": 1, "offset": 0},
}
ENVIRONMENT = {"ratchet": "0.1.0", "python": "3.11.9", "cores": 2, "threads": 1, "packages": {"torch": "2.9.0"}}

MakeRun = Callable[..., RunStore]


def row(step: int, **changes: float) -> dict[str, float]:
    """Return a step whose numbers fit together; `changes` replaces some (dots stand for slashes)."""
    noise = random.Random(step)
    accuracy = 0.5 + 0.4 * (1 - math.exp(-step / 10)) + noise.gauss(0, 0.01)
    numbers = {
        "step": step,
        "rollouts/asked": 16.0,
        "rollouts/step": 16.0,
        "reward/mean": accuracy + 0.98,
        "reward/parts/accuracy": accuracy,
        "reward/parts/format": 0.98,
        "len/response/mean": 480 + 2 * step + noise.gauss(0, 5),
        "len/truncated_frac": 0.0,
        "entropy": 0.5 + noise.gauss(0, 0.02),
        "clip/frac": 0.0,
        "stale/max": 0.0,
        "tokens/generated": 8000.0,
        "flops/generate/step": 1e9,
        "flops/train/step": 3e9,
        "ledger/trained": 15.0,
        "ledger/reward_timeout": 1.0,
        "wait/trainer_for_groups": 1.0,
        "time/explore": 1.0,
        "time/train": 0.5,
        "time/step": 1.5,
        "mem/rss_bytes": 4e8,
    }
    return numbers | {name.replace(".", "/"): value for name, value in changes.items()}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run folder from rows; of None it makes `steps` rows itself."""

    def make(
        name: str = "judge-001",
        steps: int = 70,
        rows: Sequence[Mapping[str, float]] | None = None,
        asked: int | None = None,
        config: Mapping[str, Any] = CONFIG,
    ) -> RunStore:
        rows = [row(k) for k in range(steps)] if rows is None else rows
        plan = {"steps": asked if asked is not None else len(rows), "parameters": 98304, "prompts_per_step": 4}
        store = RunStore.create(tmp_path / name, config, plan, ENVIRONMENT)
        store.append_event("start", 0, parameters=98304)
        for numbers in rows:
            store.append_metrics(numbers)
        return store

    return make


@pytest.fixture
def make_row() -> Callable[..., dict[str, float]]:
    """Return the function that makes one row."""
    return row
