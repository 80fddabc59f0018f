"""Run folders and boards for the tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boards import HOSTILE, MakeRun, config, made_group, row
from starlette.testclient import TestClient

from ratchet.board.board import Board
from ratchet.board.server import make_app
from ratchet.store.run_store import RunStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "runs"
    made.mkdir()
    return made


@pytest.fixture
def make_run(folder: Path) -> MakeRun:
    """Return a function that makes a run of some steps, with rollouts of its last two."""

    def make(
        name: str = "one",
        steps: int = 12,
        seed: int = 0,
        algorithm: str = "grpo",
        lr: float = 1e-3,
        state: str = "finished",
    ) -> RunStore:
        store = RunStore.create(folder / name, config(name, seed, algorithm, lr), {"steps": 40}, {"ratchet": "0"})
        store.append_event("start", 0, parameters=1)
        for k in range(steps):
            store.append_metrics(row(k, 0.1 + 0.02 * k))
        for k in range(max(0, steps - 2), steps):
            texts = [f"a good answer of step {k}", f"another reply {k}", HOSTILE, "late"]
            narrow = made_group(1, k, ["same", "same"], [0.5, 0.5])
            store.write_groups(k, [narrow, made_group(0, k, texts, [1.0, 0.25, 0.0, None])])
        store.append_event("eval", steps, split="test", reward_mean=0.5)
        store.write_status({"state": state, "step": steps, "steps": 40})
        return store

    return make


@pytest.fixture
def board(folder: Path) -> Iterator[Board]:
    made = Board(folder)
    yield made
    made.close()


@pytest.fixture
def client(board: Board) -> TestClient:
    """A page's requests to the board on this machine."""
    return TestClient(make_app(board), base_url="http://localhost")


@pytest.fixture
def id_of(client: TestClient) -> Callable[[str], str]:
    """Return a function from a run's name to its id."""

    def find(name: str) -> str:
        return next(run["id"] for run in client.get("/api/runs").json()["runs"] if run["name"] == name)

    return find
