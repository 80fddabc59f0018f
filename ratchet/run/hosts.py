"""The processes of a run: how its ranks come to be, and the Ray that its explorers live on.

    started by                  rank 0                         ranks 1, 2, ...
    torchrun, run/launcher.py   one of what they start         the others
    this process, on Ray        this process                   actors in places of their own

Either way rank 0 works on the run and the others follow it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from ratchet.cluster.cluster import Cluster, check_address
from ratchet.cluster.host import say_into
from ratchet.cluster.seats import Seats
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError, RunError
from ratchet.run.follow import follow
from ratchet.run.observer import Observer
from ratchet.run.policies import choose_device
from ratchet.run.ranks import (
    KNOWN_WITHIN_S,
    STEP_PATIENCE,
    Ranks,
    backend,
    check_number,
    connected,
    grouped,
    started_as_rank,
)

MEET_WITHIN = timedelta(minutes=5)
"""How long ranks on Ray, once they have their places, may take to find each other."""
GRACE_S = 30.0
"""Seconds that ranks on Ray have to end by themselves."""
INTERFACE = "GLOO_SOCKET_IFNAME"
"""Where gloo is told which network to use. Left alone it goes by the machine's name, often an address of no network."""


class Hosts(NamedTuple):
    """See the top of this file."""

    ranks: Ranks
    cluster: Cluster


@contextmanager
def hosted(config: RunConfig, observer: Observer) -> Iterator[Hosts]:
    """Give this process's place among the ranks of a run, once all are there, and the Ray of its explorers.

    Raises `ConfigError` for a number of ranks that was not started, or a Ray that is not there; `RunError` when the
    ranks do not find each other.
    """
    asked = config.cluster
    check_address(asked.address)
    cluster = Cluster(asked.address, room=asked.explorers + asked.environments + asked.ranks)
    with closing(cluster):
        if asked.name == "ray" and not started_as_rank():
            with _seated(config, cluster, observer) as ranks:
                yield Hosts(ranks, cluster)
        else:
            _check_gpus(config)
            with connected() as ranks:
                check_number(config, ranks.size)
                yield Hosts(ranks, cluster)


@contextmanager
def _seated(config: RunConfig, cluster: Cluster, observer: Observer) -> Iterator[Ranks]:
    """Give rank 0 among ranks on Ray; alone, it takes a place only where Ray would give its GPU to others."""
    number, gpus = config.cluster.ranks, int(choose_device(config).type == "cuda")
    if number == 1 and not (gpus and torch.cuda.device_count() > 1 and cluster.gpus_here() > 1):
        yield Ranks()
        return
    seats, grace_s = Seats(cluster, number, gpus=gpus), 0.0
    try:
        seats.take(lambda lacks: observer.note(f"Training waits for {lacks}"))
        if gpus:
            torch.cuda.set_device(seats.gpu())
        if number == 1:
            yield Ranks()
            return
        host = cluster.ip()
        _use_network_of(host)
        meeting = _meeting(host, 0, number, is_master=True)
        seats.start(partial(_follow, host=host, port=meeting.port, size=number, gpu=bool(gpus)))
        try:
            dist.init_process_group(
                backend(bool(gpus)), timeout=STEP_PATIENCE, store=meeting, rank=0, world_size=number
            )
        except RuntimeError as error:
            why = seats.why(KNOWN_WITHIN_S) or "Ray knows of none that ended"
            raise RunError(
                f"The {number} ranks do not find each other ({str(error).splitlines()[0][:160]}). {why}. {INTERFACE} "
                "names the network they meet on."
            ) from error
        with grouped(beside=seats.beside(), others=seats) as ranks:
            try:
                yield ranks
            finally:
                grace_s = 0.0 if ranks.is_broken else GRACE_S
    finally:
        seats.leave(grace_s)


def _follow(rank: int, local: int, beside: int, ip: str, *, host: str, port: int, size: int, gpu: bool) -> None:
    """Follow rank 0, in a place of a rank's own."""
    _use_network_of(ip)
    if gpu:
        torch.cuda.set_device(local)
    meeting = _meeting(host, port, size)
    dist.init_process_group(backend(gpu), timeout=STEP_PATIENCE, store=meeting, rank=rank, world_size=size)
    with grouped(beside=beside) as ranks:
        follow(ranks, lambda folder: say_into(folder / "logs" / f"rank-{rank}.txt"))


def _meeting(host: str, port: int, size: int, *, is_master: bool = False) -> Any:
    """Return where ranks exchange addresses; rank 0 keeps it."""
    return dist.TCPStore(  # type: ignore[attr-defined]  # torch exports it, but does not say so
        host, port, size, is_master=is_master, timeout=MEET_WITHIN, wait_for_workers=False
    )


def _use_network_of(ip: str) -> None:
    """Have gloo use the network that an address of this machine belongs to, unless it is told another."""
    if sys.platform == "linux":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for _, name in socket.if_nameindex():
                try:
                    asked = struct.pack("256s", name.encode())
                    answer = fcntl.ioctl(any_socket, 0x8915, asked)  # SIOCGIFADDR, see netdevice(7)
                except OSError:
                    continue  # it has no IPv4 address
                if socket.inet_ntoa(answer[20:24]) == ip:
                    os.environ.setdefault(INTERFACE, name)


def _check_gpus(config: RunConfig) -> None:
    """Raise `ConfigError` where Ray would give explorers the GPUs of ranks that torchrun started."""
    asked = config.cluster
    if asked.name == "ray" and not asked.address and choose_device(config).type == "cuda":
        raise ConfigError(
            'cluster.name = "ray" under torchrun: a Ray that the run starts does not know which GPUs the ranks use. '
            "Leave torchrun out and set cluster.ranks, so that Ray places the ranks, too; or start a Ray on other GPUs "
            "(CUDA_VISIBLE_DEVICES=4,5,6,7 ray start --head) and set cluster.address."
        )
