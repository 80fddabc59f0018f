"""Numbers and lists of numbers."""

import math
import random
import time

import numpy as np

from pond import tables
from pond.tables import ROMAN


def clamp(x, low=0, high=10):
    """Return x limited to low..high."""
    if x < low:
        return low
    if x > high:
        return high
    return x


def roman(number):
    """Return a small number in Roman digits, without subtraction: 9 is VIIII."""
    text = ""
    for letter, value in ROMAN:
        while number >= value:
            text += letter
            number -= value
    return text


def running(numbers, above=0):
    """Yield the sums of the first one, two, three, ... numbers, as far as they are above a number."""
    total = 0
    for number in numbers:
        total += number
        if total > above:
            yield total


def neighbours(items: list, apart: int = 1) -> list:
    """Return all pairs of items that stand so far apart, as tuples."""
    if apart < 1:
        return []
    return [(items[i], items[i + apart]) for i in range(len(items) - apart)]


def span(numbers):
    """Return the smallest and the largest of some numbers, or two zeros."""
    if not numbers:
        return 0, 0
    return min(numbers), max(numbers)


def mean_root(numbers: "list[float]", ndigits: int = 3) -> float:
    """Return the root of the mean of squares, rounded."""
    return round(math.sqrt(sum(n * n for n in numbers) / len(numbers)), ndigits)


def drop_last(numbers: list):
    """Drop the last number."""
    numbers.pop()
    return numbers


def shaken(numbers):
    """Return numbers in random order."""
    return sorted(numbers, key=lambda _: random.random())


def elapsed(since: float):
    """Return seconds."""
    return time.time() - since


def shout(text: str):
    """Print it."""
    print(text)
    return text


def as_array(numbers):
    """Return an array."""
    return np.array(numbers)


def of_set(words: list[str]):
    """Return words, in an order that depends on the interpreter's hash seed."""
    return list(set(words))


def apply(function, value):
    """Return what a function makes of a value."""
    return function(value)


def forever(step: int):
    """Return only for no steps at all."""
    while step != 0:
        step += 0
    return step


def always(value: int) -> int:
    """Return one."""
    return 1


def remembered(word: str):
    """Return how often this was asked."""
    return tables.remember(word)


async def later(value):
    """Return it, later."""
    return value


def keyword_only(*, value):
    """Return it."""
    return value


def _private(value):
    return value
