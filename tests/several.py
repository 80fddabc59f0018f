"""The same function on several ranks, as forked processes that talk by gloo: no rank loads its libraries anew."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist

from ratchet.train.team import Team

PATIENCE_S = 60.0


def on_ranks(size: int, shard: Literal["none", "full"], meet: Path, work: Callable[[Team], Any]) -> list[Any]:
    """Return what `work` returns on each rank of a team; `meet` is a file that is not there yet."""

    def connected(rank: int) -> Any:
        patience = timedelta(seconds=PATIENCE_S)
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size, timeout=patience)
        answer = work(Team(rank, size, shard, dist.new_group(backend="gloo")))
        dist.barrier()
        dist.destroy_process_group()
        return answer

    answers = [answer for _, answer in forked(size, connected)]
    assert all(answer is not None for answer in answers)
    return answers


def under_torchrun(size: int, work: Callable[[int], Any]) -> list[tuple[int, Any]]:
    """Return exit code and answer of `work` on each rank, with the environment that torchrun gives to ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def named(rank: int) -> Any:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return work(rank)

    return forked(size, named)


def forked(size: int, work: Callable[[int], Any]) -> list[tuple[int, Any]]:
    """Return exit code and answer of `work` in each of several processes; a dead one has no answer, an error is raised.

    Answers are pickled whole: a tensor that is sent otherwise lives only as long as its process.
    """
    context = multiprocessing.get_context("fork")
    ends, processes = [], []
    for rank in range(size):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_live, args=(rank, work, theirs), daemon=True)
        process.start()
        theirs.close()
        ends.append(mine)
        processes.append(process)
    answers: list[Any] = []
    for rank, end in enumerate(ends):
        assert end.poll(PATIENCE_S), f"rank {rank} says nothing"
        try:
            good, answer = pickle.loads(end.recv_bytes())
        except EOFError:
            good, answer = True, None
        assert good, f"rank {rank}: {answer}"
        answers.append(answer)
    for process in processes:
        process.join(PATIENCE_S)
    return [(p.exitcode, answer) for p, answer in zip(processes, answers, strict=True)]


def _live(rank: int, work: Callable[[int], Any], end: Connection) -> None:
    try:
        end.send_bytes(pickle.dumps((True, work(rank))))
    except BaseException:
        end.send_bytes(pickle.dumps((False, traceback.format_exc())))
