"""``ratchet chart`` and ``ratchet report``: where their files go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ratchet.charts.figure import Look, draw, draw_run, file_name
from ratchet.charts.remark import Remark
from ratchet.charts.source import Source, by_config
from ratchet.core.errors import ConfigError


def chart_files(sources: Sequence[Source], look: Look, out: Path | None, *, seeds: bool = False) -> list[Path]:
    """Draw and return the files: as asked, or into the run's folder for a run of ours, else here.

    Raises `ConfigError` for a run without steps, and for what `figure.draw` cannot draw.
    """
    for source in sources:
        if source.span is None:
            raise ConfigError(f"{source.path} has no finished step yet, so there is nothing to draw.")
    first = sources[0]
    found = remarks_on(sources)
    if look == Look() and out is None and len(sources) == 1 and first.store is not None:
        return draw_run(first.store, found[first.label])
    look = replace(look, remarks=found)
    chosen = by_config(sources) if seeds else sources
    name = file_name("-".join([look.style, *look.metrics[:2]]).strip("-") or "chart")
    if out is not None:
        return draw(chosen, look, out)
    if len(sources) == 1 and first.store is not None:
        return draw(chosen, look, first.store.folder / "figures" / f"{name}.png")
    return draw(chosen, look, Path(f"{file_name(first.label)}-{name}.png" if len(sources) == 1 else f"{name}.png"))


def report_files(sources: Sequence[Source], out: Path | None) -> list[Path]:
    """Write the report and return its files: into a folder as asked, the run's for one of ours, else ``report``."""
    from ratchet.charts.report import report

    alone = sources[0].store if len(sources) == 1 else None
    return report(sources, out or (alone.folder if alone is not None else Path("report")), remarks_on(sources))


def remarks_on(sources: Sequence[Source]) -> dict[str, list[Remark]]:
    """Return what the doctor finds in each source, by its label."""
    from ratchet.run.remarks import remarks_on_log, remarks_on_run

    found: dict[str, list[Remark]] = {}
    for source in sources:
        if source.store is not None:
            found.setdefault(source.label, []).extend(remarks_on_run(source.store))
        elif source.log is not None:
            found.setdefault(source.label, []).extend(remarks_on_log(source.log))
    return found
