"""The metric dictionary: what each number of a run means, how it is made, and when it should worry nobody.

Charts, the report and the terminal read units and directions from here; ``docs/metrics.md`` is made from it:

    python -m ratchet.core.metric > docs/metrics.md

A ``*`` in a pattern stands for a part that varies. Of several patterns that fit a name, the longest counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratchet.core.metric.data import DATA
from ratchet.core.metric.entry import Better, Metric
from ratchet.core.metric.learning import AGREEMENT, LENGTH, LOSS, OPTIMISER, REWARD, SIGNAL
from ratchet.core.metric.running import COUNTS, EVALUATION, TIME
from ratchet.core.metric.team import TEAM

SECTIONS: Mapping[str, tuple[Metric, ...]] = {
    "Reward": REWARD,
    "Length": LENGTH,
    "Signal": SIGNAL,
    "Loss, entropy, divergence": LOSS,
    "Sampler and trainer": AGREEMENT,
    "Optimiser": OPTIMISER,
    "Stale data, baselines, critics": DATA,
    "Teams of agents": TEAM,
    "Counts and costs": COUNTS,
    "Time and memory": TIME,
    "Evaluation": EVALUATION,
}
"""The dictionary by the headings of its page."""

METRICS = tuple(entry for entries in SECTIONS.values() for entry in entries)
"""The whole dictionary."""


def describe(name: str) -> Metric | None:
    """Return the entry for a metric, or None if nobody wrote one. The longest pattern that fits counts."""
    return max((m for m in METRICS if m.fits(name)), key=lambda m: (m.pattern == name, len(m.pattern)), default=None)


__all__ = ["METRICS", "SECTIONS", "Better", "Metric", "describe"]
