"""Who watches a run, and by which rules it may look after itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.cluster.cluster import Cluster
from ratchet.loggers.table import Loggers, Named
from ratchet.run.guard import Diagnose
from ratchet.run.observer import Observer
from ratchet.run.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Watching:
    """Handed from the one who starts a run to its parts."""

    observer: Observer
    diagnose: Diagnose
    """What the guard goes by."""
    loggers: Sequence[Named]
    ranks: Ranks
    """Who trains along."""
    cluster: Cluster
    """Where explorers live that have processes of their own."""
    running: Loggers | None = None
    """The loggers at work, where the run was under way already and turns back."""
