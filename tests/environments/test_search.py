"""Wide search: what is asked, how answers are judged, and whole attempts by scripted orchestrators and agents."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from real_inputs import gsm8k

from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Outcome, Reply
from ratchet.core.rollout import StopReason
from ratchet.core.task import Message, Split
from ratchet.core.tools import ToolCall, ToolSpec, written
from ratchet.environments.scripted import ScriptedTeam
from ratchet.environments.search import WideSearch
from ratchet.environments.table import build_environment

TEST = Split("test", 0)
ANIMALS = ("walrus", "badger", "ocelot", "marmot", "heron", "osprey", "gecko", "iguana", "lemur", "stoat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty documents; animal number i is in documents i, i + 10 and i + 20."""
    for i in range(30):
        (tmp_path / f"doc{i:02d}.md").write_text(f"Once upon a time there was a {ANIMALS[i % 10]}, and that is all.")
    return tmp_path


def search_of(path: Path, **options: object) -> WideSearch:
    environment = build_environment("wide_search", {"path": str(path), "words": 2, **options})
    assert isinstance(environment, WideSearch)
    return environment


class Clerk:
    """A policy that is a program: searches page by page for the word in its task, then lists what it saw."""

    def __init__(self) -> None:
        self.word, self.page, self.seen = "", 0, set[int]()

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        if not self.word:
            self.word = messages[-1].content.split()[-1]
        else:
            hits = re.findall(r"#(\d+): (.*)", messages[-1].content)
            self.seen |= {int(number) for number, text in hits if re.search(rf"\b{self.word}\b", text.lower())}
            if not hits:
                text = f"{self.word}: {sorted(self.seen)}"
                return Reply(text, len(text), StopReason.END)
        self.page += 1
        text = written("search", {"query": self.word, "page": str(self.page)})
        return Reply(
            text, len(text), StopReason.END, (ToolCall("search", {"query": self.word, "page": str(self.page)}),)
        )


class Chief(ScriptedTeam):
    """An orchestrator that is a program: one clerk per word, all at once, then their lists as one answer."""

    def __init__(self) -> None:
        super().__init__([], lambda name: Clerk())
        self.turn = 0

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        self.turn += 1
        if self.turn == 1:
            words = messages[-1].content.partition(": ")[2].rstrip(".").split(", ")
            calls = [ToolCall("create_subagent", {"name": "clerk", "system_prompt": "Search."})]
            calls += [ToolCall("assign_task", {"agent": "clerk", "prompt": f"Find {word}"}) for word in words]
            return Reply("", 0, StopReason.END, tuple(calls))
        lists = (m.content.partition(": ") for m in messages if ": [" in m.content)
        text = json.dumps({word: json.loads(numbers) for word, _, numbers in lists})
        return Reply(text, len(text), StopReason.END)


def played(environment: WideSearch, index: int = 0) -> Outcome:
    return asyncio.run(environment.run(environment.task(TEST, index), Chief()))


def test_a_scripted_team_finds_everything(folder: Path) -> None:
    outcome = played(search_of(folder, held_out=0.4))
    assert outcome.score.value == 1.0
    assert outcome.score.parts["finish"] == outcome.score.parts["parallel"] == 1.0
    assert outcome.metrics["parallelism"] == 2
    # One turn to launch, and the clerks' longest: a page of 3 hits, an empty one, the answer; then the last turn.
    assert outcome.metrics["critical_steps"] == (1 + 3) + 1


def test_a_scripted_team_finds_everything_in_gsm8k(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in gsm8k("test")), encoding="utf-8")
    environment = search_of(path, words=5, snippet=2000)
    for index in range(3):
        assert played(environment, index).score.value == 1.0


def test_words_of_the_test_split_are_never_trained_on(folder: Path) -> None:
    environment = search_of(folder, held_out=0.4)
    train = {w for i in range(40) for w in environment.task(Split("train", 1), i).extras["words"]}
    test = {w for i in range(40) for w in environment.task(TEST, i).extras["words"]}
    assert train
    assert test
    assert not train & test


def test_answers_are_judged_pair_by_pair(folder: Path) -> None:
    environment = search_of(folder, held_out=0.4)
    task = environment.task(TEST, 0)
    gold = json.loads(task.answer)
    first, second = gold

    def value(text: str) -> float:
        return asyncio.run(environment.score(task, text)).value

    assert value(environment.gold(task)) == 1
    assert value(environment.wrong(task)) == 0
    assert value(f"So: {task.answer} that is all") == 1
    assert value(json.dumps({first: gold[first]})) == pytest.approx(2 * 3 / (3 + 6)), "half of the pairs, no wrong one"
    assert value(json.dumps({first: [str(n) for n in gold[first]], second: [f"#{n}" for n in gold[second]]})) == 1
    assert value(json.dumps({**gold, "unasked": [1, 2, 3]})) == 1, "what was not asked for is not counted"
    for junk in ("", "none", "{", "[1]", '{"a": {"b": 1}}', json.dumps({first: "x"}), "{" * 10_000):
        assert value(junk) == 0, junk


def test_the_tool_shows_pages_and_answers_nonsense_with_a_sentence(folder: Path) -> None:
    environment = search_of(folder, results=2)
    assert [n for n, _ in environment.found("walrus", 1)] == [1, 11]
    assert [n for n, _ in environment.found("walrus", 2)] == [21]
    assert environment.found("walrus", 3) == []
    assert environment.found('"; DROP TABLE texts; --', 1) == []
    assert environment.found("a", 1) == []
    assert len(environment.found("walrus OR badger NEAR heron", 1)) == 2
    assert all(len(text) <= environment.snippet for _, text in environment.found("time", 1))


def test_bad_collections_are_refused_with_a_sentence(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"holds no \.txt or \.md file"):
        search_of(empty)
    with pytest.raises(ConfigError, match="Widen hits_min and hits_max"):
        search_of(folder, words=9)
    with pytest.raises(ConfigError, match=r"hits_min = 7 is above environment\.hits_max"):
        search_of(folder, hits_min=7)
    with pytest.raises(ConfigError):
        search_of(tmp_path / "missing.jsonl")
