"""The table transformers draws in a notebook while it trains, as HTML: its columns are keys, its rows have steps."""

from __future__ import annotations

from html.parser import HTMLParser
from math import nan

from ratchet.logs.cells import number
from ratchet.logs.collect import Table

RENAMED = {"Training Loss": "loss", "Validation Loss": "eval_loss"}
"""Headings -> transformers' keys."""


def read_drawn(text: str, table: Table) -> None:
    """Add the rows of a drawn table if it has a column of steps."""
    parser = _Cells()
    parser.feed(text)
    if not parser.rows or "Step" not in parser.rows[0]:
        return
    names = [RENAMED.get(name, name.replace(" / ", "/")) for name in parser.rows[0]]
    for row in parser.rows[1:]:
        pairs = {name: value for name, cell in zip(names, row, strict=False) if (value := number(cell)) is not None}
        step = pairs.pop("Step", nan)
        if pairs:
            table.add(tuple(pairs), list(pairs.values()), step, "drawn tables")


class _Cells(HTMLParser):
    """Collects the cells of a page's tables, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")
        if self._inside and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()
