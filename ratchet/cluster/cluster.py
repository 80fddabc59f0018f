"""The Ray that a run lives on: one that runs already, or one that is started on this machine and ends with the run."""

from __future__ import annotations

import atexit
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ratchet.core.errors import ConfigError, RunError
from ratchet.core.load import require_library

ANSWERS_S = 5.0
"""How long a machine at `cluster.address` may take to answer."""

ENDS_S = 15.0
"""How long Ray may take to end something."""


class Cluster:
    """A Ray that is joined, or started, when it is first asked for."""

    def __init__(self, address: str = "", *, room: int = 1) -> None:
        """`address` is that of a running Ray; empty starts one with room for so many processes of one core each."""
        self._address, self._room = address, room
        self._ray: Any = None

    @property
    def ray(self) -> Any:
        """The module, with this process connected.

        **Raises**: `ConfigError` if ray is missing, or there is no Ray at the address; `RunError` if it does not start.
        """
        if self._ray is None:
            require_library("ray", extra="ray", purpose='cluster.name = "ray"')
            import ray
            import ray.util
            import ray.util.scheduling_strategies

            self._connect(ray)
            self._ray = ray
        return self._ray

    def close(self) -> None:
        """Leave Ray, and end it if it was started here."""
        if self._ray is not None and not in_time(self._ray.shutdown):
            atexit.unregister(self._ray.shutdown)  # else Ray tries it once more, and waits for its head once more
        self._ray = None

    def ip(self) -> str:
        """Return the address that other nodes reach this one by."""
        return str(self.ray.util.get_node_ip_address())

    def gpus_here(self) -> float:
        """Return how many GPUs this node gives to Ray."""
        here = self.ray.get_runtime_context().get_node_id()
        (node,) = (node for node in self.ray.nodes() if node["NodeID"] == here)
        return float(node["Resources"].get("GPU", 0))

    def inside(self, place: Any, bundle: int = 0) -> Any:
        """Return the strategy that puts an actor into a placement group, into one bundle of it."""
        strategies = self.ray.util.scheduling_strategies
        return strategies.PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=bundle)

    def lacks(self, place: Any, bundle: Mapping[str, float], number: int = 1) -> str:
        """Return what a placement group of so many bundles waits for, and how much is free; "" once it has it."""
        if self.ray.util.placement_group_table(place)["state"] == "CREATED":
            return ""
        return self.wants(bundle, number)

    def wants(self, bundle: Mapping[str, float], number: int = 1) -> str:
        """Return in words so many bundles, and how much is free."""
        here, free = self.ray.cluster_resources(), self.ray.available_resources()
        counts = (f"{free.get(kind, 0):g} of {here.get(kind, 0):g} {kind}s are free" for kind in bundle)
        wanted = " and ".join(f"{count:g} {kind}" for kind, count in bundle.items())
        places = f"a node with {wanted} free" if number == 1 else f"{number} places with {wanted} each"
        return f"{places}; on all nodes together {', '.join(counts)}"

    def _connect(self, ray: Any) -> None:
        quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        try:
            if self._address:
                ray.init(address=self._address, **quiet)
            else:
                # One of its own, whatever Ray runs beside: without "local" that would be joined. Its workers yield to
                # everything else on their machine unless told otherwise.
                own: dict[str, Any] = {"num_cpus": self._room, "_system_config": {"worker_niceness": 0}}
                ray.init(address="local", include_dashboard=False, **own, **quiet)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            if not self._address:
                raise RunError(f"Ray does not start on this machine: {line(error)}") from error
            raise ConfigError(
                f'cluster.address = "{self._address}": there is no Ray that lets this run in ({line(error)}). If it '
                "runs, its nodes must have the same versions of Ray and Python, and if it asks for a token (ray start "
                "says so), set RAY_AUTH_MODE=token here. Else start one with ray start --head, or leave "
                "cluster.address out."
            ) from None


def in_time(do: Callable[[], object], within_s: float = ENDS_S) -> bool:
    """Do what ends something on Ray, and return whether that took no longer than it may.

    Where Ray's head is gone it never returns; Ray itself ends what belonged to a run that is over.
    """
    doing = threading.Thread(target=do, daemon=True)
    doing.start()
    doing.join(within_s)
    return not doing.is_alive()


def check_address(address: str) -> None:
    """Raise `ConfigError` unless something answers at a Ray's address; "auto" is looked for by Ray itself, later."""
    host, _, port = address.rpartition(":")
    if address in ("", "auto"):
        return
    if not host or not port.isdecimal():
        raise ConfigError(f'cluster.address = "{address}" is none: write host:port, 10.0.0.1:6379 say, or auto.')
    try:
        socket.create_connection((host, int(port)), ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f'cluster.address = "{address}": nothing answers there ({error}). Start Ray with ray start --head, or '
            "leave cluster.address out."
        ) from None


def line(error: Exception) -> str:
    """Return what an error of Ray says, on one line; of one about an actor, what became of it."""
    said = " ".join(str(error).split())
    begins = (said.find(f"The actor {what} because") for what in ("is dead", "died"))
    return said[max(0, *begins) :][:300]


def whereabouts() -> dict[str, Any]:
    """Return where this process lives: its number, its machine's name, and Ray's name of its node."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return {"pid": os.getpid(), "node": socket.gethostname(), "ray_node": node}
