"""What ``ratchet selfplay`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ratchet.charts.tables import aligned
from ratchet.run.selfplay import Rate, SelfPlay


def selfplay_text(result: SelfPlay) -> str:
    """Return the result as a table, a line per number of patches and tests, and what it says."""
    head = ("patches and tests", "chosen by tests", "majority vote", "best possible", "one patch")
    body = [
        (f"{row.size} x {row.size}", *(_rate(r) for r in (row.chosen, row.majority, row.possible, row.average)))
        for row in result.sizes
    ]
    first, last = result.sizes[0].chosen, result.sizes[-1].chosen
    gained = last.value - first.value
    verdict = "more than the noise" if last.low > first.high else "within the noise of so few bugs"
    return "\n".join(
        [
            f"{result.checkpoint}: {result.bugs} held-out bugs; {result.reproduced:.0%} of the tests reproduce theirs.",
            "",
            aligned(head, body),
            "",
            f"Bugs repaired, with 95 % intervals. From {result.sizes[0].size} to {result.sizes[-1].size} patches and "
            f"tests the choice gains {100 * gained:+.1f} points, {verdict}.",
        ]
    )


def selfplay_json(result: SelfPlay) -> dict[str, Any]:
    """Return the result as JSON values."""
    return {**asdict(result), "checkpoint": str(result.checkpoint)}


def _rate(rate: Rate) -> str:
    return f"{rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%})"
