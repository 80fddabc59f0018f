r"""Answers that are code: the text after the thought, and edits in SEARCH/REPLACE form. Pure functions.

    <<<<<<< SEARCH
      return (a-6)%10
    =======
      return (a+6)%10
    >>>>>>> REPLACE

The search block must stand in the file exactly once, indentation included.

**Source**: the code edit of Agentless and Kimi-Dev (arXiv 2509.23045); here a file has one name, so no path is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ratchet.rewards.text import CLOSE_THINK, OPEN_THINK

SEARCH, DIVIDER, REPLACE = "<<<<<<< SEARCH\n", "=======\n", ">>>>>>> REPLACE"

_BLOCK = re.compile(r"^<{7} SEARCH\n(.*?)^={7}\n(.*?)^>{7} REPLACE[ \t]*$", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines to find and the lines to put there."""

    search: str
    replace: str


def after_thought(text: str) -> str:
    """Return what follows the thought; all of it where there is none, nothing where it never ends."""
    _, closed, answer = text.rpartition(CLOSE_THINK)
    return answer if closed else "" if OPEN_THINK in text else text


def added_test(text: str) -> str:
    """Return the test an answer adds: its last block of code, or the whole answer where nothing is fenced."""
    answer = after_thought(text)
    fenced = _FENCE.findall(answer)
    return str(fenced[-1] if fenced else answer).strip()


def write_edit(edit: Edit) -> str:
    """Return the edit as text."""
    return f"{SEARCH}{edit.search}{DIVIDER}{edit.replace}{REPLACE}"


def read_edits(text: str) -> list[Edit]:
    """Return the edits of an answer, in order; none if it holds no complete block."""
    return [Edit(search, replace) for search, replace in _BLOCK.findall(after_thought(text))]


def apply_edits(source: str, edits: list[Edit]) -> str | None:
    """Return the source with the edits made one after the other.

    None if there is none, or if a search block is empty or does not stand in the source exactly once as whole lines.
    """
    if not edits:
        return None
    for edit in edits:
        # A line feed before both makes sure that the block begins where a line does.
        before, found, after = f"\n{source}".partition(f"\n{edit.search}")
        if not edit.search or not found or f"\n{edit.search}" in f"\n{after}":
            return None
        source = f"{before}\n{edit.replace}{after}".removeprefix("\n")
    return source
