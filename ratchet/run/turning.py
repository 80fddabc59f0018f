"""Turning a run back to an earlier checkpoint, in such an order that a kill at any moment loses nothing.

The guard decides it, or a person asks for it (`run.control`); what follows is the same.

rollback       event: where to, why, and what is changed. From here on a resumed run does the rest.
newer checkpoints are removed, metrics.jsonl gets a line that says which steps no longer count
the parts are made anew from the checkpoint, the changed config is put in place
turned_back    event: the checkpoint holds the changed config; done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratchet.config.read import merge
from ratchet.run.checkpoint import list_checkpoints
from ratchet.run.guard import TurnBack
from ratchet.store.run_store import Row, RunStore


def declare(store: RunStore, step: int, turn: TurnBack) -> None:
    """Record that the run turns back after `step`; it is decided when this returns."""
    remedy = turn.remedy
    asked = {"request": turn.request} if turn.request else {}
    facts: dict[str, Any] = {"to": turn.to, "reason": turn.reason, "changes": {}, "remedy": "", **asked}
    if remedy is not None:
        facts |= {
            "remedy": remedy.name, "changes": json.loads(json.dumps(remedy.changes)), "what": remedy.sentence,
            "fresh_optimiser": remedy.fresh_optimiser,
        }  # fmt: skip
    store.append_event("rollback", step, **facts)


def pending(store: RunStore) -> Row | None:
    """Return the rollback that was decided and not finished, or None."""
    last: Row | None = None
    for event in store.events():
        if event["kind"] == "rollback":
            last = event
        elif event["kind"] == "turned_back":
            last = None
    return last


def clear_away(store: RunStore, turn: Row) -> Mapping[str, Any]:
    """Forget what came after the checkpoint, and return the config from there on, nested. May be done twice."""
    for path in list_checkpoints(store.folder / "checkpoints"):
        if int(path.name[5:]) > turn["to"]:
            _removed(path)
    store.rewind(turn["to"])
    return merge(store.config_tree(), turn["changes"])


def _removed(path: Path) -> None:
    """Remove a checkpoint so that what is left of it after a kill is no checkpoint."""
    aside = path.with_name(f".{path.name}.gone")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
