"""Tables: Markdown, columns for the terminal, and sums over families of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet.store.run_store import Row


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def aligned(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table as text in columns: the first flush left, the others flush right, a long head on two lines."""
    heads = [_two_lines(cell, max(len(line[i]) for line in body)) for i, cell in enumerate(head)]
    lines = [[upper for upper, _ in heads], [lower for _, lower in heads], *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    texts = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in (lines if any(lines[0]) else lines[1:])
    ]
    return "\n".join(text.rstrip() for text in texts)


def _two_lines(text: str, width: int) -> tuple[str, str]:
    """Split a head that is wider than its column before the word that leaves the shorter longest line."""
    words = text.split()
    if len(text) <= width or len(words) == 1:
        return "", text
    cuts = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return min(cuts, key=lambda cut: max(map(len, cut)))


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
