"""Groups of an earlier run in place of fresh ones: training another algorithm on what was sampled then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ratchet.core.errors import ConfigError
from ratchet.core.rollout import Group
from ratchet.store.run_store import RunStore


class RecordedGroups:
    """Stands in for the explorer. The recorded groups are one long row, begun again at its end."""

    def __init__(self, folder: Path) -> None:
        """Raises `ConfigError` if the folder is no run or keeps no rollouts."""
        self._store = RunStore.open(folder)
        self._steps = self._store.steps_with_groups()
        if not self._steps:
            raise ConfigError(
                f'data.from_run = "{folder}" holds no rollouts: it was run with record.rollouts = false, or stopped '
                "before its first step. Name a run that keeps them."
            )
        # Every step of a run has the same number of groups; the first file says how many.
        self._per_step = len(self._store.read_groups(self._steps[0]))
        self._open: tuple[int, list[Group]] = (-1, [])

    async def group(self, step: int, index: int, samples: int, *, greedy: bool = False) -> Group:
        """Return recorded group `index` as a group of `step`, its first `samples` attempts.

        Turns keep the versions of the run that recorded them. Raises `ConfigError` if it has fewer attempts, or no
        greedy one where `greedy` asks for it.
        """
        group = self._group(index)
        if len(group.rollouts) < samples:
            raise ConfigError(
                f'data.from_run = "{self._store.folder}" recorded {len(group.rollouts)} attempts per prompt, fewer '
                f"than explore.samples_per_prompt = {samples}. Lower the latter."
            )
        if greedy and group.greedy is None:
            raise ConfigError(
                f'data.from_run = "{self._store.folder}" recorded no greedy attempts, which algorithm.name needs. '
                "Choose another algorithm, or record a run with this one."
            )
        return replace(group, step=step, index=index, rollouts=group.rollouts[:samples])

    def _group(self, index: int) -> Group:
        at, place = divmod(index % (len(self._steps) * self._per_step), self._per_step)
        if self._open[0] != at:
            self._open = (at, self._store.read_groups(self._steps[at]))
        return self._open[1][place]
