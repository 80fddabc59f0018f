import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.core.metric import METRICS, Better, describe
from ratchet.core.rollout import Status
from ratchet.train.staleness import staleness_shares

ROOT = Path(__file__).parents[2]
EMITTERS = {
    "ratchet/explore/measure.py": "explore_metrics",
    "ratchet/train/trainer.py": "_metrics",
    "ratchet/run/gate.py": "first_step_gate",
    "ratchet/run/waiting.py": "take_seconds",
    "ratchet/run/loops.py": "finish_step",
    "ratchet/run/costs.py": "step_costs",
    "ratchet/train/tally.py": "times",
    "ratchet/train/annotate.py": "correction_metrics",
    "ratchet/train/critic.py": "learn",
    "ratchet/buffer/buffer.py": "finish",
    "ratchet/run/curriculum.py": "metrics",
    "ratchet/run/positives.py": "finish",
    "ratchet/train/shaping.py": "metrics",
    "ratchet/explore/positives.py": "replay_facts",
}
"""Functions that make the keys of a row."""


FAMILIES = ("drop", "ledger", "ledger_tokens", "ledger_prompts")
"""Counters by the fate of an attempt."""


def keys(function: ast.AST) -> Iterator[str]:
    """Yield every key of a dictionary display, comprehension or assignment; ``*`` for what is computed."""
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            yield from (text(key) for key in node.keys if isinstance(key, ast.Constant | ast.JoinedStr))
        elif isinstance(node, ast.DictComp) and isinstance(node.key, ast.Constant | ast.JoinedStr):
            yield text(node.key)
        elif (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.slice, ast.Constant | ast.JoinedStr)
        ):
            yield text(node.slice)


def text(key: ast.expr) -> str:
    if isinstance(key, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "*" for part in key.values)
    assert isinstance(key, ast.Constant)
    return str(key.value)


def keys_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    found = [
        n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == EMITTERS[path]
    ]
    assert len(found) == 1, f"{path} should hold one {EMITTERS[path]}"
    return set(keys(found[0]))


def emitted() -> set[str]:
    """Return every key a row can have; where a part is computed, with an example in its place."""
    costs = keys_of("ratchet/run/costs.py") | {"flops/curriculum", "rollouts/tried"}
    names: set[str] = set()
    for path in EMITTERS:
        if path != "ratchet/run/costs.py":
            names |= keys_of(path)
    loops = {name for name in names if name.startswith("*/")}
    assert loops == {"*/step", "*/total"}, "finish_step makes per-step and running costs"
    names -= loops
    names |= {f"{cost}/step" for cost in costs} | {f"{cost}/total" for cost in {*costs, "seconds"}}
    names |= {f"{family}/{status.value}" for status in Status for family in FAMILIES}
    return {name.replace("*", "example") for name in names} - {"step", "seconds"}


def test_the_sources_are_really_read() -> None:
    found = emitted()
    assert {"reward/mean", "reward/parts/example", "kl/ref", "gate/logp_diff_max", "wait/example"} <= found
    assert {"flops/train/total", "rollouts/step", "seconds/total", "ledger_tokens/ok", "time/example"} <= found
    assert len(found) > 60


@pytest.mark.parametrize("name", sorted(emitted()))
def test_every_key_a_row_can_have_is_described(name: str) -> None:
    assert describe(name) is not None, f"{name} has no entry in ratchet/core/metric"


@pytest.mark.parametrize("name", staleness_shares([0]))
def test_the_bins_of_staleness_are_described(name: str) -> None:
    assert describe(name) is not None


@pytest.mark.parametrize("name", ["eval/test/pass@8_low", "eval/test/reward_mean", "eval/test/tasks"])
def test_the_numbers_of_an_evaluation_are_described(name: str) -> None:
    assert describe(name) is not None


def test_the_longest_pattern_counts() -> None:
    step = describe("time/step")
    other = describe("time/backward")
    assert step is not None
    assert other is not None
    assert (step.pattern, other.pattern) == ("time/step", "time/*")


def test_a_name_nobody_described_has_no_entry() -> None:
    assert describe("reward") is None
    assert describe("reward/maen") is None


def test_every_entry_says_something_and_no_two_share_a_pattern() -> None:
    assert len({m.pattern for m in METRICS}) == len(METRICS)
    for m in METRICS:
        assert m.meaning.endswith("."), m.pattern
        assert m.formula, m.pattern
        assert m.normal, m.pattern
        assert not m.zero or m.zero.startswith("0 is ") or m.zero.startswith("0 means "), m.pattern


@pytest.mark.parametrize("name", ["loss/policy", "clip/frac", "kl/old"])
def test_the_zeros_people_ask_about_are_explained(name: str) -> None:
    entry = describe(name)
    assert entry is not None
    assert entry.zero.startswith("0 is normal here because")
    assert entry.better is Better.NEITHER


def test_the_page_is_what_the_dictionary_says() -> None:
    made = subprocess.run([sys.executable, "-m", "ratchet.core.metric"], capture_output=True, check=True, cwd=ROOT)
    assert (ROOT / "docs/metrics.md").read_bytes() == made.stdout, "make it again: see the top of the page"
