"""The test writer and the bug fixer: their tasks, their demonstrations, and what their answers earn."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from checkers import InProcess

from ratchet.config.schema import SandboxSection
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Demonstrates, Environment, Outcome, Probes
from ratchet.core.task import Split, Task
from ratchet.environments import reproduce_demonstrations as demonstrations
from ratchet.environments.reproduce import Reproduce, num_attempts, role_of
from ratchet.environments.reproduce_checks import MOST_RUNS, Checker, Ran, Remembered, import_line
from ratchet.environments.reproduce_demonstrations import Bug
from ratchet.environments.reproduce_edits import Edit, added_test, after_thought, apply_edits, read_edits, write_edit
from ratchet.environments.reproduce_functions import KINDS, Function, draw_pair, inputs, results, revealing
from ratchet.environments.scripted import Scripted
from ratchet.environments.table import build_environment, close_environment
from ratchet.policy.tokenizer import tiny_tokenizer
from ratchet.rewards.execution import RunOutcome
from ratchet.sandbox.bubblewrap import why_not

TRAIN = Split("train", 3)
FIXED = Function("one", ("a", ">", "6", "a", "+", "6", "a", "-", "2"))
BUGGY = Function("one", ("a", ">", "6", "a", "-", "6", "a", "-", "2"))
BUG = Bug(FIXED, BUGGY)
FILE = """\
def f(a):
 \"\"\"a>6 ? a+6 : a-2\"\"\"
 if a>6:
  return (a-6)%10
 return (a-2)%10
