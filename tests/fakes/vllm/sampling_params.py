"""Sampling parameters, as they were given."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace


class RequestOutputKind(Enum):
    """Whether an output holds everything so far or what is new."""

    CUMULATIVE = 0
    DELTA = 1


class SamplingParams(SimpleNamespace):
    """Fields as vLLM names them."""
