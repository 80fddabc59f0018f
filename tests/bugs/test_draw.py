"""Inputs that are drawn: of the kinds asked for, the same for the same seed, JSON always."""

from __future__ import annotations

import ast
import json
import random

from hypothesis import given
from hypothesis import strategies as st

from ratchet.bugs.draw import LONGEST_ARGS, Drawer, literals_of
from ratchet.bugs.kinds import TRIED, Kind, kind_of, signature_of

SOURCE = (
    "def f(a: str, b: list[int], c: 'float | None' = None, d=3, *more):\n    return a == 'needle' or a == 41.5 or 977\n"
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def drawer(seed: int = 0, source: str = SOURCE) -> Drawer:
    return Drawer(random.Random(seed), literals_of(ast.parse(source), []))


def test_inputs_are_of_the_kinds_asked_for_and_use_what_the_source_holds() -> None:
    (node,) = ast.parse(SOURCE).body
    assert isinstance(node, ast.FunctionDef)
    found = drawer().inputs(signature_of(node), 200)
    assert len(found) == 200
    assert len({json.dumps(args) for args in found}) == 200
    for a, b, *rest in found:
        assert isinstance(a, str)
        assert kind_of(b) in (Kind("list"), Kind("list", (Kind("int"),)))
        assert not rest or rest[0] is None or isinstance(rest[0], float)
    assert {len(args) for args in found} >= {2, 3, 4, 5}
    text = json.dumps(found)
    assert "needle" in text
    assert "977" in text
    assert "41.5" in text


def test_arguments_often_have_to_do_with_each_other() -> None:
    (node,) = ast.parse("def f(text: str, prefix: str): pass").body
    assert isinstance(node, ast.FunctionDef)
    found = drawer().inputs(signature_of(node), 100)
    assert sum(bool(prefix) and text.startswith(prefix) for text, prefix in found) >= 8  # by chance it would be 1


@given(st.integers(0, 10**6))
def test_the_seed_decides_what_is_drawn(seed: int) -> None:
    (node,) = ast.parse(SOURCE).body
    assert isinstance(node, ast.FunctionDef)
    first, again = (drawer(seed).inputs(signature_of(node), 5) for _ in range(2))
    assert first == again
    assert all(len(json.dumps(args)) <= LONGEST_ARGS for args in first)


@given(JSON, st.integers(0, 1000))
def test_a_value_near_another_is_json_and_the_other_is_left_alone(value: object, seed: int) -> None:
    before = json.dumps(value)
    varied = drawer(seed).near([value])
    assert json.loads(json.dumps(varied)) == varied
    assert json.dumps(value) == before


def test_every_kind_that_is_tried_can_be_drawn() -> None:
    for kind in TRIED:
        drawn = [drawer(seed).value(kind) for seed in range(40)]
        assert {kind_of(value).name for value in drawn} == {kind.name}
        assert len({json.dumps(value) for value in drawn}) > 1
