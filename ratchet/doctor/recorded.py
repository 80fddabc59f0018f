"""What a run of ours knows beyond its metrics: its settings, and the rollouts behind a finding. Reads the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratchet.core.rollout import Group, Rollout, Status
from ratchet.doctor.finding import Finding, Wanted
from ratchet.store.run_store import RunStore

SHOWN = 3
"""Rollouts that are named with a finding."""
SEARCHED = 4
"""Recorded steps that are read for them: the last of the stretch first."""


def run_folder(source: Path) -> Path | None:
    """Return the run folder a log was read from, or None if it is no run of ours."""
    folder = source if source.is_dir() else source.parent
    return folder if (folder / "config.toml").is_file() and (folder / "metrics.jsonl").is_file() else None


def settings_of(store: RunStore) -> dict[str, Any]:
    """Return the settings of a run, flat: ``algorithm.lr`` -> 0.001. What the recipe leaves out is left out."""
    return dict(flat(store.config_tree()))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield nested settings by their dotted names."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def with_rollouts(findings: Iterable[Finding], store: RunStore) -> list[Finding]:
    """Return the findings with the names of recorded rollouts that show them, where there are any."""
    kept = store.steps_with_groups()
    read: dict[int, list[Group]] = {}

    def groups(step: int) -> list[Group]:
        if step not in read:
            read[step] = store.read_groups(step)
        return read[step]

    return [
        finding
        if finding.wanted is None
        else replace(finding, rollouts=_examples(finding.wanted, kept, groups))
        for finding in findings
    ]  # fmt: skip


def _examples(wanted: Wanted, kept: list[int], groups: Any) -> tuple[str, ...]:
    inside = [step for step in kept if wanted.first <= step <= wanted.last]
    for step in [*reversed(inside[-SEARCHED:]), *inside[:SEARCHED]]:
        found = _chosen(wanted.kind, groups(step))
        if found:
            return tuple(f"{group.step}:{group.index}:{rollout.attempt}" for group, rollout in found[:SHOWN])
    return ()


def _chosen(kind: str, groups: list[Group]) -> list[tuple[Group, Rollout]]:
    pairs = [(group, rollout) for group in groups for rollout in group.rollouts]
    if kind == "lost":
        return [p for p in pairs if p[1].status is not Status.OK]
    if kind.startswith("status:"):
        return [p for p in pairs if p[1].status.value == kind.removeprefix("status:")]
    if kind == "truncated":
        return [p for p in pairs if p[1].truncated]
    if kind == "longest":
        return sorted(pairs, key=lambda p: -p[1].output_tokens)
    scored = [(p, p[1].score.value) for p in pairs if p[1].score is not None]
    return [p for p, _ in sorted(scored, key=lambda q: q[1], reverse=kind == "highest")]
