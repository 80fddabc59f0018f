"""Tests of the package, with literals in every place that people put them."""

import unittest

import pytest
from pond import amounts
from pond.words import count_vowels, longest
from pond.words import headline as capitals

TITLES = [("the art of war", "The Art of War"), ("of mice and men", "Of Mice and Men")]


@pytest.mark.parametrize("text, expected", TITLES)
def test_headline(text, expected):
    assert capitals(text) == expected


@pytest.mark.parametrize(("text", "number"), [("", 0), ("aeiou", 5), pytest.param("Queue", 4, id="queue")])
def test_vowels(text, number):
    assert count_vowels(text) == number


def test_longest():
    words = ["to", "be"]
    assert longest(words) == "to"
    for given, expected in ((["a", "bcd", "ef"], "bcd"), ([], "")):
        assert longest(given) == expected
    with pytest.raises(TypeError):
        longest(5)


class Amounts(unittest.TestCase):
    high = 7

    def test_clamp(self):
        self.assertEqual(amounts.clamp(5), 5)
        self.assertEqual(amounts.clamp(-3, high=2), 0)
        self.assertEqual(amounts.clamp(9, 0, self.high), 7)

    def test_pairs(self):
        self.assertEqual(amounts.neighbours(list(range(3))), [(0, 1), (1, 2)])
        self.assertEqual(amounts.span((4, -1)), (-1, 4))
