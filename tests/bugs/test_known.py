"""Inputs that people wrote: found in doctests and tests, wherever they are literals."""

from __future__ import annotations

import ast

import pytest
from borrowed import pond

from ratchet.bugs.allowed import Reason, Refused
from ratchet.bugs.kinds import BOOL, FLOAT, INT, NONE, STR, Kind, kind_of, signature_of
from ratchet.bugs.known import Call, NotLiteral, calls_in_doctests, calls_in_tests, literal


def function(source: str) -> ast.FunctionDef:
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    return node


def test_doctests_give_arguments_and_what_they_show() -> None:
    docstring = """Add.

    >>> f(1, b=2)
    3
    >>> items = [1, 2]
    >>> list(f(items))
    [1, 2]
    >>> print(f("x"))
    x
    >>> f(unknown)
    4
    >>> f(())
    0
    >>> f(-1)
    Traceback (most recent call last):
    ValueError
    >>> [f(i) for i in range(3)]
    [0, 1, 2]
    """
    assert calls_in_doctests(docstring, "f") == [
        Call((1,), (("b", 2),), 3, True),
        Call(([1, 2],)),
        Call(("x",)),
        Call(([],)),  # a tuple is given as a list, so what it shows is not held against the function
        Call((-1,)),
    ]
    assert calls_in_doctests(">>> f(\n", "f") == []


def test_tests_give_arguments_through_names_loops_and_parameters() -> None:
    found = calls_in_tests(pond().tests, {"headline", "count_vowels", "longest", "clamp", "neighbours", "span"})
    assert {name: [(call.args, call.keywords) for call in calls] for name, calls in found.items()} == {
        "headline": [(("the art of war",), ()), (("of mice and men",), ())],
        "count_vowels": [(("",), ()), (("aeiou",), ()), (("Queue",), ())],
        "longest": [((["to", "be"],), ()), ((["a", "bcd", "ef"],), ()), (([],), ())],
        "clamp": [((5,), ()), ((-3,), (("high", 2),)), ((9, 0, 7), ())],
        "neighbours": [(([0, 1, 2],), ())],
        "span": [(([4, -1],), ())],
    }


def test_test_files_that_are_not_python_or_name_nothing_wanted_are_passed_over() -> None:
    assert calls_in_tests(["f(1\n", "g(1)\n", "assert f(2)\n"], {"f"}) == {"f": [Call((2,))]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(1, 'a', None, True)", [1, "a", None, True]),
        ("{'a': [1.5]}", {"a": [1.5]}),
        ("range(2, 8, 3)", [2, 5]),
        ("'ab' * 2 + 'c'", "ababc"),
        ("2 ** 10 - 1", 1023),
        ("list('ab')", ["a", "b"]),
        ("iter((1, 2))", [1, 2]),
        ("-x", -3),
    ],
)
def test_literals_are_read_as_json(text: str, value: object) -> None:
    assert literal(ast.parse(text, mode="eval").body, {"x": 3}) == value


@pytest.mark.parametrize(
    "text",
    ["b'a'", "{1}", "{1: 2}", "{[]: 1}", "{**x}", "y", "f(1)", "range(10**30)", "'a' * 10**9", "2 ** -1", "-'a'", "1j"],
)
def test_what_only_running_could_tell_or_json_cannot_hold_is_no_literal(text: str) -> None:
    with pytest.raises(NotLiteral):
        literal(ast.parse(text, mode="eval").body, {"x": 3})


def test_keywords_are_put_in_their_place() -> None:
    signature = signature_of(function("def f(a, b=2, c=[], *, d=1): pass"))
    assert signature.positional(Call((1,), (("c", [3]),))) == [1, 2, [3]]
    assert signature.positional(Call((), (("a", 1),))) == [1]
    assert signature.positional(Call((1, 2, 3, 4))) is None
    assert signature.positional(Call((1,), (("d", 2),))) is None
    assert signature.positional(Call(())) is None
    assert signature_of(function("def f(a, *more): pass")).positional(Call((1, 2, 3))) == [1, 2, 3]
    assert signature_of(function("def f(a, b=g(), c=1): pass")).positional(Call((1,), (("c", 2),))) is None


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("def f(x: int): pass", (INT,)),
        ("def f(x: 'str | None'): pass", (STR, NONE)),
        ("def f(x: Optional[float] = None): pass", (FLOAT, NONE)),
        ("def f(x: typing.Sequence[int]): pass", (Kind("list", (INT,)),)),
        ("def f(x: dict[str, list[bool]]): pass", (Kind("dict", (Kind("list", (BOOL,)),)),)),
        ("def f(x: Literal['a', 'b']): pass", (STR,)),
        ("def f(x: Names): pass", (Kind("list", (STR,)),)),
        ("def f(x=0.5): pass", (FLOAT,)),
        ("def f(x):\n  return x.lower()", (STR,)),
        ("def f(x):\n  return x.items()", (Kind("dict"),)),
        ("def f(x):\n  return range(x)", (INT,)),
        ("def f(x):\n  return isinstance(x, (str, int))", (STR, INT)),
        ("def f(text):\n  return [c for c in text]", (STR,)),
        ("def f(n=None):\n  return n", (INT,)),
        ("def f(x):\n  return x", ()),
        ("def f(x: T):\n  return x", ()),
    ],
)
def test_kinds_come_from_annotations_defaults_names_and_use(source: str, kinds: tuple[Kind, ...]) -> None:
    aliases = {"Names": ast.parse("list[str]", mode="eval").body}
    (parameter,) = signature_of(function(source), aliases.get).parameters
    assert parameter.kinds == kinds
    assert parameter.is_guess is (":" not in source.partition(")")[0] or not kinds)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(): pass", Reason.KEYWORDS),
        ("def f(a, *, b): pass", Reason.KEYWORDS),
        ("def f(g, x):\n  return g(x)", Reason.CALLABLE),
        ("def f(g: Callable[[int], int], x): pass", Reason.CALLABLE),
        ("def f(g, xs):\n  return map(g, xs)", Reason.CALLABLE),
        ("def f(xs, k):\n  return sorted(xs, key=k)", Reason.CALLABLE),
    ],
)
def test_functions_that_json_cannot_call_are_refused(source: str, reason: Reason) -> None:
    with pytest.raises(Refused) as caught:
        signature_of(function(source))
    assert caught.value.reason is reason


def test_a_function_that_is_optional_is_left_out() -> None:
    _, key = signature_of(function("def f(xs, key=None):\n  return sorted(xs, key=key)")).parameters
    assert key.kinds == (NONE,)


def test_the_kind_of_a_value_is_told_to_any_depth() -> None:
    assert kind_of([1, "a", [True]]) == Kind("list", (INT, Kind("list", (BOOL,)), STR))
    assert kind_of({"a": None}) == Kind("dict", (NONE,))
