"""A disk that takes no more: the checkpoint before stays, and the message says what to do."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import tiny_policy

from ratchet.core.errors import CheckpointError
from ratchet.run.checkpoint import RunState, list_checkpoints, newest_sound, write_checkpoint


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let the system refuse files larger than `size` bytes, as a full disk refuses any."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [64, 4096, 20_000])
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path: Path, size: int) -> None:
    policy = tiny_policy(hidden=32, intermediate=64)
    fingerprint = policy.fingerprint()
    optimiser = {f"{name}/exp_avg": weight for name, weight in policy.weights().items()}
    first = write_checkpoint(tmp_path, policy, RunState(1, 1, fingerprint), optimiser, {})
    with no_file_above(size), pytest.raises(CheckpointError, match=r"step_000002 cannot be written: .*ratchet resume"):
        write_checkpoint(tmp_path, policy, RunState(2, 2, fingerprint), optimiser, {})
    assert newest_sound(tmp_path) == (first, [])
    assert list_checkpoints(tmp_path) == [first]
    assert [p.name for p in tmp_path.iterdir()] == [first.name], "nothing half-written is left"
