"""Answers compared as mathematics."""

from __future__ import annotations

import asyncio
import json
import os
from fractions import Fraction
from pathlib import Path

import pytest

from ratchet.core.task import Task
from ratchet.rewards.math import plain_number, score_math
from ratchet.rewards.pool import RewardPool

pytest.importorskip("math_verify")

DATA = os.environ.get("RATCHET_TEST_DATA", "")


def pays(gold: str, text: str) -> bool:
    return score_math(Task("questions", (), gold), text) == 1.0


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("42", "42"),
        ("42", r"so \boxed{42}"),
        ("42", "so\n#### 42"),
        ("42", "<answer>42</answer>"),
        ("1080", r"\boxed{1,080}"),
        ("1,080", "1080"),
        ("5", r"\boxed{5.00}"),
        ("5", r"\boxed{\$5}"),
        ("0.5", r"\boxed{\frac{1}{2}}"),
        (r"\frac{1}{2}", r"\boxed{1/2}"),
        ("x^2+1", r"\boxed{1+x^2}"),
        ("(1,2)", r"\boxed{(1, 2)}"),
        ("5", r"\boxed{x=5}"),
        (r"2\sqrt{2}", r"\boxed{\sqrt{8}}"),
        ("42", "I think that it is 42 dollars."),
        ("50%", r"\boxed{50}"),
    ],
)
def test_equal_answers_pay(gold: str, text: str) -> None:
    assert pays(gold, text)


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("42", "43"),
        ("42", r"42, or rather \boxed{43}"),
        ("42", r"\boxed{-42}"),
        ("42", r"\boxed{}"),
        ("42", ""),
        ("42", "forty"),
        ("1080", r"\boxed{1,08}"),
        (r"\frac{1}{2}", r"\boxed{\frac{1}{3}}"),
        ("x^2+1", r"\boxed{x^2-1}"),
        ("42", r"\boxed{" + "4" * 6000 + "}"),
        ("42", r"\boxed{1/0}"),
    ],
)
def test_different_answers_do_not_pay(gold: str, text: str) -> None:
    assert not pays(gold, text)


def test_plain_numbers_are_exact() -> None:
    assert plain_number("0.1") == Fraction(1, 10)
    assert plain_number("$1,234.50") == Fraction(2469, 2)
    assert plain_number("-3.") == -3
    assert plain_number("1,23") is None
    assert plain_number("1e5") is None
    assert plain_number("") is None


def test_it_runs_in_a_reward_process() -> None:
    async def play() -> float:
        async with RewardPool(num_workers=1, timeout_s=3) as pool:
            task = Task("questions", (), r"\frac{3}{4}")
            score = await pool.score("ratchet.rewards.math:score_math", task, r"\boxed{\frac{6}{8}}")
            return score.value

    assert asyncio.run(play()) == 1.0


@pytest.mark.skipif(
    not DATA, reason="RATCHET_TEST_DATA is not set to a folder with gsm8k_train.jsonl, gsm8k_test.jsonl"
)
def test_every_gold_answer_of_gsm8k_pays_and_every_perturbed_one_does_not() -> None:
    solutions = [
        json.loads(line)["answer"]
        for name in ("gsm8k_train.jsonl", "gsm8k_test.jsonl")
        for line in Path(DATA, name).read_text(encoding="utf-8").splitlines()
    ]
    assert len(solutions) == 8792
    unpaid, paid = [], []
    for solution in solutions:
        worked, _, gold = solution.rpartition("####")
        gold = gold.strip()
        for right in (gold, solution, f"\\boxed{{{gold}}}", f"<answer>{gold}</answer>"):
            if not pays(gold, right):
                unpaid.append((gold, right))
        number = plain_number(gold)
        assert number is not None, gold
        last = gold[:-1] + str((int(gold[-1]) + 1) % 10)
        for wrong in (str(number + 1), str(number * 10 + 1), last, str(-number - 1)):
            for text in (wrong, f"{worked}#### {wrong}", f"\\boxed{{{wrong}}}"):
                if pays(gold, text):
                    paid.append((gold, text))
    assert not unpaid
    assert not paid
