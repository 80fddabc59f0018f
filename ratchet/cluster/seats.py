"""Places for processes that work as one, all taken at once: the caller's own, and an actor in each of the others.

Each place is a core and, where the work is on GPUs, a GPU. The caller's own keeps Ray from giving its GPU to others.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ratchet.cluster.cluster import Cluster, in_time, line, whereabouts
from ratchet.core.errors import ConfigError, RunError

LOOK_EVERY_S = 0.5
"""Seconds between two looks for a place."""
NODE = "ray.io/node-id"
"""Ray's label of a node."""


class Seats:
    """So many places on one Ray, and what works there."""

    def __init__(self, cluster: Cluster, number: int, *, gpus: int = 0) -> None:
        """Ask for places. **Raises**: `ConfigError` or `RunError` as `Cluster.ray`."""
        self._ray, self._cluster, self._number = cluster.ray, cluster, number
        self._bundle = {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}
        here = {NODE: self._ray.get_runtime_context().get_node_id()}
        self._place = self._ray.util.placement_group(
            [self._bundle] * number, strategy="PACK", bundle_label_selector=[here, *[{}] * (number - 1)]
        )
        self._actors: list[Any] = []
        self._work: list[Any] = []
        self._facts: list[dict[str, Any]] = []

    def take(self, tell: Callable[[str], None]) -> None:
        """Return when all places are there. `tell` is told once what they wait for, where that takes long."""
        told, since = False, time.monotonic()
        while lacks := self._cluster.lacks(self._place, self._bundle, self._number):
            if not told and time.monotonic() - since > 2 * LOOK_EVERY_S:
                tell(lacks)
                told = True
            time.sleep(LOOK_EVERY_S)

    def gpu(self) -> int:
        """Return which GPU is the caller's, as torch counts those it sees. Raises `ConfigError` if it does not."""
        asked = self._ray.remote(_gpus).options(
            num_cpus=1, num_gpus=1, scheduling_strategy=self._cluster.inside(self._place)
        )
        (gpu,) = self._ray.get(asked.remote())
        return index_of(str(gpu), os.environ.get("CUDA_VISIBLE_DEVICES"))

    def start(self, work: Callable[[int, int, int, str], None]) -> None:
        """Have an actor in each place but the caller's do ``work(rank, rank on its node, ranks on its node, address)``.

        **Raises**: `RunError` if one of them does not start.
        """
        seat = self._ray.remote(_Seat)
        gpus = self._bundle.get("GPU", 0)
        for rank in range(1, self._number):
            inside = self._cluster.inside(self._place, rank)
            self._actors.append(seat.options(num_cpus=1, num_gpus=gpus, scheduling_strategy=inside).remote())
        try:
            found = self._ray.get([actor.where.remote() for actor in self._actors])
        except self._ray.exceptions.RayError as error:
            raise RunError(f"Ray does not start the {self._number} ranks: {line(error)}") from error
        addresses, self._facts = [ip for ip, _ in found], [facts for _, facts in found]
        nodes = [self._ray.get_runtime_context().get_node_id(), *(facts["ray_node"] for facts in self._facts)]
        for rank, (actor, ip) in enumerate(zip(self._actors, addresses, strict=True), start=1):
            # An actor with a GPU sees no other, so that it is the first on its node as far as torch can see.
            local = 0 if gpus else nodes[:rank].count(nodes[rank])
            self._work.append(actor.do.remote(partial(work, rank, local, nodes.count(nodes[rank]), ip)))

    def beside(self) -> int:
        """Return how many of the places are on the caller's node, its own among them."""
        here = self._ray.get_runtime_context().get_node_id()
        return 1 + [facts["ray_node"] for facts in self._facts].count(here)

    def doing(self) -> list[dict[str, Any]]:
        """Return of each actor its name and where it lives."""
        return [{"name": f"rank-{rank}", **facts} for rank, facts in enumerate(self._facts, start=1)]

    async def ended(self) -> None:
        """Return when the first actor's work has ended, well or not."""
        await asyncio.wait([asyncio.ensure_future(_quiet(work)) for work in self._work], return_when="FIRST_COMPLETED")

    def why(self, wait_s: float) -> str:
        """Return which actor died, or else which failed and with what; "" if Ray does not know within `wait_s`."""
        until = time.monotonic() + wait_s
        while True:
            failed = ""
            for facts, work in zip(self.doing(), self._work, strict=True):
                if not self._ray.wait([work], timeout=0)[0]:
                    continue
                try:
                    self._ray.get(work)
                except self._ray.exceptions.RayActorError as error:
                    return f"{facts['name']} (pid {facts['pid']} on {facts['node']}) is gone: {line(error)}"
                except self._ray.exceptions.RayError as error:
                    failed = failed or f"{facts['name']} failed: {str(error).strip().splitlines()[-1]}"
            if time.monotonic() > until:
                return failed
            time.sleep(LOOK_EVERY_S)

    def leave(self, wait_s: float) -> None:
        """Give the places back; what still works after so long is ended."""
        if self._work:
            self._ray.wait(self._work, num_returns=len(self._work), timeout=wait_s)
        in_time(self._give_back)

    def _give_back(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.util.remove_placement_group(self._place)


def index_of(gpu: str, visible: str | None) -> int:
    """Return the number that torch gives a GPU of this node in a process that sees `visible` of them, or all.

    Raises `ConfigError` if it is hidden.
    """
    if not visible:
        return int(gpu)
    seen = visible.split(",")
    if gpu not in seen:
        raise ConfigError(
            f'Ray gives this process GPU {gpu}, but CUDA_VISIBLE_DEVICES = "{visible}" hides it. Leave '
            "CUDA_VISIBLE_DEVICES out: Ray tells GPUs apart."
        )
    return seen.index(gpu)


class _Seat:
    """The actor in a place; what it does runs in its main thread, and may handle signals."""

    def where(self) -> tuple[str, dict[str, Any]]:
        import ray.util

        untyped: Any = ray.util
        return untyped.get_node_ip_address(), whereabouts()

    def do(self, work: Callable[[], None]) -> None:
        work()


def _gpus() -> Sequence[Any]:
    import ray

    found: Sequence[Any] = ray.get_gpu_ids()
    return found


async def _quiet(work: Any) -> None:
    future = asyncio.wrap_future(work.future())
    await asyncio.wait([future])
    future.exception()  # whoever asks why is told: here it is only to be known as seen
