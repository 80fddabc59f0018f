"""Wide search: find every text of a collection that mentions certain words, with a search tool, alone or with agents.

The collection is the user's: a JSONL file (GSM8K's questions, say) or a folder of documents. A task names a few words;
the answer lists, for each, the numbers of all texts that mention it. The words are independent of each other, so the
work can be split; the search tool shows a few hits at a time, so it takes several turns. Judged item by item, by F1.

**Source**: the kind of task, its score and the roles are those of WideSearch and of Kimi K2.5's Agent Swarm.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Split, Task
from ratchet.core.tools import ToolCall, ToolSpec
from ratchet.environments.rows import read_rows
from ratchet.environments.team import Caps, Team
from ratchet.rewards.parallel import Ended, finish_rate, parallel_term, team_metrics
from ratchet.rewards.sets import f1_of

SEARCH = ToolSpec(
    "search",
    "Search the collection. Returns the best hits as lines of the form #number: beginning of the text; pages go on.",
    {"query": "words to look for", "page": "which page of hits, from 1 on"},
)
SYSTEM = (
    "You work with a collection of {count} numbered texts that only the search tool can see. You may create agents and "
    "give them tasks; tasks given in one turn are worked on at the same time. When you are done, answer with nothing "
    "but a JSON object: each word with the list of numbers of all texts that mention it."
)
ASK = "Find every text that mentions each of these words: {words}."
GIVE_UP = "I could not find it"
"""What an agent may say instead of an answer."""
_WORD = re.compile(r"[a-z]{4,}")


class WideSearch(BaseModel):
    """Asks for all texts of a collection that mention certain words."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "wide_search"

    path: str = Field(min_length=1, description="A JSONL file, or a folder of .txt and .md documents.")
    field: str = Field("question", min_length=1, description="Key of the text in each line of a JSONL file.")
    words: int = Field(4, ge=1, le=50, description="Words per task.")
    hits_min: int = Field(2, ge=1, description="Fewest texts that mention a word of a task.")
    hits_max: int = Field(6, ge=1, description="Most texts that mention a word of a task.")
    results: int = Field(4, ge=1, le=100, description="Hits that one search shows.")
    snippet: int = Field(120, ge=20, description="Characters that are shown of a hit.")
    held_out: float = Field(0.2, gt=0, lt=1, description="Share of the words that only the test split asks for.")
    caps: Caps = Field(default_factory=Caps, description="What the team may use.")

    _texts: tuple[str, ...] = PrivateAttr(())

    def model_post_init(self, context: Any, /) -> None:
        """Read the collection, so that a bad file fails when the configuration is read."""
        if self.hits_min > self.hits_max:
            raise ConfigError(
                f"environment.hits_min = {self.hits_min} is above environment.hits_max = {self.hits_max}: swap them."
            )
        self._texts = tuple(read_collection(self.path, self.field))
        for name in ("train", "test"):
            if len(self._words_of(name)) < self.words:
                raise ConfigError(
                    f"{self.path}: only {len(self._words_of(name))} words of the {name} split are mentioned by "
                    f"{self.hits_min} to {self.hits_max} texts, fewer than environment.words = {self.words}. Widen "
                    "hits_min and hits_max, or give a larger collection."
                )

    def num_tasks(self, split: Split) -> int | None:
        """Return None: words can be combined without end."""
        return None

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split; its answer is the JSON object that is asked for."""
        chosen = split.rng(index).sample(self._words_of(split.name), self.words)
        answer = {word: self._mentions[word] for word in chosen}
        prompt = (
            Message("system", SYSTEM.format(count=len(self._texts))),
            Message("user", ASK.format(words=", ".join(chosen))),
        )
        return Task(self.name, prompt, answer=json.dumps(answer), extras={"words": chosen})

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return the outcome of one attempt: F1 over all (word, number) pairs, and the team's terms."""
        talk = await Team(self.caps, _Desk(self)).play(policy, task.prompt)
        found = self._scored(task, talk.answer if talk.answered else "")
        parts = {
            **found.parts,
            "parallel": parallel_term(talk.stages, self.words),
            "finish": finish_rate(talk.stages),
        }
        facts = team_metrics(talk.stages, tokens=talk.tokens, seconds=talk.seconds)
        return Outcome(
            Score(found.value, parts),
            {**facts, "answered": float(talk.answered), "bad_calls": float(talk.bad_calls)},
        )

    async def score(self, task: Task, text: str) -> Score:
        """Return the F1 of an answer; parts: precision, recall and f1."""
        return self._scored(task, text)

    def gold(self, task: Task) -> str:
        """Return the whole answer."""
        return task.answer

    def wrong(self, task: Task) -> str:
        """Return a well-formed answer of which nothing is right."""
        return json.dumps({word: [len(self._texts) + 1] for word in task.extras["words"]})

    def found(self, query: str, page: int) -> list[tuple[int, str]]:
        """Return a page of hits as (number, beginning of the text), best first."""
        words = _WORD.findall(query.lower())
        if not words:
            return []
        rows = self._index.execute(
            "SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY bm25(texts), rowid LIMIT ? OFFSET ?",
            (" OR ".join(f'"{word}"' for word in words), self.results, self.results * (page - 1)),
        )
        return [(number, self._texts[number - 1][: self.snippet].replace("\n", " ")) for (number,) in rows]

    def _scored(self, task: Task, text: str) -> Score:
        gold = {(word, number) for word, numbers in json.loads(task.answer).items() for number in numbers}
        found = {pair for pair in _pairs(text) if pair[0] in task.extras["words"]}
        precision, recall, f1 = f1_of(found, gold)
        return Score(f1, {"f1": f1, "precision": precision, "recall": recall})

    @cached_property
    def _mentions(self) -> Mapping[str, list[int]]:
        """Every word with the numbers of the texts that mention it, from 1 on."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(self._texts, 1):
            for word in sorted(set(_WORD.findall(text.lower()))):
                found[word].append(number)
        return found

    def _words_of(self, split: str) -> list[str]:
        return self._vocabulary[split == "train"]

    @cached_property
    def _vocabulary(self) -> tuple[list[str], list[str]]:
        """The words that may be asked for: those of the test split, and of training."""
        usable = [w for w, n in self._mentions.items() if self.hits_min <= len(n) <= self.hits_max]
        ordered = sorted(usable, key=lambda word: (Split("words", 0).rng(0, word).random(), word))
        place = round(len(ordered) * self.held_out)
        return ordered[:place], ordered[place:]

    @cached_property
    def _index(self) -> sqlite3.Connection:
        """SQLite's full-text index over the collection, in memory."""
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.execute("CREATE VIRTUAL TABLE texts USING fts5(body, tokenize='ascii')")
        connection.executemany("INSERT INTO texts(rowid, body) VALUES (?, ?)", enumerate(self._texts, 1))
        return connection


