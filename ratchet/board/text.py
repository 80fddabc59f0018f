"""Strangers' texts for a terminal: what cannot be seen, or moves the cursor, is written out. The page has its own."""

from __future__ import annotations

import re

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|[\U000e0000-\U000e007f]"
)
"""Control characters, marks of direction, joiners of no width, and tags; not tab and line feed."""


def safe(text: str) -> str:
    """Return a text in which such signs are written out: ``⟨U+202E⟩``."""
    return HIDDEN.sub(lambda sign: f"⟨U+{ord(sign[0]):04X}⟩", text)


def one_line(text: str, width: int) -> str:
    """Return a text on one line, cut to so many characters."""
    line = " ".join(safe(text).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
