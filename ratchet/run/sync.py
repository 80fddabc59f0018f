"""The only backward edge: weights to the engine, each with a version and a fingerprint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ratchet.core.protocols import Engine


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Weights that will not change any more."""

    tensors: Mapping[str, Tensor]
    version: int
    fingerprint: str


class MemorySync:
    """Hands weights over inside one process."""

    def __init__(self, engine: Engine, wanted: frozenset[int], *, at_once: bool = False) -> None:
        """`wanted` are the versions the schedule will ever ask for: only these are copied, and kept until `retire`.

        With `at_once` the engine gets each of them as soon as it is there, in the middle of answers too.
        """
        self._engine, self._wanted, self._at_once = engine, wanted, at_once
        self._published: dict[int, Weights] = {}
        self._changed = asyncio.Condition()
        self.held: Weights | None = None
        """What the engine samples with."""

    async def publish(self, weights: Mapping[str, Tensor], version: int, fingerprint: str) -> None:
        """Make a version available. The weights are copied, for the trainer goes on changing them."""
        if version not in self._wanted:
            return
        async with self._changed:
            self._published[version] = frozen(weights, version, fingerprint)
            if self._at_once:
                self.hold(self._published[version])
            self._changed.notify_all()

    def offer(self, weights: Weights) -> None:
        """Make a version available before the loops begin, wanted or not: it may stand in for one that is gone."""
        self._published[weights.version] = weights

    def holds(self, version: int) -> bool:
        """Whether the engine may sample what `version` is asked for, as it stands."""
        return self._engine.version == version or (self._at_once and self._engine.version > version)

    async def arrive(self, version: int) -> None:
        """Return when the engine holds `version`, waiting for its publication if need be.

        A newer version will do where weights are loaded at once, and where the version was never kept: a run that
        goes on with another schedule may ask for one that the old schedule did not want.
        """
        if self.holds(version):
            return
        async with self._changed:
            # Versions are published in order: if a newer one is there, an absent one will not come.
            await self._changed.wait_for(lambda: any(v >= version for v in self._published))
        self.hold(self._published[min(v for v in self._published if v >= version)])

    def retire(self, oldest: int) -> None:
        """Forget versions before `oldest`: no step will ask for them again."""
        self._published = {v: w for v, w in self._published.items() if v >= oldest}

    def kept(self) -> list[Weights]:
        """Return the versions that steps to come may still ask for: what a checkpoint must save."""
        return [self._published[v] for v in sorted(self._published)]

    def hold(self, weights: Weights) -> None:
        """Load weights into the engine now."""
        self._engine.load(weights.tensors, weights.version, weights.fingerprint)
        self.held = weights


def frozen(weights: Mapping[str, Tensor], version: int, fingerprint: str) -> Weights:
    """Return a copy of weights with its name tags."""
    return Weights({name: w.detach().clone() for name, w in weights.items()}, version, fingerprint)
