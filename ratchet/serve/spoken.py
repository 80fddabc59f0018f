"""Tokens into text while they are drawn: only what can no longer change is given out."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.policy.tokenizer import Tokenizer

HALF = "\ufffd"
"""What a character decodes to of which tokens are still missing."""


class Spoken:
    """The text of an answer so far. Everything behind one of the `marks` is held back, and what may begin one."""

    def __init__(self, tokenizer: Tokenizer, marks: Sequence[str]) -> None:
        self._tokenizer, self._marks = tokenizer, tuple(marks)
        self._tokens: list[int] = []
        self._from, self._read = 0, 0
        self._pending, self._halted = "", False
        self.said = ""
        """What was given out."""

    def add(self, token: int) -> str:
        """Return the text that a further token makes certain."""
        self._tokens.append(token)
        # A piece is decoded behind the piece before it: some tokenizers drop a leading space at the very beginning.
        before = self._tokenizer.decode(self._tokens[self._from : self._read])
        now = self._tokenizer.decode(self._tokens[self._from :])
        if self._halted or len(now) <= len(before) or now.endswith(HALF):
            return ""
        self._pending += now[len(before) :]
        self._from, self._read = self._read, len(self._tokens)
        at = min((place for mark in self._marks if (place := self._pending.find(mark)) >= 0), default=-1)
        self._halted = at >= 0
        certain = at if self._halted else len(self._pending) - self._held()
        out, self._pending = self._pending[:certain], self._pending[certain:]
        self.said += out
        return out

    def rest(self, content: str) -> str:
        """Return what of the whole content was not given out yet."""
        return content[len(self.said) :]

    def _held(self) -> int:
        """Return how many characters at the end may be the beginning of a mark."""
        longest = max((len(mark) for mark in self._marks), default=1) - 1
        sizes = range(min(longest, len(self._pending)), 0, -1)
        return next((n for n in sizes if any(mark.startswith(self._pending[-n:]) for mark in self._marks)), 0)
