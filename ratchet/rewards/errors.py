"""What can go wrong with a reward; none of it ends a run.

    RewardError           asked for a score, got none
    ├── RewardTimeout     Status.REWARD_TIMEOUT: it did not return in time, and its process was killed
    ├── RewardFailed      Status.REWARD_ERROR: it raised, or its process died
    └── RewardInvalid     Status.REWARD_INVALID: it returned something that is not a finite number

The attribute `status` says what becomes of the rollout.
"""

from __future__ import annotations

from ratchet.core.errors import RatchetError
from ratchet.core.rollout import Status


class RewardError(RatchetError):
    """A reward was asked for a score and gave none."""

    status = Status.REWARD_ERROR
    """What becomes of the rollout."""


class RewardTimeout(RewardError):
    """The reward did not return within its limit and was killed."""

    status = Status.REWARD_TIMEOUT


class RewardFailed(RewardError):
    """The reward raised, could not be loaded, or its process died."""


class RewardInvalid(RewardError):
    """The reward returned something that is not a finite number."""

    status = Status.REWARD_INVALID
