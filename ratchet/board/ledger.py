"""The ledger of a run: where every prompt, attempt, token and second went. Sums of what is recorded."""

from __future__ import annotations

from typing import Any

import numpy as np

from ratchet.board.curve import numbers, thin
from ratchet.board.run import OwnRun

BOOKS = (
    ("Attempts", "ledger/", ("rollouts/asked",), "rollouts"),
    ("Sampled tokens", "ledger_tokens/", ("tokens/generated",), "tokens"),
    ("Prompts", "ledger_prompts/", (), "prompts"),
    ("Frozen agents", "ledger_agents/", ("agents/spawned",), "agents"),
)
"""Title, family of metrics, what they must add up to, unit."""
POINTS = 240


def ledger(run: OwnRun) -> dict[str, Any]:
    """Return the books of a run, each with its sums over all steps, and the seconds by what they were spent on."""
    with run.lock:
        names = run.columns.names()
        books = [book for spec in BOOKS if (book := _book(run, names, *spec)) is not None]
        return {"books": books, "time": _time(run, names), "steps": run.columns.size}


def _book(run: OwnRun, names: list[str], title: str, family: str, against: tuple[str, ...], unit: str) -> Any:
    fates = sorted(n for n in names if n.startswith(family))
    if not fates:
        return None
    sums = {n.removeprefix(family): float(np.nansum(run.columns.column(n))) for n in fates}
    total = sum(sums.values())
    asked = sum(float(np.nansum(run.columns.column(n))) for n in against) if against else None
    order = sorted(sums, key=lambda fate: (fate != "trained", -sums[fate]))
    return {
        "title": title,
        "unit": unit,
        "total": total,
        "asked": asked,
        "against": against[0] if against else "",
        "fates": [{"fate": fate, "count": sums[fate], "share": sums[fate] / total if total else 0.0} for fate in order],
    }


def _time(run: OwnRun, names: list[str]) -> dict[str, Any]:
    """Return the seconds of exploring and training, the waits among them, and both over the steps."""
    spent = [n for n in ("time/explore", "time/train") if n in names]
    waits = sorted(n for n in names if n.startswith("wait/"))
    over = []
    for name in spent:
        values = np.nan_to_num(run.columns.column(name))
        x, y = thin(run.columns.steps.astype(float), values, POINTS)
        over.append({"name": name, "x": numbers(x), "y": numbers(y)})
    return {
        "spent": [{"name": n, "seconds": float(np.nansum(run.columns.column(n)))} for n in spent],
        "waits": [{"name": n, "seconds": float(np.nansum(run.columns.column(n)))} for n in waits],
        "over": over,
    }
