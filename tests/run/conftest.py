"""Configs of runs that take a second."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rays import Rays

from ratchet.config.read import config_from_tree, merge, parse_override
from ratchet.config.schema import RunConfig

LETTERS = f"{Path(__file__).parent / 'letters.py'}:Letters"

TREE: dict[str, Any] = {
    "run": {"threads": 1, "device": "cpu", "name": "run"},
    "environment": {"name": LETTERS},
    "policy": {
        "tiny": {
            "hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1,
            "head_size": 16, "intermediate": 16, "context": 24,
        },
    },
    "explore": {"prompts_per_step": 4, "samples_per_prompt": 3, "max_tokens": 6},
    "algorithm": {"name": "grpo", "lr": 1e-2},
    "train": {"steps": 6},
    "record": {"checkpoint_every": 3},
}  # fmt: skip

Make = Callable[..., RunConfig]


@pytest.fixture
def config(tmp_path: Path) -> Make:
    """Return a maker of configs: words override; runs lie in the folder given, or in a fresh one."""

    def make(*words: str, folder: Path = tmp_path) -> RunConfig:
        tree = merge(
            copy.deepcopy(TREE), {"run": {"folder": str(folder)}, "warm_start": {"cache": str(tmp_path / "cache")}}
        )
        for word in words:
            tree = merge(tree, parse_override(word))
        return config_from_tree(tree)

    return make


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """Return a file: tasks from 12 on that begin while it is there never end; 10 and 11 of step 2 do."""
    file = tmp_path / "hold"
    file.touch()
    return file


@pytest.fixture
def rays(tmp_path: Path) -> Iterator[Rays]:
    with Rays(tmp_path / "rays") as made:
        yield made