"""
LOOP = Function("list", ("3", ">=", "4", "+", "a"))


class Says:
    """Answers with prepared outcomes, in order, then the last one for ever."""

    def __init__(self, *outcomes: RunOutcome) -> None:
        self.outcomes = list(outcomes)

    async def check(self, source: str, test: str, raises: Sequence[str] = ()) -> Ran:
        return Ran(self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0], f"said of {source[:9]}")

    def close(self) -> None:
        pass


def reproduce(checker: Checker | None = None, **options: object) -> Reproduce:
    environment = build_environment("reproduce", options)
    assert isinstance(environment, Reproduce)
    environment.use_checker(checker or InProcess())
    return environment


def tasks(environment: Reproduce, num: int = 40, split: Split = TRAIN) -> list[Task]:
    return [environment.task(split, i) for i in range(num)]


def value(environment: Reproduce, task: Task, text: str) -> float:
    return asyncio.run(environment.score(task, text)).value


# --- the family of functions


def test_the_file_of_the_documentation() -> None:
    assert BUGGY.file(BUG.docstring) == FILE
    assert FIXED.call((8,)) == 4
    assert FIXED.call((6,)) == 4
    assert BUGGY.call((8,)) == 2
    assert LOOP.file("x").startswith('def f(xs):\n """x"""\n t = 3\n for a in xs:\n  if a>=4:\n')
    assert LOOP.call((7, 2)) == 0


def test_python_agrees_with_the_family_on_every_input() -> None:
    rng = random.Random(0)
    for _ in range(60):
        fixed, buggy = draw_pair(rng, KINDS, 1.0)
        for function in (fixed, buggy):
            scope: dict[str, object] = {}
            exec(function.file(""), scope)
            f = scope["f"]
            assert callable(f)
            real = [f(list(v)) if function.kind == "list" else f(*v) for v in inputs(function.kind)]
            assert real == results(function) == [function.call(v) for v in inputs(function.kind)]
            assert all(function.working(v).endswith(str(r)) for v, r in zip(inputs(function.kind), real, strict=True))


def test_a_mutant_differs_in_one_line_and_some_input_reveals_it_but_not_too_many() -> None:
    rng = random.Random(1)
    for _ in range(200):
        fixed, buggy = draw_pair(rng, KINDS, 0.3)
        assert sum(x != y for x, y in zip(fixed.lines(), buggy.lines(), strict=True)) == 1
        assert 0 < len(revealing(fixed, buggy)) <= 0.3 * len(inputs(fixed.kind))


def test_examples_are_true_and_one_of_them_reveals_the_bug() -> None:
    rng = random.Random(2)
    for _ in range(100):
        fixed, buggy = draw_pair(rng, KINDS, 0.5)
        shown = demonstrations.draw_examples(rng, fixed, buggy, 4)
        assert len(shown) == 4
        assert sum(fixed.call(v) != buggy.call(v) for v in shown) == 1
        assert Bug(fixed, buggy, shown).docstring.count("==") == 4


# --- answers


def test_the_answers_of_the_documentation() -> None:
    attempts = [demonstrations.attempt(BUG, (2,)), demonstrations.attempt(BUG, (8,))]
    assert attempts == [
        "f(2): spec a>6: 2>6 F a-2: 2-2=0, code a>6: 2>6 F a-2: 2-2=0, SAME\n",
        "f(8): spec a>6: 8>6 T a+6: 8+6=4, code a>6: 8>6 T a-6: 8-6=2, DIFF\n",
    ]
    assert demonstrations.best_fix(BUG) == (
        "<think>a>6, code a>6, SAME\na+6, code a-6, DIFF\n</think>"
        "<<<<<<< SEARCH\n  return (a-6)%10\n=======\n  return (a+6)%10\n>>>>>>> REPLACE"
    )
    assert demonstrations.best_test(BUG).endswith("DIFF\n</think>assert f(7)==3")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("assert f(1)==2", "assert f(1)==2"),
        ("<think>a</think>assert 1", "assert 1"),
        ("<think>a</think>b</think>assert 2", "assert 2"),
        ("<think>assert 3", ""),
        ("", ""),
        ("<think></think>Here:\n```python\nassert 4\n```\nDone", "assert 4"),
        ("```\nassert 5\n```\n```py\ndef test_f():\n    assert 6\n```", "def test_f():\n    assert 6"),
    ],
)
def test_what_follows_the_thought_is_the_test(text: str, answer: str) -> None:
    assert added_test(text) == answer


def test_edits_are_made_where_the_block_stands_once_as_whole_lines() -> None:
    edit = Edit("  return (a-6)%10\n", "  return (a+6)%10\n")
    assert read_edits(f"<think>x</think>{write_edit(edit)}\n") == [edit]
    assert apply_edits(FILE, [edit]) == FILE.replace("a-6", "a+6")
    assert apply_edits(FILE, []) is None
    for search in ("", "return (a-6)%10\n", "   return (a-6)%10\n", "  return (a-6)\n", "nowhere\n"):
        assert apply_edits(FILE, [Edit(search, "x\n")]) is None, search
    assert apply_edits("x\ny\nx\n", [Edit("x\n", "z\n")]) is None
    assert apply_edits("x\nx\n", [Edit("x\n", "z\n")]) is None
    assert apply_edits("x\ny\n", [Edit("x\n", "")]) == "y\n"
    both = [Edit("x\n", "z\n"), Edit("z\ny\n", "w\n")]
    assert apply_edits("x\ny\n", both) == "w\n"


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< SEARCH\na\n>>>>>>> REPLACE",
        "<<<<<<< SEARCH\na\n=======\nb\n",
        " <<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE",
        "<think><<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE",
    ],
)
def test_an_incomplete_edit_is_none(text: str) -> None:
    assert read_edits(text) == []


def test_after_thought_leaves_plain_answers_alone() -> None:
    assert after_thought("x") == "x"


# --- tasks


def test_roles_have_their_shares_in_every_stretch() -> None:
    for share in (0.0, 0.25, 0.5, 0.7, 1.0):
        writers = [role_of(i, share) == "testwriter" for i in range(100)]
        assert sum(writers) == pytest.approx(100 * share, abs=1)
        assert all(abs(sum(writers[i : i + 10]) - 10 * share) <= 1 for i in range(90))


def test_the_prompt_holds_the_whole_buggy_file_and_the_role() -> None:
    for task in tasks(reproduce()):
        prompt = task.prompt[-1].content
        assert task.extras["buggy"] in prompt
        assert ("Write a test" in prompt) == (task.extras["role"] == "testwriter")
        assert task.extras["fixed"] not in prompt


def test_gold_earns_one_in_both_roles_and_a_wrong_or_empty_answer_nothing() -> None:
    environment = reproduce()
    assert isinstance(environment, Environment)
    assert isinstance(environment, Probes)
    assert isinstance(environment, Demonstrates)
    seen = Counter(task.extras["role"] for task in tasks(environment))
    assert set(seen) == {"testwriter", "bugfixer"}
    for task in tasks(environment):
        assert value(environment, task, environment.gold(task)) == 1
        for text in (environment.wrong(task), "", "<think>", "assert False", "\x00", environment.gold(task)[:-1] + "("):
            assert value(environment, task, text) == 0, text


def test_parts_and_counts_are_told_apart_by_role() -> None:
    environment = reproduce()

    def outcome(task: Task, text: str) -> Outcome:
        return asyncio.run(environment.run(task, Scripted([text])))

    writer, fixer = (next(t for t in tasks(environment) if t.extras["role"] == r) for r in ("testwriter", "bugfixer"))
    done = outcome(writer, environment.gold(writer))
    assert done.score.parts == {"reproduced": 1.0}
    assert done.metrics["valid"] == done.metrics["testwriter/reproduced"] == done.metrics["testwriter/attempts"] == 1
    assert done.metrics["testwriter/tokens"] == len(environment.gold(writer))
    assert outcome(writer, "assert True").metrics["testwriter/not_failing"] == 1
    assert outcome(writer, "assert False").metrics["testwriter/fails_on_fixed"] == 1
    assert outcome(writer, "assert (").metrics["testwriter/syntax_error"] == 1
    assert outcome(writer, "").metrics["testwriter/no_test"] == 1
    done = outcome(fixer, environment.gold(fixer))
    assert done.score.parts == {"fixed": 1.0}
    assert done.metrics["bugfixer/fixed"] == 1
    assert "valid" not in done.metrics
    assert outcome(fixer, environment.wrong(fixer)).metrics["bugfixer/fails_tests"] == 1
    assert outcome(fixer, "assert True").metrics["bugfixer/no_patch"] == 1
    for facts in (done.metrics, outcome(writer, "").metrics):
        verdicts = {k: v for k, v in facts.items() if "/" in k and not k.endswith(("tokens", "attempts"))}
        assert sum(verdicts.values()) == 1


def test_a_test_that_earned_is_audited_against_mutants() -> None:
    environment = reproduce(audit_mutants=10, testwriter_share=1)
    shares = []
    for task in tasks(environment, 20):
        outcome = asyncio.run(environment.run(task, Scripted([environment.gold(task)])))
        assert outcome.score.value == 1
        shares.append(outcome.metrics["mutants_killed"])
    assert 0.1 < sum(shares) / len(shares) < 0.9
    missed = asyncio.run(environment.run(task, Scripted(["assert True"])))
    assert "mutants_killed" not in missed.metrics


def test_effort_pays_in_both_roles() -> None:
    environment = reproduce(reveal_max=0.5)
    earned: dict[tuple[str, str], list[float]] = {}
    for task in tasks(environment, 300):
        kind, fixed, buggy, examples = task.extras["bug"]
        bug = Bug(Function(kind, tuple(fixed)), Function(kind, tuple(buggy)), tuple(map(tuple, examples)))
        for effort in ("guess", "check"):
            rng = random.Random(task.id)
            if task.extras["role"] == "testwriter":
                text = demonstrations.write_test(bug, rng, effort, 0.9, 4)
            else:
                text = demonstrations.write_fix(bug, rng, effort, 0.9)
            earned.setdefault((task.extras["role"], effort), []).append(value(environment, task, text))
    rates = {key: sum(values) / len(values) for key, values in earned.items()}
    assert rates["testwriter", "check"] > rates["testwriter", "guess"] + 0.2
    assert rates["bugfixer", "check"] > rates["bugfixer", "guess"] + 0.5


def test_demonstrations_are_a_mix_and_the_first_of_a_split_are_worked_out() -> None:
    environment = reproduce(guess_share=0.8, spec_share=0.1, persistence=0.5, worked_first=200)
    worked = [num_attempts(environment.demonstration(t, random.Random(t.id))) > 0 for t in tasks(environment, 400)]
    assert sum(worked[:200]) > 140
    assert sum(worked[200:]) < 60


def test_every_demonstration_and_prompt_is_spelt_with_the_alphabet() -> None:
    environment = reproduce(worked_first=50)
    tokenizer = tiny_tokenizer(environment.words, environment.characters)
    for task in tasks(environment, 100):
        text = environment.demonstration(task, random.Random(task.id))
        for tokens in (tokenizer.encode(text), tokenizer.chat(task.prompt)):
            assert tokenizer.unknown_token not in tokens
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert len(tokenizer.encode(text)) < 300


# --- options and checkers


def test_a_patch_that_makes_the_fixed_file_or_nothing_needs_no_run_and_another_does() -> None:
    checker = InProcess()
    environment = reproduce(checker, testwriter_share=0, examples_share=0, kinds=["one"])
    for task in tasks(environment, 30):
        assert value(environment, task, environment.gold(task)) == 1
        assert value(environment, task, environment.wrong(task)) == 0
        assert not checker.asked
        hidden = import_line("f") + task.extras["tests"][0]
        assert asyncio.run(checker.check(task.extras["fixed"], hidden)) == Ran(RunOutcome.PASSED)
        failed = asyncio.run(checker.check(task.extras["buggy"], hidden))
        assert failed == Ran(RunOutcome.ASSERTION)
        checker.asked.clear()
    # Another way to the same behaviour is found out by running it.
    start = task.extras["buggy"].splitlines(keepends=True)[0]
    body = "".join(task.extras["fixed"].splitlines(keepends=True)[1:])
    rewrite = write_edit(Edit(task.extras["buggy"], f"{start} pass\n{body}"))
    assert value(environment, task, rewrite) == 1
    assert len(checker.asked) == 1


def test_bad_options_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"lacks \{file\}"):
        build_environment("reproduce", {"fix_prompt": "Fix it."})
    with pytest.raises(ConfigError, match=r"environment\.kinds"):
        build_environment("reproduce", {"kinds": ["three"]})
    with pytest.raises(ConfigError, match=r"environment\.reveal_max = 0"):
        build_environment("reproduce", {"reveal_max": 0})
    with pytest.raises(ConfigError, match=r"guess_share = 0.7 and spec_share = 0.6"):
        build_environment("reproduce", {"guess_share": 0.7, "spec_share": 0.6})


def test_no_sandbox_is_opened_before_the_first_answer_and_closing_is_always_fine() -> None:
    untouched = build_environment("reproduce", {})
    untouched.task(TRAIN, 0)
    close_environment(untouched)
    checker = InProcess()
    environment = reproduce(checker)
    environment.close()
    environment.close()
    assert checker.closed == 2


def test_a_program_is_run_once_and_again_while_unsure() -> None:
    async def ask(checker: Remembered, times: int) -> list[RunOutcome]:
        return [ran.outcome for ran in await asyncio.gather(*(checker.check("s", "t") for _ in range(times)))]

    checker = Remembered(InProcess())
    checker_says = Remembered(Says(RunOutcome.TIMEOUT, RunOutcome.PASSED))
    assert asyncio.run(ask(checker_says, 5)) == [RunOutcome.PASSED] * 5
    assert checker_says.runs == 2
    assert asyncio.run(ask(checker_says, 1)) == [RunOutcome.PASSED]
    assert checker_says.runs == 2
    slow = Remembered(Says(RunOutcome.TIMEOUT))
    assert asyncio.run(ask(slow, 2)) == [RunOutcome.TIMEOUT] * 2
    assert slow.runs == MOST_RUNS
    assert checker.runs == 0


def test_no_two_programs_share_an_outcome() -> None:
    async def ask() -> int:
        checker = Remembered(Says(RunOutcome.PASSED))
        await checker.check("a\0b", "c")
        await checker.check("a", "b\0c")
        await checker.check("a", "b\0c", ["ValueError"])
        await checker.check("a", "b\0c", turn=1)
        await checker.check("a\ud7ff\ud800", "c")
        await checker.check("a", "b\0c")
        return checker.runs

    assert asyncio.run(ask()) == 5


def test_a_test_that_earns_by_luck_is_flaky() -> None:
    environment = reproduce(Says(RunOutcome.PASSED, RunOutcome.ASSERTION, RunOutcome.PASSED), confirm=1)
    task = next(t for t in tasks(environment) if t.extras["role"] == "testwriter")
    outcome = asyncio.run(environment.run(task, Scripted(["assert luck()"])))
    assert outcome.score.value == 0
    assert outcome.metrics["testwriter/flaky"] == 1


def test_what_the_sandbox_said_is_noted_for_people() -> None:
    environment = reproduce(Says(RunOutcome.PASSED, RunOutcome.ASSERTION))
    both = tasks(environment)
    test, fix = (next(t for t in both if t.extras["role"] == role) for role in ("testwriter", "bugfixer"))
    outcome = asyncio.run(environment.run(test, Scripted(["assert f(1) == 2"])))
    assert outcome.notes == {
        "test on the fixed file": f"passed\nsaid of {test.extras['fixed'][:9]}",
        "test on the buggy file": f"assertion\nsaid of {test.extras['buggy'][:9]}",
    }
    start, _, body = fix.extras["buggy"].partition("\n")
    same = write_edit(Edit(fix.extras["buggy"], f"{start}\n pass\n{body}"))
    outcome = asyncio.run(environment.run(fix, Scripted([same])))
    assert set(outcome.notes) == {"hidden test on the patched file"}
    assert outcome.notes["hidden test on the patched file"].startswith("assertion\n")
    assert asyncio.run(environment.run(test, Scripted([""]))).notes == {}


def test_one_attempt_that_is_cancelled_does_not_spoil_the_others() -> None:
    class Waits(Says):
        async def check(self, source: str, test: str, raises: Sequence[str] = ()) -> Ran:
            await asyncio.sleep(0.05)
            return await super().check(source, test, raises)

    async def run() -> RunOutcome:
        checker = Remembered(Waits(RunOutcome.ASSERTION))
        first, second = (asyncio.create_task(checker.check("s", "t")) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        return (await second).outcome

    assert asyncio.run(run()) is RunOutcome.ASSERTION


def test_train_and_test_functions_are_mostly_different() -> None:
    environment = reproduce()
    train = {task.prompt for task in tasks(environment, 300)}
    test = {task.prompt for task in tasks(environment, 300, Split("test", 3))}
    assert len(train & test) <= 3
    assert all(a != b for a, b in pairwise(tasks(environment, 20)))


# --- bugs from a file

CLAMP = {
    "name": "clamp",
    "entry_point": "clamp",
    "spec": "Limit x to low..high.",
    "buggy": "def clamp(x, low, high):\n    return max(low, x)",
    "fixed": "def clamp(x, low, high):\n    return min(high, max(low, x))",
    "testcases": [{"args": [1, 0, 3], "expected": 1}, [[5, 0, 3], 3]],
}
HALF = {
    "name": "half",
    "entry_point": "half",
    "spec": "Return the first half of a list.",
    "buggy": "def half(xs):\n    return xs[: len(xs) / 2]",
    "fixed": "def half(xs):\n    return xs[: len(xs) // 2]",
    "testcases": [[[[1, 2, 3, 4]], [1, 2]]],
    "raises": ["TypeError"],
}


def bugs(path: Path, *lines: Mapping[str, object]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_bugs_of_a_file_are_asked_for_in_both_roles_and_judged_right(tmp_path: Path) -> None:
    environment = reproduce(source=bugs(tmp_path / "b.jsonl", CLAMP, HALF), held_out=0)
    assert environment.num_tasks(TRAIN) == 2
    for task in tasks(environment, 8):
        assert value(environment, task, environment.gold(task)) == 1
        assert value(environment, task, environment.demonstration(task, random.Random(0))) == 1
        assert value(environment, task, environment.wrong(task)) == 0
        assert task.extras["buggy"] in task.prompt[-1].content
        characters = set("".join(m.content for m in task.prompt) + environment.gold(task))
        assert characters <= set(environment.characters)
    clamp = next(t for t in tasks(environment, 8) if t.extras["name"] == "clamp" and t.extras["role"] == "testwriter")
    fenced = "<think>x</think>```python\ndef test_high():\n    assert clamp(9, 0, 3) == 3\n\ntest_high()\n```"
    assert value(environment, clamp, fenced) == 1
    assert value(environment, clamp, "assert clamp(1, 0, 3) == 1") == 0
    assert value(environment, clamp, "assert clamp(1, 0, 3) == 2") == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"fixed": "def clamp(x, low, high):\n    return 0"},
            "the fixed source does not pass its own cases (assertion)",
        ),
        ({"fixed": "def clamp("}, "does not pass its own cases (syntax_error)"),
        ({"testcases": [[[1, 0, 3], 1]]}, "the buggy source passes all cases"),
        ({"buggy": "def clamp(x, low, high):\n    return 1 / 0"}, "ends with other_exception"),
    ],
)
def test_a_bug_that_is_none_is_refused_with_its_name(tmp_path: Path, change: dict[str, object], told: str) -> None:
    environment = reproduce(source=bugs(tmp_path / "b.jsonl", HALF, {**CLAMP, **change}), held_out=0)
    with pytest.raises(ConfigError) as caught:
        environment.task(TRAIN, 0)
    assert told in str(caught.value)
    assert 'b.jsonl:2 ("clamp")' in str(caught.value)


def test_a_source_that_a_busy_machine_did_not_bring_to_its_end_is_not_called_wrong(tmp_path: Path) -> None:
    for outcomes, source in (
        ((RunOutcome.TIMEOUT,), "fixed"),
        ((RunOutcome.PASSED, RunOutcome.MEMORY), "buggy"),
    ):
        environment = reproduce(Says(*outcomes), source=bugs(tmp_path / "b.jsonl", CLAMP), held_out=0)
        told = rf'\("clamp"\): the {source} source does not come to the end of its cases .* sandbox.wall_s'
        with pytest.raises(ConfigError, match=told):
            environment.task(TRAIN, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"entry_point": "a b"}, "\"entry_point\" is 'a b'"),
        ({"testcases": []}, "a list that is not empty"),
        ({"testcases": [[1, 2]]}, "the case [1, 2] should be"),
        ({"testcases": [[[1], float("nan")]]}, "NaN or an infinity"),
        ({"raises": "TypeError"}, '"raises" should be a list'),
        ({"listed": 3}, '"listed" is 3; it should be 0, 1 or 2'),
        ({"listed": True}, '"listed" is True; it should be 0, 1 or 2'),
        ({"spec": ""}, '"spec" is ""'),
    ],
)
def test_a_bad_line_is_refused_when_the_file_is_read(tmp_path: Path, change: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Reproduce(source=bugs(tmp_path / "b.jsonl", {**CLAMP, **change}))
    assert told in str(caught.value)
    without = {key: value for key, value in CLAMP.items() if key != "testcases"}
    with pytest.raises(ConfigError, match='"testcases" is missing'):
        Reproduce(source=bugs(tmp_path / "b.jsonl", without))


def test_results_that_are_tuples_or_iterators_are_compared_as_lists(tmp_path: Path) -> None:
    one = {
        **HALF,
        "name": "runs",
        "entry_point": "runs",
        "spec": "Yield the running sums.",
        "buggy": "def runs(xs):\n    return (sum(xs[:i]) for i in range(len(xs)))",
        "fixed": "def runs(xs):\n    return (sum(xs[:i + 1]) for i in range(len(xs)))",
        "testcases": [[[[1, 2]], [1, 3]], [[[]], []]],
        "raises": [],
        "listed": 1,
    }
    two = {
        **one,
        "name": "pairs",
        "entry_point": "pairs",
        "buggy": "def pairs(xs):\n    return zip(xs, xs[2:])",
        "fixed": "def pairs(xs):\n    return zip(xs, xs[1:])",
        "testcases": [[[[1, 2, 3]], [[1, 2], [2, 3]]]],
        "listed": 2,
    }
    environment = reproduce(source=bugs(tmp_path / "b.jsonl", one, two), held_out=0)
    by_name = {t.extras["name"]: t for t in tasks(environment, 8) if t.extras["role"] == "testwriter"}
    assert environment.gold(by_name["runs"]) == "assert list(runs([1, 2])) == [1, 3]\nassert list(runs([])) == []"
    assert environment.gold(by_name["pairs"]) == "assert [list(row) for row in pairs([1, 2, 3])] == [[1, 2], [2, 3]]"
    assert value(environment, by_name["runs"], "assert list(runs([1, 2])) == [1, 3]") == 1
    assert value(environment, by_name["runs"], "assert list(runs([])) == []") == 0
    assert value(environment, by_name["pairs"], environment.gold(by_name["pairs"])) == 1


def test_bugs_of_one_fixed_source_are_held_out_together(tmp_path: Path) -> None:
    lines = [{**pair, "name": f"{pair['name']} {i}"} for pair in (CLAMP, HALF) for i in range(4)]
    environment = reproduce(source=bugs(tmp_path / "b.jsonl", *lines), held_out=0.1)
    train, test = (
        {t.extras["name"].partition(" ")[0] for t in tasks(environment, 16, s)} for s in (TRAIN, Split("test", 3))
    )
    assert len(train) == len(test) == 1
    assert train != test


def test_bugs_may_be_checked_while_an_event_loop_runs(tmp_path: Path) -> None:
    environment = reproduce(source=bugs(tmp_path / "b.jsonl", CLAMP, HALF), held_out=0.5)

    async def ask() -> Task:
        return environment.task(TRAIN, 0)

    assert asyncio.run(ask()).extras["name"] in ("clamp", "half")


# --- the sandbox


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "bubblewrap is there")
def test_the_sandbox_judges_as_the_family_does() -> None:
    environment = build_environment("reproduce", {})
    assert isinstance(environment, Reproduce)
    environment.use_sandbox(SandboxSection(workers=1))
    try:
        for task in tasks(environment, 6):
            for _ in range(2):  # every call has an event loop of its own
                assert value(environment, task, environment.gold(task)) == 1
            assert value(environment, task, environment.wrong(task)) == 0
            assert value(environment, task, "import os\nos._exit(0)") == 0
    finally:
        environment.close()
        environment.close()
