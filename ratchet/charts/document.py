"""A text with headings, tables and pictures, before it is Markdown or a page; and the Markdown of it.

In texts, `` `words` `` are code and ``**words**`` are bold. Everything that a log or a model wrote goes through
`code`, `plain` or a `Quote`, so that it cannot become markup in either form.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARKS = "\\`*_<>[]|#"
"""Signs that Markdown, or HTML in it, reads as markup."""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; cells are texts."""

    head: Sequence[str]
    body: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with its caption, both plain."""

    png: Path
    svg: Path
    title: str
    caption: str


@dataclass(frozen=True, slots=True)
class Quote:
    """What somebody else wrote, or commands: shown as it stands."""

    text: str
    language: str = ""
    title: str = ""
    """Not empty: folded away in the page, under this plain title."""


Part = Text | Items | Grid | Picture | Quote


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Part]
    sections: Sequence[Section] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    lead: Sequence[Part]
    sections: Sequence[Section]


def code(text: str) -> str:
    """Return a foreign text as code on one line; nothing in it can end the code or the line."""
    kept = "".join(c if c.isprintable() else " " for c in text).replace("`", "'").replace("|", "¦")
    return f"`{' '.join(kept.split()) or ' '}`"


def plain(text: str) -> str:
    """Return a foreign text that is shown as it stands inside a sentence: markup of ours is not read in it."""
    kept = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(kept.replace("`", "'").replace("**", "* *").split())


def markdown(document: Document, folder: Path) -> str:
    """Return a document as Markdown; places of pictures are relative to `folder`."""
    lines = [f"# {escaped(document.title)}", *(_part(p, folder) for p in document.lead)]
    for section in document.sections:
        lines += _section(section, 2, folder)
    return "\n\n".join(line for line in lines if line) + "\n"


def escaped(text: str) -> str:
    """Return a plain text that Markdown shows as it stands."""
    return "".join(f"\\{c}" if c in MARKS else c for c in text)


def pieces(text: str) -> list[tuple[str, str]]:
    """Return a text as (kind, words): ``text``, ``code``, and ``bold`` where bold begins or ends."""
    found: list[tuple[str, str]] = []
    for i, part in enumerate(text.split("`")):
        if i % 2:
            found.append(("code", part))
            continue
        for j, words in enumerate(part.split("**")):
            found += [("bold", "")] if j else []
            found += [("text", words)] if words else []
    marks = [i for i, (kind, _) in enumerate(found) if kind == "bold"]
    if len(marks) % 2:
        found[marks[-1]] = ("text", "**")
    return found


def _section(section: Section, depth: int, folder: Path) -> list[str]:
    lines = [f"{'#' * depth} {escaped(section.title)}", *(_part(p, folder) for p in section.parts)]
    for inner in section.sections:
        lines += _section(inner, depth + 1, folder)
    return lines


def _part(part: Part, folder: Path) -> str:
    if isinstance(part, Text):
        return f"> {_inline(part.text)}" if part.is_warning else _inline(part.text)
    if isinstance(part, Items):
        return "\n".join(f"- {_inline(text)}" for text in part.texts)
    if isinstance(part, Grid):
        rows = [part.head, ["---"] * len(part.head), *part.body]
        return "\n".join("| " + " | ".join(_inline(cell) for cell in row) + " |" for row in rows)
    if isinstance(part, Picture):
        place = Path(os.path.relpath(part.png, folder)).as_posix()
        place = f"<{place}>" if set(place) & set(" ()<>") else place
        return f"![{escaped(part.title)}]({place})\n\n{escaped(part.caption)}"
    fence = "`" * max(3, 1 + max((len(run) for run in _runs(part.text)), default=0))
    title = f"{escaped(part.title)}:\n\n" if part.title else ""
    return f"{title}{fence}{part.language}\n{part.text.rstrip()}\n{fence}"


def _inline(text: str) -> str:
    """Return a text with what is neither code nor bold escaped where HTML or a table would read it."""
    made = {"code": lambda words: f"`{words}`", "bold": lambda _: "**", "text": _safe}
    return "".join(made[kind](words) for kind, words in pieces(text))


def _safe(words: str) -> str:
    return "".join(f"\\{c}" if c in "<|[]" else c for c in words)


def _runs(text: str) -> list[str]:
    """Return the runs of backquotes in a text."""
    return [run for run in "".join(c if c == "`" else " " for c in text).split() if run]
