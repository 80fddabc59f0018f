"""Which mutants are kept, and which cases: by what runs gave, without running anything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from ratchet.bugs.choose import Case, Judged, choose_cases, choose_examples, judge, keep
from ratchet.bugs.inside import MOST_ITEMS, told
from ratchet.bugs.ledger import Fate, Ledger
from ratchet.bugs.levels import NotListed, is_natural, level_of, listed
from ratchet.bugs.measure import Ran, Result
from ratchet.bugs.mutate import Mutant

CASES = [Case([n], n) for n in range(4)]


def mutant(name: str = "x", operator: str = "boundary") -> Mutant:
    return Mutant(name, operator, 1, 0)


def values(*results: object) -> Ran:
    return Ran(tuple(Result("value", value) for value in results))


def raised(*names: str) -> tuple[Result, ...]:
    return tuple(Result("raised", name) for name in names)


def fate(ran: Ran, cases: Sequence[Case] = CASES, level: int = 0, reveal_max: float = 0.5) -> Judged:
    return judge(mutant(), ran, cases, level, reveal_max)


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        (values(0, 1, 2, 3), Fate.EQUIVALENT),
        (values(0.0, True, 2.0, 3), Fate.EQUIVALENT),  # a test compares by ==
        (values(0, 1, 2, 4), Fate.KEPT),
        (values(9, 9, 9, 3), Fate.TRIVIAL),
        (Ran((), "import_error"), Fate.UNLOADABLE),
        (Ran((), "exited"), Fate.UNLOADABLE),
        (Ran((), "timeout"), Fate.TIMED_OUT),
        (Ran(values(0).results, "memory"), Fate.TIMED_OUT),
        (Ran((*values(0, 1, 2).results, Result("lost"))), Fate.TIMED_OUT),
        (Ran((*values(0, 1, 2).results, *raised("MemoryError"))), Fate.TIMED_OUT),
        (Ran((*values(0, 1, 2).results, *raised("UnboundLocalError"))), Fate.UNDEFINED),
        (Ran((*values(0, 1, 2).results, *raised("SystemExit"))), Fate.NOT_PLAIN),
        (Ran((*values(0, 1, 2).results, Result("foreign", "Box"))), Fate.NOT_PLAIN),
        (Ran((*values(0, 1, 2).results, Result("other", "set"))), Fate.KEPT),
        (Ran(raised("TypeError", "TypeError", "TypeError", "TypeError")), Fate.TRIVIAL),
    ],
)
def test_every_way_a_mutant_runs_has_its_fate(ran: Ran, expected: Fate) -> None:
    assert fate(ran).fate is expected


def test_what_a_mutant_raises_is_declared() -> None:
    one = fate(Ran((*values(0, 1, 2).results, *raised("KeyError"))))
    assert (one.fate, one.reveals, one.raises, one.only_raises) == (Fate.KEPT, {3}, ("KeyError",), True)
    mixed = fate(Ran((*values(0, 1, 9).results, *raised("KeyError"))))
    assert (mixed.reveals, mixed.only_raises) == ({2, 3}, False)
    no_list = fate(values([1], None), [Case([0], [1]), Case([1], [2])], level=1)
    assert (no_list.fate, no_list.raises) == (Fate.KEPT, ("TypeError",))


def test_mutants_of_one_behaviour_are_kept_once_and_wrong_values_come_before_crashes() -> None:
    ran = {
        mutant("crash"): Ran((*values(0, 1, 2).results, *raised("KeyError"))),
        mutant("a"): values(0, 1, 2, 9),
        mutant("same as a"): values(0, 1, 2, 9),
        mutant("b"): values(0, 1, 9, 3),
        mutant("c", "index"): values(0, 9, 2, 3),
    }
    judged = [judge(one, ran[one], CASES, 0, 0.5) for one in ran]
    fates = {j.mutant.source: j.fate for j in keep(judged, ran, 3)}
    # One operator has a third of three places, and so has a crash.
    assert fates == {"crash": Fate.SPARE, "a": Fate.KEPT, "same as a": Fate.SAME, "b": Fate.SPARE, "c": Fate.KEPT}
    fates = {j.mutant.source: j.fate for j in keep(judged, ran, 12)}
    assert list(fates.values()).count(Fate.KEPT) == 4
    assert fates["crash"] is Fate.KEPT


def test_few_cases_reveal_every_mutant_that_any_case_reveals() -> None:
    cases = [Case([n], n % 3, is_own=n < 3) for n in range(30)]
    reveals = [{7, 8}, {8, 9}, {20}, {1, 25}, set()]
    judged = [Judged(mutant(str(i)), Fate.KEPT, frozenset(places)) for i, places in enumerate(reveals)]
    chosen = choose_cases(cases, judged, 10)
    assert chosen[:3] == [0, 1, 2]
    assert chosen[3:5] == [8, 20]  # 8 reveals two, and 1 was there already
    assert len(chosen) == len(set(chosen)) == 10
    assert choose_cases(cases, judged, 2) == [0, 8, 1, 20]  # more than asked for, rather than a mutant that passes
    assert len(choose_cases(cases[:4], [], 10)) == 4


def test_examples_show_the_bug_once() -> None:
    assert choose_examples([5, 3, 8, 1], frozenset({8, 1}), 3) == [3, 5, 8]
    assert choose_examples([5, 3], frozenset(), 1) == [5]


def test_results_are_told_as_json_tuples_rows_or_neither() -> None:
    assert told({"a": [1, None, 2.5]}) == ("value", {"a": [1, None, 2.5]})
    assert told((1, "a")) == ("list", [1, "a"])
    assert told(iter([1, 2])) == ("list", [1, 2])
    assert told(range(3)) == ("list", [0, 1, 2])
    assert told([(1, 2), (3,)]) == ("lists", [[1, 2], [3]])
    assert told(zip([1], [2], strict=True)) == ("lists", [[1, 2]])
    assert told(([1], [2])) == ("list", [[1], [2]])
    assert told({1: 2}) == ("other", "dict")
    assert told({1}) == ("other", "set")
    assert told([((1,),)]) == ("other", "list")
    assert told(float("nan")) == ("other", "float")
    assert told("\ud800") == ("other", "str")
    assert told(1 << 300) == ("other", "int")
    assert told("x" * 10_000) == ("other", "long")
    assert told(itertools.count()) == ("other", "long")
    assert told(iter(range(MOST_ITEMS)))[0] == "other"
    assert told(object()) == ("foreign", "object")
    assert told([object()]) == ("foreign", "list")
    assert told(iter([iter([1])])) == ("foreign", "list_iterator")
    assert told(type("S", (str,), {})("a")) == ("foreign", "S")


def test_the_level_is_the_one_that_says_all_of_most_results() -> None:
    pairs, empty, one = Result("lists", [[1, 2]]), Result("list", []), Result("value", 1)
    assert level_of([pairs, pairs, empty, one]) == 2
    assert level_of([empty, Result("list", [1]), one]) == 1
    assert level_of([one, Result("value", [1]), empty]) == 0
    assert level_of([Result("value", [[1]]), Result("value", [])]) == 0
    assert not is_natural(Result("value", "text"), 1)


def test_lists_are_made_as_a_test_makes_them() -> None:
    assert listed(Result("list", [1, 2]), 1) == [1, 2]
    assert listed(Result("value", "ab"), 1) == ["a", "b"]
    assert listed(Result("lists", [[1]]), 2) == [[1]]
    assert listed(Result("value", ["ab"]), 2) == [["a", "b"]]
    assert listed(Result("lists", [[1]]), 1) != [[1]]  # they are tuples there
    assert listed(Result("list", [1]), 0) != [1]
    for result, level in ((Result("value", 1), 1), (Result("list", [1]), 2), (Result("other", "set"), 1)):
        with pytest.raises(NotListed):
            listed(result, level)


def test_a_ledger_closes_only_if_nothing_went_missing() -> None:
    ledger = Ledger(functions=2, usable=1, mutants=1)
    assert not ledger.closes()
    ledger.fates[Fate.KEPT] += 1
    assert not ledger.closes()