class _Desk:
    """What a team works with: the search tool. See `team.Bench`."""

    tools: Sequence[ToolSpec] = (SEARCH,)

    def __init__(self, environment: WideSearch) -> None:
        self._environment = environment

    async def use(self, call: ToolCall) -> str:
        page = str(call.arguments["page"]).strip()
        if not page.isdecimal() or not 1 <= int(page) <= 10_000:
            return "page is a number from 1 on."
        hits = self._environment.found(str(call.arguments["query"]), int(page))
        return "\n".join(f"#{number}: {text}" for number, text in hits) or "no more hits"

    def opening(self, system: str, prompt: str, *, beside: int) -> Sequence[Message]:
        return Message("system", system), Message("user", prompt)

    def judged(self, answer: str) -> Ended:
        gave_up = not answer.strip() or GIVE_UP.lower() in answer.lower()
        return Ended.GAVE_UP if gave_up else Ended.FINISHED


def read_collection(path: str, field: str) -> Iterator[str]:
    """Yield the texts of a JSONL file or of the documents in a folder, in order of their names.

    **Raises**: `ConfigError` if there are none, or a line lacks the field.
    """
    place = Path(path)
    if not place.is_dir():
        yield from (row.values[field] for row in read_rows(path, fields=(field,)))
        return
    files = sorted(file for file in place.rglob("*") if file.suffix in (".txt", ".md") and file.is_file())
    if not files:
        raise ConfigError(f"{path} holds no .txt or .md file. Name a folder of documents, or a JSONL file.")
    for file in files:
        yield file.read_text(encoding="utf-8", errors="replace")


def _pairs(text: str) -> set[tuple[str, int]]:
    """Return the (word, number) pairs of the last JSON object in a text; empty if there is none."""
    start = text.rfind("{")
    try:
        answer = json.JSONDecoder().raw_decode(text[start:])[0] if start >= 0 else {}
    except (ValueError, RecursionError):
        return set()
    if not isinstance(answer, dict):
        return set()
    found: set[tuple[str, int]] = set()
    for word, numbers in answer.items():
        listed = numbers if isinstance(numbers, list) else [numbers]
        found |= {(word.strip().lower(), int(n)) for n in map(_number, listed) if n is not None}
    return found


def _number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip().lstrip("#")
    return int(text) if text.isdecimal() and len(text) < 12 else None
