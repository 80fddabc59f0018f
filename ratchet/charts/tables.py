"""Tables of a report: Markdown, and sums over families of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet.store.run_store import Row


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def summed(rows: Sequence[Row], prefix: str) -> dict[str, float]:
    """Return the sum over all rows of each metric of a family."""
    totals: dict[str, float] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith(prefix):
                totals[key] = totals.get(key, 0.0) + float(value)
    return totals


def largest_first(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the entries of a table, the largest first, equal ones by name."""
    return sorted(values.items(), key=lambda item: (-item[1], item[0]))
