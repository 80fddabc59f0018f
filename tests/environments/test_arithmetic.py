"""The scratchpad task."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from ratchet.core.task import Message, Split, Task
from ratchet.environments import scratchpad
from ratchet.environments.arithmetic import Arithmetic

# 7, 7+3=10 -> 0, 0+5 = 5
TASK = Task("arithmetic", (Message("user", "a7b3c5=?"),), answer="5", extras={"digits": [7, 3, 5]})
FULL = "<think>a77b30c55</think><answer>5</answer>"


def parts(text: str, **options: float) -> tuple[float, float, float]:
    score = asyncio.run(Arithmetic(**options).score(TASK, text))
    return score.parts["accuracy"], score.parts["format"], score.value


def test_the_example_of_the_documentation() -> None:
    assert scratchpad.question([7, 3, 5]) == "a7b3c5=?"
    assert Arithmetic().gold(TASK) == FULL


@pytest.mark.parametrize(
    ("text", "accuracy", "form"),
    [
        (FULL, 1, 1),
        ("<think></think><answer>5</answer>", 1, 1),
        ("<think></think><answer>6</answer>", 0, 1),
        ("<think></think>5</answer>", 1, 0),
        ("<think><answer>5</answer>", 1, 0),
        ("<think></think><answer>5", 1, 0),
        ("<think></think><answer>05</answer>", 0, 1),
        ("5", 1, 0),
        ("a77b30c55d", 0, 0),
    ],
)
def test_accuracy_and_format_are_apart(text: str, accuracy: float, form: float) -> None:
    assert parts(text) == (accuracy, form, accuracy + form)
    assert parts(text, format_weight=0) == (accuracy, form, accuracy)
    assert parts(text, format_weight=0.5) == (accuracy, form, accuracy + 0.5 * form)


def test_terms_stay_within_their_bounds_and_reach_both() -> None:
    environment = Arithmetic(terms_min=2, terms_max=4)
    counts = Counter(len(environment.task(Split("train", 0), i).extras["digits"]) for i in range(100))
    assert set(counts) == {2, 3, 4}


def test_demonstrations_show_the_mix_that_was_asked_for() -> None:
    environment = Arithmetic(full_share=0.5, dropped_tag_share=0.25)
    texts = [environment.demonstration(TASK, random.Random(seed)) for seed in range(2000)]
    dropped = sum(text.count("<") < 4 for text in texts) / len(texts)
    full = sum("a77b30c55" in text for text in texts) / len(texts)
    assert 0.21 < dropped < 0.29
    assert 0.45 < full < 0.55
    # Every one gives the true answer, guessed or not.
    assert all(asyncio.run(environment.score(TASK, text)).parts["accuracy"] for text in texts[:200])


def test_padding_repeats_the_last_step_between_none_and_as_often_as_allowed() -> None:
    environment = Arithmetic(full_share=1, dropped_tag_share=0, repeat_last=16)
    repeats = [environment.demonstration(TASK, random.Random(seed)).count("c55") - 1 for seed in range(1000)]
    assert (min(repeats), max(repeats)) == (0, 16)
    assert 7.3 < sum(repeats) / len(repeats) < 8.7


def test_a_dropped_tag_is_one_of_three_and_only_one() -> None:
    environment = Arithmetic(full_share=1, dropped_tag_share=1)
    seen = {environment.demonstration(TASK, random.Random(seed)) for seed in range(100)}
    assert seen == {FULL.replace(tag, "") for tag in ("</think>", "<answer>", "</answer>")}
