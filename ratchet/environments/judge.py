"""A generative judge: a question, two candidate answers, and a verdict that the policy reasons its way to.

The winner's position is balanced. The reward has two parts, each 0 or 1, logged apart: `accuracy` (the verdict is
right) and `format` (one think block, then one verdict, nothing else); the value is their sum.

**Source**: RM-R1 (arXiv 2505.02387), equation 11, the reward of its runs without a warm start. Where pairs come from
is the business of `pairs`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Split, Task
from ratchet.environments import scratchpad
from ratchet.environments.pairs import Pair, PairSource, open_pairs
from ratchet.environments.single_turn import ask_once, fill, messages, missing_fields
from ratchet.rewards.text import TAGS, VERDICTS, is_thought_then_verdict, last_verdict

COMPACT_PROMPT = "{question}[A]{a}[B]{b}"
"""The default: as few tokens as possible, for tiny models."""

JUDGE_SYSTEM = """\
You are an impartial judge. You are shown a request and two answers to it, A and B, and decide which answer serves the \
person who asked better.

Think before you decide, inside <think> and </think>:
- If the request has a checkable result (mathematics, code, logic), first work it out yourself, then compare both \
answers with your own result. A right result outweighs style.
- Otherwise name the few qualities that matter most for this request (for example correctness, safety, helpfulness, \
relevance, clarity), say which weigh most and why, and hold both answers against them with quotes.
The order of the answers, their length, their layout and how sure they sound must not sway you. There is no draw.

Then give only the verdict: <answer>[[A]]</answer> if answer A is better, <answer>[[B]]</answer> if answer B is."""
"""A system message for real models, after RM-R1's: think, weigh, then one verdict."""

JUDGE_PROMPT = """\
[Request]
{question}

[Start of answer A]
{a}
[End of answer A]

[Start of answer B]
{b}
[End of answer B]"""
"""The prompt that goes with `JUDGE_SYSTEM`."""

_POSITIONS = ("A", "B")


class Judge(BaseModel):
    """Asks which of two candidates is better; the answer ends with ``<answer>[[A]]</answer>`` or ``[[B]]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "judge"

    source: str = Field(
        "sum",
        min_length=1,
        description='Where pairs come from: "sum", "reasoning_gym:<task>", or a path to JSONL lines with '
        "question, chosen and rejected.",
    )
    source_options: Mapping[str, Any] = Field(
        default_factory=dict,
        description="Options of the source: terms_min and terms_max for sum, the task's own for reasoning_gym, "
        "held_out (share of the lines kept for the test split) for a file.",
    )
    prompt: str = Field(COMPACT_PROMPT, description="Template of the user message, with {question}, {a} and {b}.")
    system: str = Field("", description="System message; empty for none.")
    full_share: float = Field(0.25, ge=0, le=1, description="Share of demonstrations that work everything out.")
    dropped_tag_share: float = Field(0.12, ge=0, le=1, description="Share of demonstrations that lack one tag.")

    _pairs: PairSource = PrivateAttr()

    @field_validator("prompt")
    @classmethod
    def _complete(cls, prompt: str) -> str:
        missing = missing_fields(prompt, ("question", "a", "b"))
        if missing:
            raise ValueError(f"the template lacks {' and '.join(f'{{{name}}}' for name in missing)}; add it")
        return prompt

    def model_post_init(self, context: Any, /) -> None:
        """Open the source, so that a bad one fails when the configuration is read."""
        self._pairs = open_pairs(self.source, self.source_options)

    @property
    def words(self) -> tuple[str, ...]:
        """Return the strings of several characters that should be single tokens."""
        return (*TAGS, *VERDICTS, "[A]", "[B]", "yes", "no")

    @property
    def characters(self) -> str:
        """Return every single character prompts and demonstrations can hold."""
        around = fill(self.prompt, {"question": "", "a": "", "b": ""})
        for word in self.words:
            around = around.replace(word, "")
        return "".join(sorted(set(self._pairs.characters) | set(around) | set(self.system)))

    def num_tasks(self, split: Split) -> int | None:
        """Return how many pairs the split has, or None for a generator without end."""
        return self._pairs.num_pairs(split)

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split; `answer` is the winner's position."""
        pair = self._pairs.pair(split, index)
        winner = _winner_position(split, index)
        a, b = (pair.chosen, pair.rejected) if winner == "A" else (pair.rejected, pair.chosen)
        return Task(
            environment=self.name,
            prompt=messages(fill(self.prompt, {"question": pair.question, "a": a, "b": b}), system=self.system),
            answer=winner,
            extras={"a": a, "b": b, "steps": list(pair.steps)},
        )

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return the outcome of one verdict."""
        return await ask_once(task, policy, self.score)

    async def score(self, task: Task, text: str) -> Score:
        """Return accuracy + format; both parts are 0 or 1."""
        accuracy = float(last_verdict(text) == task.answer)
        form = float(is_thought_then_verdict(text))
        return Score(accuracy + form, {"accuracy": accuracy, "format": form})

    def gold(self, task: Task) -> str:
        """Return the answer with everything worked out: the steps, the check of both candidates, the verdict."""
        return scratchpad.write_answer("".join(task.extras["steps"]) + _check(task), f"[[{task.answer}]]")

    def wrong(self, task: Task) -> str:
        """Return a well-formed answer with the other verdict."""
        other = "B" if task.answer == "A" else "A"
        return scratchpad.write_answer("".join(task.extras["steps"]), f"[[{other}]]")

    def demonstration(self, task: Task, rng: random.Random) -> str:
        """Return one answer: everything worked out, or cut short and then without the check; perhaps a tag less.

        The verdict is always the true one: after a short trace it is a guess that happens to be right, which is how a
        policy that has not worked the answer out learns to guess evenly.
        """
        steps = task.extras["steps"]
        num_kept = scratchpad.draw_kept_steps(rng, len(steps), self.full_share)
        # Without the check in the trace a tiny policy never learns to compare: verdicts stay at chance.
        thinking = "".join(steps[:num_kept]) + (_check(task) if num_kept == len(steps) else "")
        text = scratchpad.write_answer(thinking, f"[[{task.answer}]]")
        return scratchpad.drop_one_tag(rng, text, self.dropped_tag_share)


def _winner_position(split: Split, index: int) -> str:
    """Return ``A`` or ``B``: a coin decides for every even index, and the odd one after it takes the other."""
    coin = split.rng(index // 2, "winner").randrange(2)
    return _POSITIONS[(coin + index) % 2]


def _check(task: Task) -> str:
    marks = ("yes", "no") if task.answer == "A" else ("no", "yes")
    return f"[A]{task.extras['a']}{marks[0]}[B]{task.extras['b']}{marks[1]}"


__all__ = ["COMPACT_PROMPT", "JUDGE_PROMPT", "JUDGE_SYSTEM", "Judge", "Pair"]
