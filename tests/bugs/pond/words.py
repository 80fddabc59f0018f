"""Words and names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .tables import SMALL as LOWER
from .tables import vowel

if TYPE_CHECKING:
    from collections.abc import Iterable

try:
    from .fast import squeeze
except ImportError:
    def squeeze(text: str) -> str:
        return re.sub(r"\s+", " ", text).strip()

SEPARATORS = "-_"


def initials(name: str, dot: str = ".") -> str:
    """Return the first letters of the words of a name, each with a dot.

    >>> initials("ada lovelace")
    'A.L.'
    >>> initials("grace   brewster hopper", "")
    'GBH'
    """
    # A name may be typed with any number of spaces.
    words = squeeze(name).split(" ")
    return "".join(word[0].upper() + dot for word in words if word)


def headline(text: str) -> str:
    """Return the text with capitals, small words left as they are."""
    words = text.split()
    return " ".join(
        word if number > 0 and word in LOWER else word.capitalize()
        for number, word in enumerate(words)
    )


def count_vowels(text):
    number = 0
    for letter in text:
        if vowel(letter):
            number += 1
    return number


def kebab(text: str) -> str:
    """Return words joined by a separator.

    >>> kebab("two words")
    'two_words'
    """
    return SEPARATORS[0].join(text.lower().split())


def longest(words: Iterable[str]) -> str:
    """Return the longest of some words; the first of equals, nothing if there are none."""
    best = ""
    for word in words:
        if len(word) > len(best):
            best = word
    return best
