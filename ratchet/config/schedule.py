"""When the sampler gets which weights: a pure function of the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratchet.config.curve import at

if TYPE_CHECKING:
    from ratchet.config.schema import SyncSection


@dataclass(frozen=True, slots=True)
class Schedule:
    """The staleness law.

    Refreshes happen at steps ``p_0 = 0, p_{j+1} = p_j + interval(p_j)``. The batch of step k is sampled by version
    ``max { p_j : p_j <= k - offset }`` (version 0 before that). For a constant interval i this is
    ``max(0, i * floor((k - offset) / i))``, so a batch lags its trainer by 0 .. i - 1 + offset steps. Offline, every
    batch is sampled by version 0.
    """

    sync: SyncSection

    def version_for(self, step: int) -> int:
        """Return the version of the weights that must sample the batch of `step`."""
        point = 0
        if self.sync.offline:
            return point
        while (following := point + int(at(self.sync.interval, point))) <= step - self.sync.offset:
            point = following
        return point

    def staleness(self, step: int) -> int:
        """Return how many training steps the sampler of `step` is behind its trainer."""
        return step - self.version_for(step)
