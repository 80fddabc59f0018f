"""The doctor's findings as charts and reports take them."""

from __future__ import annotations

from collections.abc import Iterable

from ratchet.charts.remark import Remark
from ratchet.doctor.diagnose import diagnose
from ratchet.doctor.finding import Finding
from ratchet.doctor.recorded import settings_of, with_rollouts
from ratchet.logs.log import Log
from ratchet.logs.read import read_log
from ratchet.store.run_store import RunStore


def remarks_on_run(store: RunStore) -> list[Remark]:
    """Return what the doctor finds in a run of ours, each with the rollouts that show it."""
    log = read_log(store.folder, need_reward=False)
    return remarks(with_rollouts(diagnose(log, settings=settings_of(store)), store))


def remarks_on_log(log: Log) -> list[Remark]:
    """Return what the doctor finds in anybody's log."""
    return remarks(diagnose(log))


def remarks(findings: Iterable[Finding]) -> list[Remark]:
    """Return findings as remarks."""
    return [
        Remark(f.rule.replace("_", " "), f.severity.label, f.sentence, f.first, f.last, f.metric, tuple(_details(f)))
        for f in findings
    ]


def _details(finding: Finding) -> Iterable[str]:
    for cause in finding.causes:
        told = f" For it: {' '.join(cause.evidence)}" if cause.evidence else ""
        yield f"Likely cause: {cause.text}{told}"
    yield from (f"Check: {text}" for text in finding.check)
    yield from (f"Change: {text}" for text in finding.change)
    if finding.rollouts:
        yield f"Rollouts that show it: {', '.join(finding.rollouts)}"
    if finding.sources:
        yield f"Source: {'; '.join(finding.sources)}"
