"""Reading answers out of texts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.rewards import text as read

FULL = "<think>a77b30[A]0yes[B]3no</think><answer>[[A]]</answer>"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (FULL, "A"),
        ("<think></think><answer>[[B]]</answer>", "B"),
        ("<think></think>[[B]]</answer>", "B"),
        ("[[B]]", "B"),
        ("[[A]] or [[B]]", ""),
        ("[[C]]", ""),
        ("", ""),
        ("[[A]]" + " " * 200, "A"),
        ("[[A]]" + "." * 76, ""),
        ("[[A]]" + "." * 75, "A"),
        ("[[B]]" + "." * 200 + "[[A]]", "A"),
    ],
)
def test_the_verdict_is_the_only_one_among_the_last_80_characters(text: str, verdict: str) -> None:
    assert read.last_verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [
        (FULL, True),
        ("<think></think><answer>[[B]]</answer>", True),
        ("<think>x < y > z</think>\n\n<answer> [[A]] </answer>\n", True),
        ("<think>x</think><answer>[[A]]</answer>.", False),
        ("so <think>x</think><answer>[[A]]</answer>", False),
        ("<think>x</think> so <answer>[[A]]</answer>", False),
        ("<think>x<answer>[[A]]</answer>", False),
        ("<think>x</think>[[A]]</answer>", False),
        ("<think>x</think><answer>[[A]]", False),
        ("<think>x</think><answer></answer>", False),
        ("<think>x</think><answer>[[A]][[A]]</answer>", False),
        ("<think>x</think><answer>[[C]]</answer>", False),
        ("<think>x</think><answer>[[A]]</answer><answer>[[A]]</answer>", False),
        ("<think><think>x</think></think><answer>[[A]]</answer>", False),
        ("<think><answer>[[A]]</answer></think>", False),
        ("<think><answer></think>[[A]]</answer>", False),
        ("", False),
    ],
)
def test_a_thought_then_a_verdict_and_nothing_else(text: str, well_formed: bool) -> None:
    assert read.is_thought_then_verdict(text) is well_formed


@pytest.mark.parametrize(
    ("answer", "well_formed"), [("7", True), ("-12", True), ("", False), ("7.5", False), ("--7", False), ("²", False)]
)
def test_an_answer_block_must_hold_an_integer(answer: str, well_formed: bool) -> None:
    assert read.is_thought_then_integer(f"<think>a</think><answer>{answer}</answer>") is well_formed


@pytest.mark.parametrize(
    ("text", "integer"),
    [
        ("<think>a77</think><answer>6</answer>", "6"),
        ("<think>a77</think>6</answer>", "6"),
        ("<think>a77<answer>-6", "-6"),
        ("<answer>6</answer></answer>", ""),
        ("6.", ""),
        ("", ""),
    ],
)
def test_the_integer_that_ends_a_text(text: str, integer: str) -> None:
    assert read.last_integer(text) == integer


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1}, no: \boxed{ 2 }", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{1 \boxed{2}", "2"),
        (r"\boxed{}", ""),
        (r"\boxed{", None),
        ("42", None),
    ],
)
def test_the_last_complete_box(text: str, boxed: str | None) -> None:
    assert read.last_boxed(text) == boxed


def test_the_last_marked_line_and_the_last_tags() -> None:
    assert read.last_marked("#### 1\nno\n####  2 apples \nbye") == "2 apples"
    assert read.last_marked("## 1") is None
    assert read.last_tagged("<answer>1</answer> <answer> 2 </answer>") == "2"
    assert read.last_tagged("<answer>1</answer> <answer>2") == "1"
    assert read.last_tagged("1</answer>") is None


def test_a_box_goes_before_a_marked_line_and_that_before_tags() -> None:
    assert read.final_answer(r"<answer>1</answer> #### 2" + "\n" + r"\boxed{3}") == "3"
    assert read.final_answer("<answer>1</answer>\n#### 2") == "2"
    assert read.final_answer("<answer>1</answer>") == "1"
    assert read.final_answer("1") is None


def test_an_exact_answer_is_compared_letter_by_letter_white_space_aside() -> None:
    assert read.is_exactly("a  b", "so <answer>a b\n</answer>")
    assert read.is_exactly("a b", "a b")
    assert not read.is_exactly("a b", "A b")
    assert not read.is_exactly("a b", "it is a b")
    assert not read.is_exactly("b", "<answer>a</answer> b")


@given(st.text(alphabet="<>/thinkaswer[]AB{}\\boxed#0123456789 \n", max_size=200))
def test_reading_never_raises(text: str) -> None:
    read.last_verdict(text)
    read.last_integer(text)
    read.final_answer(text)
    read.is_thought_then_verdict(text)
    read.is_thought_then_integer(text)
    read.is_exactly("1", text)


@pytest.mark.parametrize("piece", ["\\boxed{", "<answer>", "</answer>", "#### ", "[[A]]", "9", "<think>", "{"])
def test_reading_takes_time_in_proportion_to_the_text(piece: str) -> None:
    start = time.process_time()
    text = piece * 20_000
    read.final_answer(text)
    read.last_integer(text)
    read.is_thought_then_verdict(text)
    assert time.process_time() - start < 2
