"""What bounds a client: size, rate, number at once, time; and who may ask at all."""

from __future__ import annotations

import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ratchet.serve.shapes import ApiError

CLIENTS_KEPT = 4096
"""Clients whose rate is remembered; the longest silent is forgotten first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one endpoint."""

    body_bytes: int = 4 << 20
    """Largest request."""
    per_minute: int = 6000
    """Requests of one client in a minute; a burst may use them at once."""
    at_once: int = 256
    """Requests being answered at the same time, of all clients."""
    seconds: float = 600.0
    """Most seconds of one answer."""
    choices: int = 64
    """Most answers to one request."""
    tokens: int = 0
    """Most new tokens of an answer; 0: what the context holds."""


class Door:
    """Lets requests in, or says why not. One event loop; nothing here waits."""

    def __init__(self, limits: Limits, token: str, now: Callable[[], float] = time.monotonic) -> None:
        """`token` is what a client must show; empty lets everyone in."""
        self.limits, self._token, self._now = limits, token, now
        self._inside = 0
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> (requests left, when counted)

    def check_token(self, header: str) -> None:
        """**Raises**: `ApiError` unless the header ``Authorization`` shows the token."""
        if self._token and not hmac.compare_digest(header.encode(), f"Bearer {self._token}".encode()):
            raise ApiError(401, "This endpoint needs its token as API key.", code="invalid_api_key")

    def check_rate(self, client: str) -> None:
        """Count a request of a client. **Raises**: `ApiError` if it has used up its minute."""
        per_second, now = self.limits.per_minute / 60, self._now()
        left, then = self._left.pop(client, (float(self.limits.per_minute), now))
        left = min(float(self.limits.per_minute), left + (now - then) * per_second)
        allowed = left >= 1
        self._left[client] = (left - allowed, now)
        if len(self._left) > CLIENTS_KEPT:
            self._left.popitem(last=False)
        if not allowed:
            wait = math.ceil((1 - left) / per_second)
            raise ApiError(
                429, f"More than {self.limits.per_minute} requests in a minute. Try again in {wait} s.",
                code="rate_limit_exceeded", retry_s=wait,
            )  # fmt: skip

    def enter(self) -> None:
        """Take a place; give it back with `leave`. **Raises**: `ApiError` if there is none."""
        if self._inside >= self.limits.at_once:
            raise ApiError(
                429, f"{self._inside} requests are being answered already. Try again in a second.",
                code="rate_limit_exceeded", retry_s=1,
            )  # fmt: skip
        self._inside += 1

    def leave(self) -> None:
        """Give a place back."""
        self._inside -= 1

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *ended: object) -> None:
        self.leave()
