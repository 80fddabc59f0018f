"""What every built-in environment promises, whatever it asks."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ratchet.core.protocols import Demonstrates, Environment, Probes
from ratchet.core.task import Message, Split, Task
from ratchet.environments.scripted import Scripted, Silent
from ratchet.environments.single_turn import Alphabet
from ratchet.environments.table import BUILT_IN, build_environment, close_environment

TRAIN, TEST = Split("train", 7), Split("test", 7)


@dataclass(frozen=True)
class Case:
    """A built-in environment with options, and what its gold answer earns."""

    name: str
    options: dict[str, object]
    full: float


CASES = {
    "arithmetic": Case("arithmetic", {}, 2.0),
    "arithmetic_accuracy_only": Case("arithmetic", {"format_weight": 0, "repeat_last": 16, "full_share": 0.5}, 1.0),
    "judge_sum": Case("judge", {}, 2.0),
    "judge_gym": Case("judge", {"source": "reasoning_gym:chain_sum"}, 2.0),
    "judge_file": Case("judge", {"source": "pairs.jsonl", "source_options": {"held_out": 0.25}}, 2.0),
    "reproduce": Case("reproduce", {}, 1.0),
    "swarm": Case("swarm", {}, 1.0),
    "swarm_agent": Case("swarm", {"agent_share": 1.0}, 1.0),
    "wide_search": Case("wide_search", {"path": "texts.jsonl", "words": 2, "held_out": 0.4}, 1.0),
    "reasoning_gym": Case("reasoning_gym", {"task": "gcd", "reward_workers": 1}, 1.0),
    "questions_math": Case("questions", {"path": "questions.jsonl", "reward_workers": 1, "held_out": 0.25}, 1.0),
    "questions_exact": Case("questions", {"path": "questions.jsonl", "verifier": "exact", "held_out": 0.25}, 1.0),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def environment(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    folder = tmp_path_factory.mktemp("data")
    _write(
        folder / "pairs.jsonl", [{"question": f"{i}+1?", "chosen": f"{i + 1}", "rejected": f"{i}"} for i in range(12)]
    )
    _write(folder / "questions.jsonl", [{"question": f"{i}+1?", "answer": f"So\n#### {i + 1}"} for i in range(12)])
    names = ["".join(letters) for letters in itertools.product("bdfg", "aeiou", "lmnr", "oz")]
    _write(folder / "texts.jsonl", [{"question": f"Say {name} again."} for name in names for _ in range(3)])
    options = {k: str(folder / v) if str(v).endswith(".jsonl") else v for k, v in case.options.items()}
    if case.name in ("judge", "reasoning_gym") and "gym" in f"{case.name}{options.get('source')}":
        pytest.importorskip("reasoning_gym")
    built = build_environment(case.name, options)
    yield built
    close_environment(built)


def _write(path: Path, lines: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


ADAPTERS = {"agents", "gymnasium", "verifiers"}
"""Their tasks, answers and rewards are somebody else's: ``tests/serve/test_training.py`` and
``tests/environments/test_stepping.py`` ask them."""


def test_every_built_in_environment_is_covered() -> None:
    assert {case.name for case in CASES.values()} == set(BUILT_IN) - ADAPTERS


def test_its_name_is_that_of_the_table_and_of_its_tasks(environment: Environment, case: Case) -> None:
    assert environment.name == case.name
    assert environment.task(TRAIN, 0).environment == case.name


def test_a_task_depends_on_split_and_index_alone(environment: Environment) -> None:
    first = [environment.task(TRAIN, i) for i in range(6)]
    again = [environment.task(TRAIN, i) for i in reversed(range(6))][::-1]
    assert first == again
    assert len({task.id for task in first}) == len(first)


def test_train_and_test_hold_different_tasks(environment: Environment) -> None:
    num_train = environment.num_tasks(TRAIN) or 50
    num_test = environment.num_tasks(TEST) or 50
    # Where what makes the task is hidden from the policy, two tasks may begin with the same words.
    hidden = environment.name == "swarm"
    train = {t.id if hidden else t.prompt for t in (environment.task(TRAIN, i) for i in range(num_train))}
    test = {t.id if hidden else t.prompt for t in (environment.task(TEST, i) for i in range(num_test))}
    assert train
    assert test
    # Generators may meet a question twice by chance (small gcd numbers), data sets never.
    assert len(train & test) <= (2 if environment.num_tasks(TRAIN) is None else 0)


def test_another_seed_gives_another_order(environment: Environment) -> None:
    other = Split("train", 8)
    assert [environment.task(TRAIN, i).prompt for i in range(6)] != [
        environment.task(other, i).prompt for i in range(6)
    ]


def test_a_finite_environment_reads_every_task_once_per_epoch(environment: Environment) -> None:
    size = environment.num_tasks(TRAIN)
    if size is None:
        pytest.skip("it generates without end")
    # A judge may show the same pair the other way round in the next epoch.
    first_epoch = [environment.task(TRAIN, i).prompt[-1].content.split("[A]")[0] for i in range(size)]
    second_epoch = [environment.task(TRAIN, i).prompt[-1].content.split("[A]")[0] for i in range(size, 2 * size)]
    assert len(set(first_epoch)) == size
    assert set(first_epoch) == set(second_epoch)


def test_a_task_survives_json(environment: Environment) -> None:
    task = environment.task(TRAIN, 3)
    content = json.loads(
        json.dumps([task.environment, [[m.role, m.content] for m in task.prompt], task.answer, dict(task.extras)])
    )
    prompt = tuple(Message(role, text) for role, text in content[1])
    assert Task(content[0], prompt, content[2], content[3]) == task


def test_gold_earns_everything(environment: Environment, case: Case) -> None:
    assert isinstance(environment, Probes)

    async def values() -> list[float]:
        tasks = [environment.task(TRAIN, i) for i in range(6)]
        scores = [await environment.score(task, environment.gold(task)) for task in tasks]
        return [score.value for score in scores]

    assert asyncio.run(values()) == [case.full] * 6


@pytest.mark.parametrize("reply", ["", "I cannot help with that.", "</think><answer>", "\\boxed{", "\x00\ud7ff" * 50])
def test_a_reply_that_is_no_answer_scores_nothing_and_does_not_raise(environment: Environment, reply: str) -> None:
    outcome = asyncio.run(environment.run(environment.task(TRAIN, 0), Scripted([reply])))
    assert outcome.score.value == 0


def test_the_policy_is_asked_the_prompt_once(environment: Environment, case: Case) -> None:
    assert isinstance(environment, Probes)
    task = environment.task(TRAIN, 0)
    policy = Scripted([environment.gold(task)])
    outcome = asyncio.run(environment.run(task, policy))
    assert policy.asked == [task.prompt]
    assert outcome.score.value == case.full


def test_it_can_be_cancelled_while_the_policy_thinks(environment: Environment) -> None:
    async def cancel() -> bool:
        policy = Silent()
        run = asyncio.create_task(environment.run(environment.task(TRAIN, 0), policy))
        async with asyncio.timeout(30):
            await policy.asked.wait()
        run.cancel()
        (result,) = await asyncio.gather(run, return_exceptions=True)
        return isinstance(result, asyncio.CancelledError)

    assert asyncio.run(cancel())


def test_demonstrations_earn_everything_at_least_sometimes(environment: Environment, case: Case) -> None:
    if not isinstance(environment, Demonstrates):
        pytest.skip("it has no demonstrations")
    assert isinstance(environment, Probes)

    async def values() -> list[float]:
        tasks, rng = [environment.task(TRAIN, i) for i in range(20)], random.Random(0)
        scores = [await environment.score(task, last(environment.demonstration(task, rng))) for task in tasks]
        return [score.value for score in scores]

    earned = asyncio.run(values())
    assert max(earned) == case.full
    assert earned.count(case.full) >= 6


def last(shown: str | Sequence[Message]) -> str:
    return shown if isinstance(shown, str) else shown[-1].content


def all_of(shown: str | Sequence[Message]) -> str:
    return shown if isinstance(shown, str) else "".join(m.content for m in shown)


def test_its_alphabet_spells_prompts_and_demonstrations(environment: Environment) -> None:
    if not isinstance(environment, Alphabet):
        pytest.skip("it is not for tiny policies")
    assert isinstance(environment, Demonstrates)
    rng = random.Random(0)
    assert all(len(word) > 1 for word in environment.words)
    assert "".join(sorted(set(environment.characters))) == environment.characters
    for split in (TRAIN, TEST):
        for i in range(3):
            task = environment.task(split, i)
            text = "".join(m.content for m in task.prompt) + all_of(environment.demonstration(task, rng))
            for word in sorted(environment.words, key=len, reverse=True):
                text = text.replace(word, "")
            assert set(text) <= set(environment.characters)
