"""Reader of our own run folders: the metrics of its steps, and its evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ratchet.core.errors import ConfigError
from ratchet.logs.cells import row_of
from ratchet.logs.collect import Table
from ratchet.store.run_store import RunStore


def is_run_folder(path: Path) -> bool:
    """Return whether a folder is a run of ours."""
    return (path / "config.toml").is_file() and (path / "metrics.jsonl").is_file()


def read_run_folder(path: Path, table: Table) -> None:
    """Add a row per step and per evaluation. The store has settled what a resumed run repeats."""
    store = RunStore.open(path)
    try:
        rows: list[dict[str, Any]] = store.metrics()
        events = store.events()
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{path} is a run folder whose metrics cannot be read: {error}.") from None
    for row in rows:
        _add(row, table)
    latest: dict[tuple[str, int], dict[str, Any]] = {}
    for event in events:
        if event.get("kind") == "eval":
            facts = {k: v for k, v in event.items() if k not in ("kind", "split", "step", "time")}
            split, step = str(event["split"]), int(event["step"])
            latest[split, step] = {"step": step, **{f"eval/{split}/{k}": v for k, v in facts.items()}}
    for _, row in sorted(latest.items(), key=lambda item: (item[0][1], item[0][0])):
        _add(row, table)


def _add(row: dict[str, Any], table: Table) -> None:
    step = float(row["step"])
    keys, values, _ = row_of({k: v for k, v in row.items() if k != "step"})
    if keys:
        table.add(keys, values, step, "run folder")
