"""The tree of errors. A message says what happened, to what, and what to do.

    RatchetError             something a person should read; the command line prints it without a traceback
    ├── ConfigError          the user's input cannot be used: exit code 2
    │   └── ModelError       a model folder cannot be used
    ├── AttemptLost          whoever played an attempt is gone: it is played anew
    └── RunError             a run cannot go on: exit code 1
        ├── EngineError      an engine elsewhere died twice, or holds other weights than it was given: exit code 2
        ├── GateError        sampler and trainer disagree before the first step
        ├── NumericsError    a number that must be finite is not
        └── CheckpointError  a checkpoint is damaged or cannot be written

A rollout that fails is not an error but a `Status` (see `core.rollout`): it is counted, not raised.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RatchetError(Exception):
    """Something a person should read; the command line prints it without a traceback."""


class ConfigError(RatchetError):
    """The user's input cannot be used: exit code 2."""


class ModelError(ConfigError):
    """A model folder cannot be used as asked."""


class AttemptLost(RatchetError):
    """Whoever played an attempt is gone, and what was said in it with it. Played anew it comes out as it would have."""


class RunError(RatchetError):
    """A run cannot go on: exit code 1."""


class EngineError(RunError):
    """An engine elsewhere died twice, or holds other weights than it was given. A person must look: exit code 2."""


class GateError(RunError):
    """Sampler and trainer disagree about log-probabilities before the first step."""


class NumericsError(RunError):
    """A loss, a gradient or a log-probability is not finite."""


class CheckpointError(RunError):
    """A checkpoint is damaged or cannot be written."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean "..."?`` for the closest known name, or a list of what is known."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f' Did you mean "{close[0]}"?'
    return f" Known: {', '.join(known)}." if known else ""
