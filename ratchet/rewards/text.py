"""Reading answers out of texts: verdicts, tags, boxes, and whether a text has the form that was asked for.

Pure functions over strings, linear in the length of the text: safe to call on whatever a policy wrote.
"""

from __future__ import annotations

import re

OPEN_THINK, CLOSE_THINK = "<think>", "</think>"
OPEN_ANSWER, CLOSE_ANSWER = "<answer>", "</answer>"
TAGS = (OPEN_THINK, CLOSE_THINK, OPEN_ANSWER, CLOSE_ANSWER)
VERDICTS = ("[[A]]", "[[B]]")

VERDICT_WINDOW = 80
"""How many characters from the end may hold the verdict, as in the public RM-R1 reward."""

_INTEGER_AT_END = re.compile(r"(-?[0-9]+)(?:</answer>)?\Z")
_MARKED = re.compile(r"####[ \t]*([^\n]+)")
_BOXED = "\\boxed{"


def last_verdict(text: str, *, window: int = VERDICT_WINDOW) -> str:
    """Return ``A`` or ``B`` if the last `window` characters hold exactly that verdict, else the empty string.

    **Source**: the public RM-R1 reward code, which also asks for the surrounding answer tags; here they belong to the
    format part alone, so that a missing tag costs one part and not both.
    """
    tail = text.rstrip()[-window:]
    found = [verdict[2] for verdict in VERDICTS if verdict in tail]
    return found[0] if len(found) == 1 else ""


def last_integer(text: str) -> str:
    """Return the integer that ends the text, a closing answer tag aside; empty if it does not end in one."""
    tail = text.rstrip()[-VERDICT_WINDOW:]
    match = _INTEGER_AT_END.search(tail)
    return match[1] if match else ""


def last_tagged(text: str) -> str | None:
    """Return what stands between the last answer tags, stripped; None if there are none."""
    end = text.rfind(CLOSE_ANSWER)
    start = text.rfind(OPEN_ANSWER, 0, end) if end >= 0 else -1
    return text[start + len(OPEN_ANSWER) : end].strip() if start >= 0 else None


def last_marked(text: str) -> str | None:
    """Return what follows the last ``####`` on its line, stripped; None if there is none. GSM8K's form."""
    found = _MARKED.findall(text)
    return found[-1].strip() if found else None


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last complete ``\boxed{...}``, nested braces included; None if there is none."""
    while (start := text.rfind(_BOXED)) >= 0:
        content = _balanced(text, start + len(_BOXED))
        if content is not None:
            return content.strip()
        # An unclosed box: nothing after its start can belong to an earlier one.
        text = text[:start]
    return None


def final_answer(text: str) -> str | None:
    r"""Return the answer a text marks: the last box, else ``####`` line, else answer tag; None if unmarked."""
    for read in (last_boxed, last_marked, last_tagged):
        found = read(text)
        if found is not None:
            return found
    return None


def is_exactly(gold: str, text: str) -> bool:
    """Return whether the answer in `text` is `gold`, letter by letter, white space aside.

    The answer is what stands in the last answer tags, else the last box, else after ``####``, else the whole text.
    """
    readings = (read(text) for read in (last_tagged, last_boxed, last_marked))
    answer = next((reading for reading in readings if reading is not None), text)
    return answer.split() == gold.split()


def is_thought_then_answer(text: str) -> bool:
    """Return whether the text is one think block, then one answer block, and nothing else but white space.

    Well formed means: each of the four tags appears once, in order, and the answer block holds something.
    """
    text = text.strip()
    if any(text.count(tag) != 1 for tag in TAGS):
        return False
    if not (text.startswith(OPEN_THINK) and text.endswith(CLOSE_ANSWER)):
        return False
    close, opening = text.index(CLOSE_THINK), text.index(OPEN_ANSWER)
    between = text[close + len(CLOSE_THINK) : opening]
    return close < opening and not between.strip() and bool(last_tagged(text))


def is_thought_then_verdict(text: str) -> bool:
    """Return whether the text is one think block, then one answer block with exactly one verdict, nothing else."""
    return is_thought_then_answer(text) and last_tagged(text) in VERDICTS


def is_thought_then_integer(text: str) -> bool:
    """Return whether the text is one think block, then one answer block that holds an integer, nothing else."""
    if not is_thought_then_answer(text):
        return False
    answer = last_tagged(text) or ""
    digits = answer.removeprefix("-")
    return digits.isascii() and digits.isdigit()


def _balanced(text: str, start: int) -> str | None:
    depth = 1
    for position in range(start, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[start:position]
    return None
