"""Text files line by line, in bounded memory: any encoding a shell may have left, carriage returns, colours, gzip."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ratchet.core.errors import ConfigError

CHUNK = 1 << 20
MAX_LINE = 16 << 20
"""Characters of a line; longer ones are passed over and counted."""
COLOUR = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
ENCODINGS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
"""By the mark at a file's beginning. PowerShell's ``>`` writes UTF-16."""


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open a text file for reading, gzipped or not. Bytes that are no text of its encoding become U+FFFD.

    Raises `ConfigError` if it cannot be read.
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
            raw.seek(0)
            if head.startswith(b"\x1f\x8b"):
                with gzip.open(raw, "rt", encoding="utf-8", errors="replace") as text:
                    yield text
                return
            encoding = next((name for mark, name in ENCODINGS if head.startswith(mark)), "utf-8")
            with io.TextIOWrapper(raw, encoding=encoding, errors="replace") as text:
                yield text
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{path} cannot be read: {reason}. Is it whole, and may you read it?") from None


def head(path: Path, size: int = 1 << 16) -> str:
    """Return the first characters of a text file, line ends made plain."""
    with opened(path) as text:
        return text.read(size)


def is_binary(path: Path) -> bool:
    """Return whether a file is no text: it has NUL bytes and no mark of an encoding that uses them."""
    try:
        with path.open("rb") as raw:
            begin = raw.read(1 << 14)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Is it there, and may you read it?") from None
    if begin.startswith(b"\x1f\x8b"):
        return "\x00" in head(path, 1 << 14)
    return b"\x00" in begin and not begin.startswith((b"\xff\xfe", b"\xfe\xff"))


class Lines:
    """The lines of a file, without their ends; a carriage return ends a line too, so progress bars are lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.num_long = 0
        """Lines passed over because they were longer than `MAX_LINE`."""

    def __iter__(self) -> Iterator[str]:
        with opened(self._path) as text:
            rest, passing = "", False
            while chunk := text.read(CHUNK):
                pieces = chunk.split("\n")
                pieces[0] = rest + pieces[0]
                rest = pieces.pop()
                if passing and pieces:
                    pieces.pop(0)
                    passing = False
                yield from pieces
                if len(rest) > MAX_LINE:
                    self.num_long += not passing
                    rest, passing = "", True
            if rest and not passing:
                yield rest


def without_colour(line: str) -> str:
    """Return a line without the escape codes of a terminal."""
    return COLOUR.sub("", line) if "\x1b" in line else line
