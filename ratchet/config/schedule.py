"""When the sampler gets which weights: a pure function of the step."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
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
    _points: list[int] = field(default_factory=lambda: [0], init=False, repr=False, compare=False)
    """The refreshes found so far: a loop asks for each step, and more than once."""

    def version_for(self, step: int) -> int:
        """Return the version of the weights that must sample the batch of `step`."""
        points, latest = self._points, max(0, step - self.sync.offset)
        if self.sync.offline:
            return 0
        while points[-1] <= latest:
            points.append(points[-1] + int(at(self.sync.interval, points[-1])))
        return points[bisect_right(points, latest) - 1]

    def staleness(self, step: int) -> int:
        """Return how many training steps the sampler of `step` is behind its trainer."""
        return step - self.version_for(step)
