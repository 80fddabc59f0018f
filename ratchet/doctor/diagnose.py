"""`diagnose`: a log in, findings out, worst first.

Called by the command line and, at every step, by what guards a run. Pure: it reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ratchet.doctor.evidence import Evidence, evidence_of
from ratchet.doctor.finding import Finding, Severity
from ratchet.doctor.table import RULES
from ratchet.logs.log import Log

NEEDED = 8
"""Points of a reward without which nothing is said."""
SUPERSEDED: Mapping[str, frozenset[str]] = {
    "reward_collapse": frozenset({"peak_before_end", "plateau", "length_shrink"}),
    "length_surge_reward_fall": frozenset({"length_growth"}),
    "length_explosion": frozenset({"length_growth"}),
    "weights_not_delivered": frozenset({"too_stale"}),
}
"""Findings that tell the same as a worse one, and only while they are no more than information."""


def diagnose(log: Log | Evidence, *, settings: Mapping[str, Any] | None = None, online: bool = False) -> list[Finding]:
    """Return what a log shows, worst first.

    `settings` are those of a run of ours, flat (see `recorded.settings_of`). With `online` only the rules are asked
    that may be asked at every step, and differences must be a standard error larger, because the question is put so
    often.
    """
    evidence = log if isinstance(log, Evidence) else evidence_of(log, settings, online=online)
    asked = [rule for rule in RULES if rule.online or not (online or evidence.online)]
    findings = [finding for rule in asked for finding in rule.look(evidence)]
    order = {rule.name: place for place, rule in enumerate(RULES)}
    return sorted(_without_repeats(findings), key=lambda f: (-f.severity, order[f.rule]))


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the highest severity; `Severity.INFO` if there is no finding."""
    return max((finding.severity for finding in findings), default=Severity.INFO)


def unsaid(evidence: Evidence) -> str | None:
    """Return why next to nothing can be said about a log, or None."""
    found = evidence.values("reward/mean")
    count = 0 if found is None else len(found[0])
    if count >= NEEDED:
        return None
    return f"The log has {count} points of a reward: below {NEEDED}, noise cannot be told from change."


def _without_repeats(findings: list[Finding]) -> list[Finding]:
    names = {finding.rule for finding in findings}
    hidden = {less for rule in names for less in SUPERSEDED.get(rule, ())}
    return [f for f in findings if f.rule not in hidden or f.severity > Severity.INFO]
