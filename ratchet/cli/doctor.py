"""What is wrong with a run, as text and as JSON: the command that shows the doctor's findings."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratchet.cli.exits import EXIT_ERROR, EXIT_WARNING
from ratchet.doctor.causes import short
from ratchet.doctor.diagnose import diagnose, unsaid, worst
from ratchet.doctor.evidence import evidence_of
from ratchet.doctor.finding import Finding, Severity
from ratchet.doctor.recorded import run_folder, settings_of, with_rollouts
from ratchet.logs.frameworks.table import FRAMEWORKS
from ratchet.logs.log import Log
from ratchet.store.run_store import RunStore

WIDTH = 110


def findings_of(log: Log) -> list[Finding]:
    """Return what a log shows; for a run of ours with its settings, and the rollouts behind the findings."""
    folder = run_folder(log.sources[0]) if log.format.name == "ratchet" and log.sources else None
    if folder is None:
        return diagnose(log)
    store = RunStore.open(folder)
    return with_rollouts(diagnose(log, settings=settings_of(store)), store)


def doctor_text(log: Log, findings: Sequence[Finding]) -> str:
    """Return the findings as text, worst first."""
    title = FRAMEWORKS[log.framework.name].title
    reward = log.nearest("reward/mean")
    points = 0 if reward is None else len(reward.steps)
    span = f", step {reward.steps[0]} to {reward.steps[-1]}" if reward is not None and points else ""
    counts = {s: sum(f.severity is s for f in findings) for s in reversed(Severity)}
    told = ", ".join(f"{count} {severity.label}" for severity, count in counts.items() if count) or "nothing found"
    blocks = [f"{log.sources[0]} ({title}): {points} points of {reward.key if reward else 'a reward'}{span}; {told}"]
    silence = unsaid(evidence_of(log))
    if silence is not None:
        blocks.append(silence)
    blocks += [_finding_text(finding, log.sources[0]) for finding in findings]
    return "\n\n".join(blocks)


def doctor_tree(log: Log, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the same as a tree for JSON; numbers that are not finite are null."""
    return {
        "sources": [str(path) for path in log.sources],
        "framework": log.framework.name,
        "worst": worst(findings).label if findings else None,
        "unsaid": unsaid(evidence_of(log)),
        "findings": [finding_tree(finding) for finding in findings],
    }


def finding_tree(finding: Finding) -> dict[str, Any]:
    """Return a finding as a tree for JSON."""
    return {
        "rule": finding.rule,
        "severity": finding.severity.label,
        "metric": finding.metric,
        "key": finding.key,
        "first_step": finding.first,
        "last_step": finding.last,
        "sentence": finding.sentence,
        "numbers": {name: value if math.isfinite(value) else None for name, value in finding.numbers.items()},
        "causes": [{"cause": c.text, "evidence": list(c.evidence)} for c in finding.causes],
        "check": list(finding.check),
        "change": list(finding.change),
        "sources": list(finding.sources),
        "rollouts": list(finding.rollouts),
    }


def exit_code(findings: Sequence[Finding]) -> int:
    """Return what the command ends with: 0 where nothing is above information, else by the worst severity."""
    return {Severity.INFO: 0, Severity.WARNING: EXIT_WARNING, Severity.ERROR: EXIT_ERROR}[worst(findings)]


def _finding_text(finding: Finding, source: Path) -> str:
    steps = f"step {finding.first}" if finding.first == finding.last else f"steps {finding.first} to {finding.last}"
    lines = [f"{finding.severity.label.upper()}  {finding.rule}  ({finding.key}, {steps})", *_wrapped(finding.sentence)]
    if finding.numbers:
        lines += _wrapped("Numbers: " + ", ".join(f"{name} {short(value)}" for name, value in finding.numbers.items()))
    if finding.causes:
        lines.append("  Likely causes")
        for place, cause in enumerate(finding.causes, 1):
            told = f" For it: {' '.join(cause.evidence)}" if cause.evidence else ""
            lines += _wrapped(f"{place}. {cause.text}{told}", "    ", "       ")
    for head, items in (("Check", finding.check), ("Change", finding.change)):
        if items:
            lines.append(f"  {head}")
            lines += [line for item in items for line in _wrapped(f"- {item}", "    ", "      ")]
    if finding.rollouts:
        lines += _wrapped(f"Rollouts: {', '.join(finding.rollouts)} (ratchet rollouts {source} "
                          f"--step {finding.rollouts[0].partition(':')[0]})")  # fmt: skip
    if finding.sources:
        lines += _wrapped("Source: " + "; ".join(finding.sources))
    return "\n".join(lines)


def _wrapped(text: str, first: str = "  ", rest: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip
