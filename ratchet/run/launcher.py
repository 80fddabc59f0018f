"""Starting the ranks of a run on this machine, and ending all of them when one dies. torchrun's own agent does it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ratchet.core.errors import RunError

GRACE_S = 30
"""Seconds that ranks have to end by themselves once they are asked to."""


def start_ranks(number: int, words: Sequence[str]) -> None:
    """Run ``ratchet WORDS`` on `number` ranks of this machine and return when all have ended.

    Raises `RunError` naming the rank that died first and how; the others are ended then.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        run_id="ratchet",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        shutdown_timeout=GRACE_S,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "ratchet", *words)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise RunError(
            f"Rank {rank} of {number} (pid {failure.pid}) {ended(failure.exitcode)}, and the others were stopped with "
            "it. What it said stands above. Go on from the last checkpoint with: ratchet resume"
        ) from None
    except SignalException as error:
        raise RunError(f"Stopped by {error.sigval.name}, and all {number} ranks with it.") from None


def ended(code: int) -> str:
    """Say how a process ended, from its exit code."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
