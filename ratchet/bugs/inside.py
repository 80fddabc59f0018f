"""What runs beside a stranger's function: calls it with many inputs and says of each what came out, one line each.

Its text is put before the call of `report` in a program for the sandbox, so it imports the standard library alone. A
line is written as soon as its input is done: where a function never returns, what came before is known.
"""

import itertools
import json
import math
import os
import resource
import signal
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

LONGEST_TEXT = 600
"""Characters of a result, as JSON."""
MOST_ITEMS = 200
"""Items of an iterator that are asked for."""
_LARGEST = 1 << 256


class OutOfTime(BaseException):
    """Raised into a call that has used up its CPU time. Not an `Exception`, so that few handlers catch it."""


def report(
    function: Callable[..., object],
    inputs: Sequence[list[object]],
    say: Callable[[str], object],
    each_s: float,
    all_s: float,
    most_lost: int,
) -> None:
    """Call a function with each of `inputs`; say ``[number, what, value, changed]`` of each, and the CPU seconds at the
    end.

    `each_s` CPU seconds are given to a call, and `all_s` to all of them. A call that needs more is said to be lost, and
    after `most_lost` of them, or when all is used up, nothing more is called. CPU seconds and not the clock's: what is
    found must not depend on how busy the machine is.
    """
    signal.signal(signal.SIGPROF, _stop)
    # What loops below the interpreter hears no signal; the kernel counts the same seconds, if only whole ones.
    most = math.ceil(time.process_time() + all_s)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    started, lost = time.process_time(), 0
    for number, args in enumerate(inputs):
        left = started + all_s - time.process_time()
        given = json.loads(json.dumps(args))
        try:
            # Again and again: what the function catches once, it does not catch for ever.
            signal.setitimer(signal.ITIMER_PROF, max(0.001, min(each_s, left)), 0.02)
            what, value = told(function(*given))
        except OutOfTime:
            what, value = "lost", None
        except BaseException as error:
            what, value = "raised", type(error).__name__
        signal.setitimer(signal.ITIMER_PROF, 0)
        say(json.dumps([number, what, value, given != args]))
        lost += what == "lost"
        if lost == most_lost or time.process_time() - started > all_s:
            return
    say(json.dumps(["cpu", time.process_time() - started]))


def _stop(number: int, frame: object) -> None:
    raise OutOfTime


def told(value: Any) -> tuple[str, object]:
    """Return what a result is, and its JSON: ("value", it) for a JSON value; ("list", items) for a tuple or iterator of
    such; ("lists", rows) for a list, tuple or iterator of tuples or lists of such; else ("other", its type).

    A value that JSON would give back as another one, or that is unequal to itself, is none. What could not even cross
    from a module's process to a test's is ("foreign", its type).
    """
    name = type(value).__name__
    if isinstance(value, Iterator):
        value = tuple(itertools.islice(value, MOST_ITEMS + 1))
        if len(value) > MOST_ITEMS:
            return "other", "long"
    what = "value"
    if not _plain(value):
        rows = [_row(item) for item in value] if type(value) in _ROWS else [None]
        if type(value) in _ROWS and all(map(_plain, value)):
            what, value = "list", list(value)
        elif all(row is not None and _plain(row) for row in rows):
            what, value = "lists", rows
        else:
            return "other" if _crosses(value) else "foreign", name
    return (what, value) if len(json.dumps(value)) <= LONGEST_TEXT else ("other", "long")


_ROWS = (list, tuple, deque, range)


def _row(item: Any) -> list[object] | None:
    return list(item) if type(item) in _ROWS else None


def _plain(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is int:
        return bool(-_LARGEST < value < _LARGEST)
    if kind is str:
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if kind is list:
        return all(map(_plain, value))
    if kind in (dict, Counter, OrderedDict):
        return all(type(key) is str and _plain(key) for key in value) and all(map(_plain, value.values()))
    return value is None or kind is bool


_CROSSING = (type(None), bool, int, float, str, complex, range, bytes, bytearray)
_HOLDING = (list, tuple, set, frozenset, deque)
_MAPPING = (dict, OrderedDict, Counter, defaultdict)


def _crosses(value: Any) -> bool:
    """Return whether a value is plain data in the sandbox's sense: of these types and no subclass, to any depth."""
    kind = type(value)
    if kind in _HOLDING:
        return all(map(_crosses, value))
    if kind in _MAPPING:
        return all(_crosses(key) and _crosses(item) for key, item in value.items())
    return kind in _CROSSING


def printer(mark: str) -> Callable[[str], object]:
    """Return what writes a line behind a mark that the function under test does not know."""
    return lambda line: os.write(1, f"\n{mark}{line}\n".encode())
