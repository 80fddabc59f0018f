"""What other modules look up."""

SMALL = {"a", "an", "and", "of", "the"}
ROMAN = []
for _letter, _value in (("X", 10), ("V", 5), ("I", 1)):
    ROMAN.append((_letter, _value))

_SEEN = {}


def vowel(letter):
    """Return whether a letter is a vowel. Accents are not looked at. This sentence is left out of a closure."""
    return letter.lower() in "aeiou"


def remember(word):
    """Return how often a word was asked for."""
    _SEEN[word] = _SEEN.get(word, 0) + 1
    return _SEEN[word]
