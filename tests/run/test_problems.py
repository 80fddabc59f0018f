"""The curriculum and the late replay of successes in whole runs, killed ones too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import group, rollout, tiny_policy, turn
from runs import Notes, rows, weights

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.rollout import Positive
from ratchet.run.launch import resume, train
from ratchet.run.observer import Silent
from ratchet.store.run_store import RunStore
from ratchet.train.credit import shown_again
from ratchet.train.trainer import Trainer

Config = Callable[..., RunConfig]
CURRICULUM = ("curriculum.problems=24", "curriculum.attempts=2", "curriculum.solved=0.4", "curriculum.every=2",
              "curriculum.count=3", "environment.size=40")  # fmt: skip
POSITIVES = ("positives.per_step=3", "positives.recent=3", "positives.window=1", "positives.gain=1.0",
             "positives.solved=0.4")  # fmt: skip


class Dies(Silent):
    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, row: dict[str, float], total: int) -> None:
        if row["step"] == self._step:
            raise MemoryError("killed")


def test_a_run_trains_on_solved_problems_first_and_on_more_at_each_admission(config: Config, tmp_path: Path) -> None:
    train(config(*CURRICULUM))
    store = RunStore.open(tmp_path / "run")
    decisions = {e["step"]: e for e in store.events() if e["kind"] == "curriculum"}
    assert sorted(decisions) == [0, 2, 4]
    first = decisions[0]
    assert 0 < first["admitted"] < 24
    assert sorted(first["problems"] + first["waiting_problems"]) == list(range(24))
    assert first["rollouts"] == 48
    assert len(decisions[2]["problems"]) - len(first["problems"]) == decisions[2]["newly_admitted"] <= 3
    table = store.metrics()
    assert [row["curriculum/admitted"] for row in table] == [decisions[step]["admitted"] for step in (0, 0, 2, 2, 4, 4)]
    for step in range(6):
        problems = {g.task.extras["index"] for g in store.read_groups(step)}
        assert problems <= set(decisions[step - step % 2]["problems"])
    assert table[0]["flops/curriculum/step"] > 0
    assert "flops/curriculum/step" not in table[1]
    assert table[-1]["flops/curriculum/total"] == sum(e["flops"] for e in decisions.values())


@pytest.mark.parametrize("rule", ["unsolved", "solvable"])
def test_the_rule_decides_which_problems_come_in(config: Config, tmp_path: Path, rule: str) -> None:
    train(config(*CURRICULUM, f"curriculum.rule={rule}", "train.steps=3"))
    event = [e for e in RunStore.open(tmp_path / "run").events() if e["kind"] == "curriculum"][-1]
    assert event["newly_admitted"] == min(3, event["solvable_waiting"] if rule == "solvable" else 99)


def test_nothing_is_admitted_below_the_threshold(config: Config, tmp_path: Path) -> None:
    train(config(*CURRICULUM, "curriculum.threshold=1.0", "train.steps=3"))
    events = [e for e in RunStore.open(tmp_path / "run").events() if e["kind"] == "curriculum"]
    assert events[-1]["newly_admitted"] == 0
    assert 0 < events[-1]["success"] < 1


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        (CURRICULUM, 2),
        ((*CURRICULUM, "sync.offset=1", "train.overlap=true"), 4),
        (POSITIVES, 4),
        ((*POSITIVES, *CURRICULUM, "sync.interval=2", "sync.offset=1"), 3),
    ],
)
def test_a_kill_changes_nothing(config: Config, tmp_path: Path, settings: tuple[str, ...], last: int) -> None:
    train(config(*settings, folder=tmp_path / "straight"))
    with pytest.raises(MemoryError):
        train(config(*settings), Dies(last))
    assert resume(tmp_path / "run").finished
    assert rows(tmp_path / "run") == rows(tmp_path / "straight" / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight" / "run")


def test_successes_are_shown_again_once_the_rate_has_flattened(config: Config, tmp_path: Path) -> None:
    train(config(*POSITIVES, "positives.start=3"))
    store = RunStore.open(tmp_path / "run")
    table = store.metrics()
    assert [row["positives/count"] > 0 for row in table] == [False] * 3 + [True] * 3
    assert all(row["positives/count"] + row["positives/missing"] == 3 for row in table[3:])
    assert all(0 < row["positives/age"] <= 3 for row in table[3:])
    assert [e["step"] for e in store.events() if e["kind"] == "positives"] == [3]
    without = train(config(folder=tmp_path / "without")).folder
    mine, theirs = rows(tmp_path / "run"), rows(without)
    same = ("reward/mean", "loss/policy", "opt/grad_norm")
    assert [[row[k] for k in same] for row in mine[:3]] == [[row[k] for k in same] for row in theirs[:3]]
    assert mine[3]["tokens/trained"] > theirs[3]["tokens/trained"]


def test_an_answer_shown_again_pulls_as_it_did_in_its_group() -> None:
    """One step on a whole group, and one on each of its answers alone with the advantage it had, are the same step."""
    policy = tiny_policy()
    groups = [group([rollout(r, turn([1, 2], [3 + i, 5, 7]), attempt=i) for i, r in enumerate((0.0, 1.0, 0.5, 0.0))])]
    whole, again = (
        Trainer(tiny_policy(), build_algorithm("red_weight", {}), AlgorithmSection(lr=1e-2), TrainSection(), seed=0)
        for _ in range(2)
    )
    whole.step(groups, 0)
    again.step([], 0, [Positive(groups[0], r) for r in groups[0].rollouts])
    for (name, a), b in zip(whole.policy.decoder.named_parameters(), again.policy.decoder.parameters(), strict=True):
        assert np.allclose(a.detach(), b.detach(), atol=1e-6), name
    assert not np.allclose(whole.policy.decoder.head.detach(), policy.decoder.head.detach())


def test_the_advantage_of_an_answer_shown_again_is_that_of_its_own_group() -> None:
    made = group([rollout(r, turn([1, 2], [3 + i, 5]), attempt=i) for i, r in enumerate((0.0, 1.0, 0.5, 0.5))])
    (sample,) = shown_again([Positive(made, made.rollouts[1])], build_algorithm("rloo", {}), first=7)
    assert (sample.group, sample.reward) == (7, 1.0)
    assert sample.given == pytest.approx(1.0 - 1.0 / 3)  # by hand: 1 - (0 + 0.5 + 0.5) / 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("curriculum.problems=9", "environment.size=8"), "the training split has 8 tasks"),
        (("curriculum.problems=8", "curriculum.solved=9.0"), "None of the 8 problems was solved in 16 attempts"),
        (("curriculum.problems=8", "data.from_run=somewhere"), "data.from_run"),
        (("positives.per_step=1", "buffer.kind=replay"), 'buffer.kind = "fifo"'),
        (("positives.per_step=1", "record.rollouts=false"), "record.rollouts"),
        (("positives.per_step=1", "algorithm.name=ppo"), "another algorithm"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(config: Config, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("(", "\\(")):
        train(config(*words), Notes())
