"""After the last step: figures and the report, drawn from what is on disk."""

from __future__ import annotations

from ratchet.charts.figure import draw_run
from ratchet.charts.report import write_report
from ratchet.run.observer import Observer
from ratchet.store.run_store import RunStore


def finish(store: RunStore, observer: Observer) -> None:
    """Draw the study's figure, write the report, and say where everything is."""
    figures = draw_run(store)
    report = write_report(store, figures)
    last = sorted((store.folder / "checkpoints").glob("step_*"))[-1]
    for path in figures:
        observer.note(f"Figure:     {path}")
    observer.note(f"Report:     {report}")
    observer.note(f"Checkpoint: {last}")
