"""The page ``docs/metrics.md``, made from the dictionary."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ratchet.core.metric import SECTIONS, Metric

HEAD = """\
# Metrics

<!-- Made from ratchet/core/metric/. After a change there: python -m ratchet.core.metric > docs/metrics.md -->

Each row of a run's `metrics.jsonl` is one step; the keys below are in it, except `eval/*`, which charts read from the
evaluations in `events.jsonl`. A `*` stands for a name that varies. *Share* is a number from 0 to 1.
"""


def page() -> str:
    """Return the dictionary as Markdown."""
    return "\n".join([HEAD, *(line for title, metrics in SECTIONS.items() for line in _section(title, metrics))])


def _section(title: str, metrics: tuple[Metric, ...]) -> Iterator[str]:
    yield f"## {title}\n"
    for m in metrics:
        facts = ", ".join(fact for fact in (m.unit, m.better.value) if fact)
        yield f"**`{m.pattern}`**" + (f" ({facts})" if facts else "") + "  "
        yield f"{_plain(m.meaning)}  "
        yield f"*Formula:* {_plain(m.formula)}.  "
        yield f"*Normal:* {_plain(m.normal)}." + (f" {_plain(m.zero)}." if m.zero else "") + "\n"


def _plain(text: str) -> str:
    """Return a text whose signs Markdown leaves alone."""
    for sign in "*<|_":
        text = text.replace(sign, f"\\{sign}")
    return text


if __name__ == "__main__":
    sys.stdout.write(page())
