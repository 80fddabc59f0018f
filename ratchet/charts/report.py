"""The report of a run, or of several: one document, written as Markdown and as one page that opens offline.

Every number is computed from what is on disk and stands beside its metric and its steps. The report that a run leaves
when it ends is this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ratchet.charts.account import gate, held_out, ledger, outcome, repeat, time, written
from ratchet.charts.canvas import PANEL_INCHES, write_drawing
from ratchet.charts.compare import Asked, compare
from ratchet.charts.document import Document, Grid, Items, Part, Picture, Quote, Section, Text, code, markdown, plain
from ratchet.charts.figure import Look, draw, draw_run, drawing_of, file_name
from ratchet.charts.foreign import foreign_ledger, foreign_overview, foreign_repeat, foreign_time
from ratchet.charts.observations import interpretation, observations, relations
from ratchet.charts.page import page
from ratchet.charts.remark import Remark, worst_first
from ratchet.charts.setup import setup
from ratchet.charts.source import Source, source_of_run
from ratchet.charts.story import details, results, series_named, span, valued
from ratchet.charts.versus import comparison
from ratchet.core.errors import RunError
from ratchet.store.run_store import RunStore

Remarks = Mapping[str, Sequence[Remark]]
"""Findings by the label of the source they are about."""
MOST_EACH = 8
"""Runs up to which a comparison holds the report of each."""
SHARED = ("reward/mean", "len/response/mean", "entropy", "kl/ref")
"""Panels that several runs share, where recorded."""


def report(sources: Sequence[Source], folder: Path, remarks: Remarks | None = None) -> list[Path]:
    """Write ``report.md``, ``report.html`` and ``figures/`` into a folder, and return the two texts.

    One source gives a report of it; several give a comparison and then one of each. Works for runs in progress. Raises
    `RunError` if something cannot be written.
    """
    found = remarks or {}
    figures = folder / "figures"
    each = enumerate(sources if len(sources) <= MOST_EACH else ())
    names = _names(sources)
    drawn = {i: _figures(s, figures, found.get(s.label, ()), names[i]) for i, s in each}
    if len(sources) == 1:
        made = of_one(sources[0], drawn[0], found.get(sources[0].label, ()))
    else:
        made = of_several(sources, drawn, figures, found)
    return write_document(made, folder)


def write_report(store: RunStore, figures: Sequence[Path], remarks: Sequence[Remark] = ()) -> Path:
    """Write ``report.md`` and ``report.html`` into the run's folder and return the first. `figures` are to be shown.

    Works for a run in progress, stopped or crashed. Raises `RunError` if a file cannot be written.
    """
    made = of_one(source_of_run(store), pictures_of(figures), remarks)
    return write_document(made, store.folder)[0]


def report_text(store: RunStore, figures: Sequence[Path], remarks: Sequence[Remark] = ()) -> str:
    """Return the report of a run of ours as Markdown."""
    return markdown(of_one(source_of_run(store), pictures_of(figures), remarks), store.folder)


def of_one(source: Source, figures: Sequence[Picture], remarks: Sequence[Remark]) -> Document:
    """Return the report of one run."""
    title = source.store.folder.resolve().name if source.store is not None else source.label
    return Document(title, _opening(source), _sections(source, figures, remarks))


def of_several(
    sources: Sequence[Source], drawn: Mapping[int, Sequence[Picture]], folder: Path, remarks: Remarks
) -> Document:
    """Return a comparison, and behind it the report of each run."""
    shared = [m for m in SHARED if any(s.nearest(m) is not None for s in sources)]
    look = Look(style="stale" if len(shared) > 2 else "judge")
    made = drawing_of(sources, look)
    if len({s.setting for s in sources}) == 1:  # two beside each other are as wide as the text
        made = replace(made, columns=2, panel_inches=PANEL_INCHES)
    pictures = pictures_of(write_drawing(made, folder / "comparison"))
    labels = ", ".join(plain(s.label) for s in sources)
    methods = _methods(sources, folder)
    each = [
        Section(_names(sources)[i], [*_opening(s)], _sections(s, drawn[i], remarks.get(s.label, ())))
        for i, s in enumerate(sources)
        if i in drawn
    ]
    return Document(
        f"{len(sources)} runs compared",
        [
            Text(f"Held against each other: {labels}."),
            *([] if drawn else [Text(f"More than {MOST_EACH} runs: each has a report of its own, not in this one.")]),
        ],
        [comparison(sources, remarks), Section("All in one figure", [*pictures]), *methods, *each],
    )


def write_document(document: Document, folder: Path) -> list[Path]:
    """Write a document as ``report.md`` and ``report.html``, and return both. Raises `RunError`."""
    paths = [folder / "report.md", folder / "report.html"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(markdown(document, folder), encoding="utf-8")
        paths[1].write_text(page(document), encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"{folder}/report cannot be written: {error.strerror}. Make room, then draw it again."
        ) from error
    return paths


def pictures_of(files: Sequence[Path]) -> list[Picture]:
    """Return figures with the captions written beside them; of each PNG and SVG there is one."""
    found = []
    for png in (path for path in files if path.suffix == ".png"):
        text = png.with_suffix(".txt")
        told = text.read_text(encoding="utf-8") if text.is_file() else png.stem
        title, _, caption = told.partition("\n\n")
        found.append(Picture(png, png.with_suffix(".svg"), title, caption.strip()))
    return found


def _figures(source: Source, folder: Path, remarks: Sequence[Remark], title: str) -> list[Picture]:
    """Draw the figures of one run; those of a run of ours lie in its own folder if the report does."""
    if source.span is None:
        return []
    if source.store is not None and folder.resolve() == (source.store.folder / "figures").resolve():
        return pictures_of(draw_run(source.store, remarks))
    name = f"{file_name(title)}-" if title else ""
    found = {source.label: remarks}
    files = draw([source], Look(remarks=found), folder / f"{name}main")
    more = [s.name for s in series_named(source, ("reward/parts/*", "entropy", "kl/ref"))][:4]
    if more:
        files += draw([source], Look(more, remarks=found), folder / f"{name}signals")
    return pictures_of(files)


def _names(sources: Sequence[Source]) -> list[str]:
    """Return what each of several runs is called, seeds of one label by their numbers; empty for the only one."""
    labels = [f"{s.setting} {s.label}".strip() for s in sources]
    if len(labels) == 1:
        return [""]
    return [
        f"{label} {labels[:i].count(label) + 1}" if labels.count(label) > 1 else label for i, label in enumerate(labels)
    ]


def _opening(source: Source) -> list[Part]:
    if source.store is not None:
        return [outcome(source.store, source.rows, source.store.events())]
    assert source.log is not None, "a source has a store or a log"
    at = source.span
    steps = f", {span(at) if at[0] != at[1] else f'step {at[0]}'}" if at is not None else ""
    rows = "1 row" if source.log.num_rows == 1 else f"{source.log.num_rows:,} rows"
    return [Text(f"A log of {plain(source.log.framework.name)}: {rows}{steps}.")]


def _sections(source: Source, figures: Sequence[Picture], remarks: Sequence[Remark]) -> list[Section]:
    found = relations(source)
    store = source.store
    events = store.events() if store is not None else []
    spent = (
        [ledger(source.rows), *time(source.rows)]
        if store is not None
        else [
            foreign_ledger(source),
            foreign_time(source),
        ]
    )
    return [
        Section("Overview", _overview(source)),
        Section("Components", [*figures, *_components(source, figures)]),
        Section("Detailed analysis", [*results(source)], details(source)),
        *(held_out(source.rows, events) if store is not None else ()),
        Section("Key observations", [Items(observations(source, found))]),
        Section(
            "Interpretation",
            [
                Items(interpretation(source, found)),
                Text("These are readings of the numbers above, not proofs; a rerun with another seed comes first."),
            ],
        ),
        Section("Findings", _findings(remarks)),
        *spent,
        *(gate(events) if store is not None else ()),
        repeat(store, events) if store is not None else foreign_repeat(source),
    ]


def _overview(source: Source) -> list[Part]:
    if source.store is not None:
        answers = written(source.store)
        return [setup(source.store, source.store.config_tree()), *answers]
    return foreign_overview(source)


def _components(source: Source, figures: Sequence[Picture]) -> list[Part]:
    """Say what is on the axes: of each series its range, its points and what it is."""
    shown = [s for s in series_named(source, ("reward/mean", "reward/parts/*", *SHARED[1:])) if s.values]
    if not shown:
        return [Text("Nothing that could be drawn is recorded.")] if not figures else []
    body = [
        (
            code(s.name),
            f"{len(s.values):,}",
            f"{s.steps[0]:,} to {s.steps[-1]:,}",
            f"{valued(s.name, min(s.values))} to {valued(s.name, max(s.values))}",
            plain(source.meaning(s.name)),
        )
        for s in shown
    ]
    head = ("series", "values", f"x: {plain(source.step_label.lower())}", "y: range", "in the log")
    if not any(row[-1] for row in body):
        return [Grid(head[:-1], [row[:-1] for row in body])]
    return [Grid(head, body)]


def _findings(remarks: Sequence[Remark]) -> list[Part]:
    if not remarks:
        return [Text("No findings were handed to this report.")]
    parts: list[Part] = []
    for remark in worst_first(remarks):
        about = ", ".join(part for part in (code(remark.metric) if remark.metric else "", remark.where) if part)
        where = f" ({about})" if about else ""
        parts.append(Text(f"**{plain(remark.title)}**, {plain(remark.severity)}{where}: {plain(remark.sentence)}"))
        if remark.details:
            parts.append(Items([plain(detail) for detail in remark.details]))
    return parts


def _methods(sources: Sequence[Source], folder: Path) -> list[Section]:
    """Return the tables of `compare`, where all runs are ours and some are seeds of one method."""
    stores = [s.store for s in sources if s.store is not None and s.rows]
    if len(stores) < len(sources):
        return []
    made = compare(Asked([store.folder for store in stores], out=folder / "methods"))
    return [Section("Methods over seeds", [Quote(made.text), *pictures_of(made.files)])]
