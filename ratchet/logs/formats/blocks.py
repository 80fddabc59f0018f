"""Rows that are printed over several lines: boxes, blocks, sections and bars. `console` names the shapes."""

from __future__ import annotations

import re
from math import nan

from ratchet.logs.cells import leading_number, number
from ratchet.logs.collect import Table

TRAIN_STEP = re.compile(r"Train step (\d{1,15})/\d+ done")
BANNER = re.compile(r"={3,} ?(?:Epoch \d+/\d+,? )?Step (\d{1,15})/\d+")
METRICS_STEP = re.compile(r"METRICS STEP (\d{1,15})")
TITLE = re.compile(r"^\W*Step (\d{1,15})\W*$")
BAR = re.compile(r"\b[Ss]tep (\d{1,15}) \| (.+)")
BAR_PART = re.compile(r"^([A-Za-z][A-Za-z .\-/]*?):? +([-+]?[\d.]+(?:[eE][-+]?\d+)?|nan|inf)(/\d+)?(.*)$")
PERCENT = re.compile(r"\(?([-+]?[\d.]+) ?%\)?")
SECTION = re.compile(r"(Training Results|Validation Results|Timing|Performance Metrics):$")
BULLET = re.compile(r"[•-] ([^:]+): (.+)$")
HEADER = re.compile(r"┃ *Metric *┃ *Value *┃")
NAME = re.compile(r"[\w./@:+-]+")
"""A key, as opposed to a text that happens to stand in a box."""
BLOCK_LINE = re.compile(r"^\s*([\w./@:-]+): (\S+)$")


class Blocks:
    """Gathers the numbers of a row line by line; a heading begins the next."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._cells: dict[str, float] = {}
        self._last = ""
        self._step = nan
        self._shape = ""
        self._section = ""
        self._in_block = False

    def feed(self, line: str) -> None:
        """Take a line that is neither a dict nor a step line."""
        if self._in_block:
            self._block_line(line)
        elif "┃" in line:
            self._shape = "rich tables" if self._shape == "title" and HEADER.search(line) else ""
        elif "│" in line:
            self._box_line(line)
        elif self._section and ("•" in line or "- " in line):
            self._bullet(line)
        elif "tep " in line or "TEP " in line:
            self._heading(line)
        elif line.endswith(":") and (found := SECTION.search(line)):
            self._begin_section(found.group(1))
        elif self._cells and line.startswith(("╘", "└")):
            self._flush()

    def close(self) -> None:
        """Take the row that was begun as finished."""
        self._flush()

    def _heading(self, line: str) -> None:
        if found := BAR.search(line):
            self._bar(float(found.group(1)), found.group(2))
        elif found := TRAIN_STEP.search(line):
            self._begin(found.group(1), "box tables")
        elif found := BANNER.search(line):
            self._begin(found.group(1), "sections")
        elif found := METRICS_STEP.search(line):
            self._begin(found.group(1), "metrics blocks")
            self._in_block = True
        elif found := TITLE.match(line):
            self._begin(found.group(1), "title")  # of a table of metrics, if its header says so

    def _begin(self, step: str, shape: str) -> None:
        self._flush()
        self._step, self._shape, self._section = float(step), shape, ""

    def _flush(self) -> None:
        if self._cells:
            self._table.add(tuple(self._cells), list(self._cells.values()), self._step, self._shape)
        self._cells = {}
        self._last = ""

    def _box_line(self, line: str) -> None:
        """Take a line of a box; keys that were broken over two lines are put together."""
        if self._shape not in ("box tables", "rich tables"):
            return
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        for key, text in zip(cells[::2], cells[1::2], strict=False):
            value = number(text) if text else None
            if not NAME.fullmatch(key):
                continue
            if value is not None:
                self._cells[key] = value
                self._last = key
            elif not text and self._last in self._cells and self._shape == "rich tables":
                self._cells[self._last + key] = self._cells.pop(self._last)
                self._last += key

    def _begin_section(self, name: str) -> None:
        if f"{name}/" in {key.partition("/")[0] + "/" for key in self._cells} and self._shape == "sections":
            self._flush()  # no banner between two steps: older versions print none
            self._step = nan
        self._shape, self._section = "sections", name

    def _bullet(self, line: str) -> None:
        found = BULLET.search(line)
        value = leading_number(found.group(2)) if found else None
        if found and value is not None:
            self._cells[f"{self._section}/{found.group(1).strip()}"] = value

    def _block_line(self, line: str) -> None:
        found = BLOCK_LINE.match(line)
        value = number(found.group(2)) if found else None
        if found and value is not None:
            self._cells[found.group(1)] = value
        elif line.strip(" =") == "" and line.strip():
            self._in_block = False
            self._flush()

    def _bar(self, step: float, text: str) -> None:
        """Take ``Time: 73.77s | Reward: 0.3887 | Error 20.0%``; percentages become shares."""
        cells = {}
        for part in text.split(" | "):
            found = BAR_PART.match(part.strip())
            if found is None:
                continue
            name, digits, total, rest = found.groups()
            percent = PERCENT.search(f"{digits}{rest}" if rest.startswith("%") else rest)
            value = number(percent.group(1)) if percent else number(digits)
            if value is not None and (percent or total is None):
                cells[name.strip()] = value / 100 if percent else value
        if cells:
            self._flush()
            self._table.add(tuple(cells), list(cells.values()), step, "pipes")
