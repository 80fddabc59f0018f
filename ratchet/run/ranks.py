"""The ranks of a run: rank 0 works on it, the others train along as rank 0 tells them.

    rank 0                                   ranks 1, 2, ...
    ------                                   ---------------
    explores, owns the run folder            run/follow.py: hear an order, obey, hear the next
    Begin, Rehearse, Step, Save, End  -->    each order is carried out by all ranks at once

Who is alone tells nobody, so the loops need not know. If a rank dies, the others' connections to it break, and they
stop; whoever started them (torchrun, `run/launcher.py`, or `run/hosts.py` on Ray) knows which it was.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from ratchet.config.schema import RunConfig
from ratchet.core.errors import CheckpointError, ConfigError, RatchetError, RunError
from ratchet.core.rollout import Group, Positive
from ratchet.train.team import Team

LONGEST_SILENCE = timedelta(days=7)
"""How long the others wait for rank 0's next order: a step's groups may take hours. A dead rank is noticed at once."""


STEP_PATIENCE = timedelta(minutes=10)
"""How long a rank waits for another in a step, where the network between them is cut and nobody is told."""
KNOWN_WITHIN_S = 15.0
"""How long Ray may take to say which of its actors died, once connections to it are broken."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Make a trainer from a checkpoint; an earlier one is forgotten."""

    config: RunConfig
    checkpoint: Path
    moments: bool = True
    """False where the optimiser begins anew."""


@dataclass(frozen=True, slots=True)
class Rehearse:
    """Run the largest pass there can be."""

    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Step:
    """Train on groups, and once more on some answers."""

    groups: Sequence[Group]
    number: int
    again: Sequence[Positive]


@dataclass(frozen=True, slots=True)
class Save:
    """Write what this rank alone holds into a folder."""

    folder: Path


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""


Order = Begin | Rehearse | Step | Save | End


class Others(Protocol):
    """The other ranks as their starter sees them: `cluster.seats.Seats`."""

    def doing(self) -> list[dict[str, Any]]: ...

    async def ended(self) -> None: ...

    def why(self, wait_s: float) -> str: ...


class Ranks:
    """This process's place among the ranks of its run."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        control: dist.ProcessGroup | None = None,
        *,
        beside: int = 1,
        others: Others | None = None,
    ) -> None:
        """`beside` counts the ranks on this machine; `others` is there where this process has started the others."""
        self.rank, self.size, self.beside = rank, size, beside
        self._control, self._others = control, others
        self._begun = self._broken = False

    @property
    def is_broken(self) -> bool:
        """Whether another rank is known to be gone."""
        return self._broken

    def team(self, config: RunConfig) -> Team:
        """Return the ranks as those who train together."""
        return Team(self.rank, self.size, config.cluster.shard, self._control)

    def tell(self, order: Order) -> None:
        """Have the others do what rank 0 does next. Raises `RunError` when one of them is gone."""
        self._begun |= isinstance(order, Begin)
        with self.together():
            self._plain().tell(order)

    def hear(self) -> Order:
        """Return rank 0's next order. Raises `RunError` when rank 0 is gone."""
        with self.together():
            order = self._plain().hear()
        assert isinstance(order, Order)
        return order

    def save(self, folder: Path, fingerprint: str) -> None:
        """Have the others write their parts of a checkpoint. Raises `CheckpointError` if one cannot, `RunError` if one
        has come to other weights."""
        if self.size == 1 or not self._begun:  # before the others begin there is nothing that only they hold
            return
        self.tell(Save(folder))
        with self.together():
            answers = self._plain().gathered(("", fingerprint))
        for rank, (wrong, made) in enumerate(answers):
            if wrong:
                raise CheckpointError(f"Rank {rank} cannot write its part of {folder}: {wrong}.")
            if made not in ("", fingerprint):
                raise RunError(
                    f"Rank {rank} has come to weights {made}, rank 0 to {fingerprint}: they do not train the same "
                    "model any more. The checkpoints are untouched; go on from the last one with: ratchet resume"
                )

    def saved(self, wrong: str, fingerprint: str) -> None:
        """Answer rank 0's `save`: what went wrong, and the weights this rank has, if it has them whole."""
        with self.together():
            self._plain().gathered((wrong, fingerprint))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do what all ranks do at once. Raises `RunError` when one of them is gone."""
        try:
            yield
        except RatchetError:
            raise  # all of them have met it
        except RuntimeError as error:
            self._broken = True
            if self.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            # gloo begins with the place in its own source, in brackets.
            what = str(error).splitlines()[0].rpartition("] ")[2]
            raise self._lost(f" ({what[:160]})") from error

    def end(self) -> None:
        """Let the others end, if they still listen."""
        if self.rank == 0 and self.size > 1 and not self._broken:
            self.tell(End())

    async def ended(self) -> None:
        """Return never, or raise `RunError` where one of the others ends while the run goes on, also between steps."""
        if self._others is None:
            await asyncio.Event().wait()
        else:
            await self._others.ended()
            self._broken = True
            raise self._lost("")

    def doing(self) -> list[dict[str, Any]]:
        """Return of each of the others its name and where it lives, where this process has started them."""
        return [] if self._others is None else self._others.doing()

    def _lost(self, what: str) -> RunError:
        why = "Whoever started the ranks says which one ended and how"
        if self._others is not None:
            why = self._others.why(KNOWN_WITHIN_S) or "Ray does not say which"
        return RunError(
            f"Rank {self.rank} of {self.size} lost another rank of this run{what}. {why}. Go on with: ratchet resume"
        )

    def _plain(self) -> Team:
        return Team(self.rank, self.size, "none", self._control)


def started_as_rank() -> bool:
    """Return whether torchrun, or something like it, started this process as one of several ranks."""
    return all(name in os.environ for name in ("RANK", "MASTER_ADDR")) and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_follower() -> bool:
    """Return whether this process is a rank that follows rank 0."""
    return started_as_rank() and os.environ["RANK"] != "0"


@contextmanager
def connected() -> Iterator[Ranks]:
    """Give this process's place among the ranks that torchrun started, once all are there; alone, the only one."""
    if not started_as_rank():
        yield Ranks()
        return
    gpu = torch.cuda.is_available()
    if gpu:
        here, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
        if local >= here:
            raise ConfigError(
                f"Rank {os.environ['RANK']} is number {local} on this machine, which has {here} GPUs: start as many "
                "ranks per machine as it has GPUs."
            )
        torch.cuda.set_device(local)
    dist.init_process_group(backend(gpu), timeout=STEP_PATIENCE)
    with grouped(beside=int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) as ranks:
        yield ranks


@contextmanager
def grouped(*, beside: int, others: Others | None = None) -> Iterator[Ranks]:
    """Give this process's place in torch's group of processes; at the end let the others end, and leave the group."""
    try:
        control = dist.new_group(backend="gloo", timeout=LONGEST_SILENCE)
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), control, beside=beside, others=others)
        try:
            yield ranks
        finally:
            ranks.end()
    finally:
        dist.destroy_process_group()


def backend(gpu: bool) -> str:
    """Return torch's name of how ranks exchange tensors."""
    return "cpu:gloo,cuda:nccl" if gpu else "gloo"


def check_number(config: RunConfig, size: int) -> None:
    """Raise `ConfigError` where the config asks for another number of ranks than were started."""
    asked = config.cluster.ranks
    if asked not in (1, size):
        raise ConfigError(
            f"cluster.ranks = {asked}, but {size} were started. Leave cluster.ranks out under torchrun, or start the "
            "run without torchrun: ratchet train starts its ranks itself."
        )
