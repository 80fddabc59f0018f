"""When a run ends: figures and the report, drawn from what is on disk."""

from __future__ import annotations

from ratchet.charts.figure import draw_run
from ratchet.charts.report import write_report
from ratchet.core.errors import RatchetError
from ratchet.run.observer import Observer
from ratchet.run.remarks import remarks_on_run
from ratchet.store.run_store import RunStore


def finish(store: RunStore, observer: Observer) -> None:
    """Draw the study's figure, write the report, and say where everything is."""
    if not store.metrics():
        return
    try:
        found = remarks_on_run(store)
        figures = draw_run(store, found)
        report = write_report(store, figures, found)
    except (OSError, RatchetError) as error:  # the run itself is on disk already; pictures can be drawn again
        observer.note(f"Figures and report cannot be written: {error}. Later: ratchet chart {store.folder}")
        return
    last = sorted((store.folder / "checkpoints").glob("step_*"))[-1]
    for path in figures:
        observer.note(f"Figure:     {path}")
    observer.note(f"Report:     {report} (and {report.with_suffix('.html').name}, for a browser)")
    observer.note(f"Checkpoint: {last}")
