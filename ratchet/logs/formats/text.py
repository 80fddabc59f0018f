"""Readers of text logs: what was printed, as it was, or wrapped by a notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratchet.core.errors import ConfigError
from ratchet.logs.collect import Table
from ratchet.logs.formats.console import Console
from ratchet.logs.formats.documents import elements
from ratchet.logs.formats.drawn import read_drawn
from ratchet.logs.lines import Lines, opened

MAX_NOTEBOOK = 256 << 20
"""Bytes of a notebook; they are read whole."""


def read_console(path: Path, table: Table) -> None:
    """Add the rows of a file of printed lines."""
    console, lines = Console(table), Lines(path)
    feed = console.feed
    for line in lines:
        feed(line)
    console.close()
    table.num_long_lines += lines.num_long


def read_kaggle(path: Path, table: Table) -> None:
    """Add the rows of a Kaggle log: JSON records, or an array of them, that hold pieces of what was printed."""
    console = Console(table)
    for record in elements(path, table):
        if isinstance(record, dict) and isinstance(record.get("data"), str):
            console.feed_text(record["data"])
    console.close()


def read_notebook(path: Path, table: Table) -> None:
    """Add the rows that the cells of a notebook printed, or drew as a table."""
    if path.stat().st_size > MAX_NOTEBOOK:
        raise ConfigError(
            f"{path} is a notebook of more than {MAX_NOTEBOOK >> 20} MiB. Save the output of its training cell as text."
        )
    try:
        with opened(path) as text:
            tree = json.load(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no whole notebook: {error}. Save it again, or copy its output as text.") from None
    for output in _outputs(tree):
        printed = output.get("text")
        if printed is not None:
            console = Console(table)  # one per output: a row never goes on in the next
            console.feed_text(_joined(printed) + "\n")
            console.close()
        data = output.get("data")
        if isinstance(data, dict) and "text/html" in data:
            read_drawn(_joined(data["text/html"]), table)


def _outputs(tree: Any) -> Iterator[dict[str, Any]]:
    cells = tree.get("cells") if isinstance(tree, dict) else None
    for cell in cells if isinstance(cells, list) else []:
        outputs = cell.get("outputs") if isinstance(cell, dict) else None
        yield from (o for o in (outputs if isinstance(outputs, list) else []) if isinstance(o, dict))


def _joined(text: Any) -> str:
    return "".join(str(piece) for piece in text) if isinstance(text, list) else str(text)
