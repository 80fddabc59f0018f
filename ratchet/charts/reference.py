"""Recorded reference runs of a study, and which of them a new run is held against. Reads recipes, computes nothing.

    recipes/<study>/reference/<label>/summary.json    with "config": the whole config of the first seed
    recipes/<study>/reference/<label>/seed<n>.jsonl   one row of metrics per step

``bench/reference.py`` writes them. The label is a name for people; what counts is the config.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.charts.grouping import (
    Method,
    Run,
    differing,
    flat_settings,
    is_algorithm_option,
    is_offline,
    setting_label,
)
from ratchet.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Reference:
    """Recorded seeds of one method in one setting."""

    label: str
    runs: tuple[Run, ...]
    differs_in: tuple[str, ...] = ()
    """Settings in which the run held against it differs."""


def read_references(recipes: Path, study: str) -> list[Reference]:
    """Return what was recorded for a study, by label. Raises `ConfigError` for files that cannot be read."""
    folder = recipes / study / "reference"
    found = []
    for summary in sorted(folder.glob("*/summary.json")) if study else ():
        try:
            config = json.loads(summary.read_text(encoding="utf-8")).get("config")
            if config is None:  # recorded before configs were kept
                continue
            runs = []
            for path in sorted(summary.parent.glob("seed*.jsonl"), key=lambda p: (len(p.name), p.name)):
                lines = path.read_text(encoding="utf-8").splitlines()
                rows = [json.loads(line) for line in lines]
                settings = flat_settings(config) | {"run.seed": int(path.stem.removeprefix("seed"))}
                runs.append(Run(summary.parent, rows, settings))
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"The recorded reference {summary.parent} cannot be read ({error}). Record it again, or compare "
                "with --no-reference."
            ) from None
        if runs:
            found.append(Reference(summary.parent.name, tuple(runs)))
    return found


def reference_for(method: Method, references: Sequence[Reference]) -> Reference | None:
    """Return the record a method is held against, or None.

    Algorithm, its options, staleness and every setting of the environment must be the same. Of several such records
    it is the one that differs in the fewest other settings, which are told; of equals the first by label.
    """
    first = method.runs[0].settings
    fitting = []
    for reference in references:
        theirs = reference.runs[0].settings
        keys = [k for k in differing(first, theirs) if not k.startswith("sync.")]
        if setting_label(theirs) == setting_label(first) and not any(_must_agree(key) for key in keys):
            fitting.append(Reference(reference.label, reference.runs, tuple(keys)))
    return min(fitting, key=lambda r: (len(r.differs_in), r.label), default=None)


def reference_label(run: Run) -> str:
    """Return the folder a run's method is recorded in: ``rec_one_side-20``, ``grpo-offline``, ``grpo-1-offset10``."""
    settings = run.settings
    if is_offline(settings):
        return f"{run.algorithm}-offline"
    interval = settings["sync.interval"]
    text = f"{interval:g}" if isinstance(interval, int | float) else "changing"
    offset = f"-offset{settings['sync.offset']}" if settings["sync.offset"] else ""
    return f"{run.algorithm}-{text}{offset}"


def _must_agree(key: str) -> bool:
    return key == "algorithm.name" or key.startswith("environment.") or is_algorithm_option(key)
