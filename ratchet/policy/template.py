"""Whether a chat template keeps what was said: a longer conversation must begin with the tokens of a shorter one.

Where it does not (it strips reasoning from earlier turns, say, or trims white space), a program that renders the
conversation anew shows the model other tokens than those it wrote. Ratchet never does: sampled tokens stay, and only
what is new is rendered behind them. But other programs that serve the trained model may, so the break is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.core.errors import ConfigError
from ratchet.core.task import Message
from ratchet.policy.tokenizer import Tokenizer

PROBES = {
    "a plain answer": "Yes. ",
    "an answer with reasoning": "<think>\nWell.\n</think>\n\nYes.",
    "a tool call": '<tool_call>\n{"name": "f", "arguments": {"x": "1"}}\n</tool_call>',
}
"""Kinds of answers a template may treat in its own way."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where a template stops keeping what was said."""

    said: str
    """Kind of answer."""
    at: int
    """Number of the first token that differs, from the beginning of the conversation."""
    kept: str
    """That token, in the conversation as it was."""
    rendered: str
    """What stands in its place when all is rendered again."""

    def __str__(self) -> str:
        return (
            f"The chat template does not keep {self.said}: rendered again, token {self.at} is {self.rendered!r} where "
            f"the conversation had {self.kept!r}. Ratchet keeps the sampled tokens, so training is not touched; a "
            "program that renders whole conversations shows the model other ones."
        )


def prefix_breaks(tokenizer: Tokenizer) -> list[Break]:
    """Return where a template breaks, for each kind of answer; a kind that the template refuses is left out."""
    found = []
    for kind, text in PROBES.items():
        asked = [Message("user", "Is it?")]
        try:
            before = tokenizer.encode(tokenizer.render(asked) + text).tolist()
            more = [*asked, Message("assistant", text), Message("user", "Why?")]
            after = tokenizer.encode(tokenizer.render(more)).tolist()
        except ConfigError:
            continue
        for at, token in enumerate(before):
            other = after[at] if at < len(after) else -1
            if token != other:
                # The last token may have joined the closing mark's text; that is spelling, not loss.
                if at < len(before) - 1 or not _begins(tokenizer, token, other):
                    found.append(Break(kind, at, *tokenizer.pieces([token]), *tokenizer.pieces([max(other, 0)])))
                break
    return found


def _begins(tokenizer: Tokenizer, token: int, other: int) -> bool:
    """Whether another token begins with the text of this one."""
    return other >= 0 and tokenizer.pieces([other])[0].startswith(tokenizer.pieces([token])[0])
