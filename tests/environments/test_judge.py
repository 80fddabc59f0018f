"""The judge, and where its pairs come from."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from ratchet.core.errors import ConfigError
from ratchet.core.task import Message, Split, Task
from ratchet.environments.judge import JUDGE_PROMPT, JUDGE_SYSTEM, Judge
from ratchet.environments.pairs import GymPairs
from ratchet.rewards.gym import Gym, GymItem

TRAIN = Split("train", 3)
# 7, 0, 5: the right sum is 5, at A.
TASK = Task(
    "judge",
    (Message("user", "a7b3c5=?[A]5[B]8"),),
    answer="A",
    extras={"a": "5", "b": "8", "steps": ["a77", "b30", "c55"]},
)
FULL = "<think>a77b30c55[A]5yes[B]8no</think><answer>[[A]]</answer>"


def write_pairs(path: Path, num: int) -> str:
    lines = [{"question": f"q{i}", "chosen": f"good{i}", "rejected": f"bad{i}"} for i in range(num)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def test_the_example_of_the_documentation() -> None:
    assert Judge().gold(TASK) == FULL


@pytest.mark.parametrize(
    ("text", "accuracy", "form"),
    [
        (FULL, 1, 1),
        (FULL.replace("[[A]]", "[[B]]"), 0, 1),
        ("<think></think>[[A]]</answer>", 1, 0),
        ("<think></think><answer>[[A]][[B]]</answer>", 0, 0),
        ("[[A]]", 1, 0),
        ("A", 0, 0),
    ],
)
def test_accuracy_and_format_are_apart_and_their_sum_is_the_value(text: str, accuracy: float, form: float) -> None:
    score = asyncio.run(Judge().score(TASK, text))
    assert score.parts == {"accuracy": accuracy, "format": form}
    assert score.value == accuracy + form


def test_the_winner_is_at_each_position_equally_often_and_in_no_fixed_order() -> None:
    winners = "".join(Judge().task(TRAIN, i).answer for i in range(400))
    assert winners.count("A") == 200
    pairs = [winners[i : i + 2] for i in range(0, 400, 2)]
    assert set(pairs) == {"AB", "BA"}
    assert 60 < pairs.count("AB") < 140


def test_the_winner_of_a_sum_is_the_right_sum() -> None:
    for i in range(50):
        task = Judge().task(TRAIN, i)
        right, wrong = (task.extras["a"], task.extras["b"])[:: 1 if task.answer == "A" else -1]
        assert task.extras["steps"][-1][-1] == right
        assert right != wrong
        assert task.prompt[-1].content.endswith(f"=?[A]{task.extras['a']}[B]{task.extras['b']}")


def test_a_demonstration_checks_both_candidates_only_when_the_sum_is_complete() -> None:
    environment = Judge(full_share=0.25, dropped_tag_share=0)
    texts = [environment.demonstration(TASK, random.Random(seed)) for seed in range(1000)]
    full = [text for text in texts if "c55" in text]
    assert set(full) == {FULL}
    assert 0.2 < len(full) / len(texts) < 0.3
    assert not any("yes" in text for text in texts if text != FULL)
    assert all(text.endswith("<answer>[[A]]</answer>") for text in texts)


def test_a_prompt_for_real_models_carries_question_and_answers_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"question": "{a} and {x}?", "chosen": "\\frac{b}{2}", "rejected": "{question}"}) + "\n")
    environment = Judge(source=str(path), source_options={"held_out": 0}, prompt=JUDGE_PROMPT, system=JUDGE_SYSTEM)
    system, user = environment.task(TRAIN, 0).prompt
    assert system == Message("system", JUDGE_SYSTEM)
    for text in ("[Request]\n{a} and {x}?\n", "\n\\frac{b}{2}\n", "\n{question}\n"):
        assert text in user.content


def test_a_file_of_pairs_is_shared_out_between_the_splits(tmp_path: Path) -> None:
    environment = Judge(source=write_pairs(tmp_path / "p.jsonl", 20), source_options={"held_out": 0.2})
    train, test = Split("train", 0), Split("test", 0)
    assert (environment.num_tasks(train), environment.num_tasks(test)) == (16, 4)
    questions = {environment.task(train, i).prompt[0].content.split("[")[0] for i in range(16)}
    held_out = {environment.task(test, i).prompt[0].content.split("[")[0] for i in range(4)}
    assert len(questions | held_out) == 20
    # Another seed is another order, not another share.
    other = Split("test", 1)
    assert held_out == {environment.task(other, i).prompt[0].content.split("[")[0] for i in range(4)}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "p.jsonl: the file is empty"),
        (" \n\n", "p.jsonl: the file is empty"),
        ('{"question": "q", "chosen": "c", "rejected": "r"}\n\n{"question": "q"}', 'p.jsonl:3: "chosen" is missing'),
        ('{"question": "q", "chosen": "c", "reject": "r"}', 'Did you mean "reject"?'),
        ('{"question": "q", "chosen": "c", "rejected": null}', 'p.jsonl:1: "rejected" is null'),
        ('{"question": "q", "chosen": "c", "rejected": " "}', 'p.jsonl:1: "rejected" is " "'),
        ('{"question": "q", "chosen": "c", "rejected": "c"}', "p.jsonl:1: chosen and rejected are the same"),
        ("[1, 2]", "p.jsonl:1: a JSON list"),
        ("{'question': 1}", "p.jsonl:1: not JSON"),
        ("[" * 100_000, "p.jsonl:1: not JSON"),
        ('{"question": "q", "chosen": "c", "rejected": "r"}', "1 line(s) are too few"),
    ],
)
def test_a_bad_file_of_pairs_is_refused_with_file_and_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        Judge(source=str(path))
    assert told in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.jsonl: No such file"):
        Judge(source="nowhere.jsonl")
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"question": "\xff"}')
    with pytest.raises(ConfigError, match="not UTF-8 at byte 14"):
        Judge(source=str(path))


def test_a_number_is_taken_as_its_text_and_odd_line_ends_do_not_split(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"question": "a\u2028b", "chosen": 5, "rejected": 6}\r\n', newline="")
    task = Judge(source=str(path), source_options={"held_out": 0}).task(TRAIN, 0)
    assert {task.extras["a"], task.extras["b"]} == {"5", "6"}
    assert "a\u2028b" in task.prompt[0].content


def test_an_unknown_source_and_a_bad_template_are_explained() -> None:
    with pytest.raises(ConfigError, match='Did you mean "sum"'):
        Judge(source="sums")
    with pytest.raises(ValueError, match=r"lacks \{a\} and \{b\}"):
        Judge(prompt="{question}")


def test_gym_pairs_are_marked_apart_by_the_librarys_scorer() -> None:
    pytest.importorskip("reasoning_gym")
    for name in ("chain_sum", "word_sorting", "leg_counting", "spell_backward"):
        gym = Gym.open(name, {}, where="environment.source_options")
        for i in range(5):
            pair = GymPairs(gym).pair(TRAIN, i)
            assert gym.grade(TRAIN, i, pair.chosen) == 1
            assert gym.grade(TRAIN, i, pair.rejected) < 1


class EvenOrOdd(Gym):
    """A task with many right answers: any number that is as even or odd as the gold answer."""

    def item(self, split: Split, index: int) -> GymItem:
        return GymItem(f"question {index}", str(1000 + index))

    def grade(self, split: Split, index: int, answer: str) -> float:
        return float(answer.isdecimal() and int(answer) % 2 == index % 2)


def test_a_candidate_that_is_right_after_all_is_not_taken_for_a_wrong_one() -> None:
    gym = EvenOrOdd("even_or_odd", "{}")
    for i in range(30):
        assert gym.grade(TRAIN, i, GymPairs(gym).pair(TRAIN, i).rejected) == 0


def test_gym_sources_that_cannot_be_used_are_explained() -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ConfigError, match='Did you mean "chain_sum"'):
        Judge(source="reasoning_gym:chain_sums")
    with pytest.raises(ConfigError, match=r'source_options.min_term is no option.*Did you mean "min_terms"'):
        Judge(source="reasoning_gym:chain_sum", source_options={"min_term": 2})
    with pytest.raises(ConfigError, match="seed is set by ratchet"):
        Judge(source="reasoning_gym:chain_sum", source_options={"seed": 2})
    with pytest.raises(ConfigError, match="refuses"):
        Judge(source="reasoning_gym:chain_sum", source_options={"min_terms": 9, "max_terms": 2})
    with pytest.raises(ConfigError, match="gives no pairs"):
        Judge(source="reasoning_gym:rush_hour").task(TRAIN, 0)
