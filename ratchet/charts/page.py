"""The page of a report: one HTML file with its figures inside, that asks nobody for anything.

What models and logs wrote is hostile: jinja escapes every value, figures are pictures in data addresses (in which no
script runs), and the page forbids scripts and every request by its own policy.
"""

from __future__ import annotations

import base64
from pathlib import Path

from ratchet.charts.document import Document, Grid, Items, Picture, Quote, Section, Text, pieces

TEMPLATE = Path(__file__).with_name("page.html")


def page(document: Document) -> str:
    """Return a document as a page. Opens offline; light and dark, narrow and wide."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests |= {
        "prose": lambda part: isinstance(part, Text),
        "items": lambda part: isinstance(part, Items),
        "grid": lambda part: isinstance(part, Grid),
        "picture": lambda part: isinstance(part, Picture),
        "quote": lambda part: isinstance(part, Quote),
    }
    environment.filters |= {"pieces": pieces, "inline": _inline, "anchor": _anchors(document)}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(document=document) + "\n"


def _inline(picture: Picture) -> str:
    """Return a figure as a data address: the SVG, or the PNG where there is none."""
    path, kind = (picture.svg, "svg+xml") if picture.svg.is_file() else (picture.png, "png")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _anchors(document: Document) -> object:
    """Return a filter from a section to its anchor, a number: titles may hold anything."""
    numbers: dict[int, int] = {}

    def count(section: Section) -> None:
        numbers[id(section)] = len(numbers)
        for inner in section.sections:
            count(inner)

    for section in document.sections:
        count(section)
    return lambda section: f"s{numbers[id(section)]}"
