"""Asking an engine's server: JSON there and back, and which failures mean that it is gone."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from ratchet.core.errors import ConfigError, EngineError
from ratchet.engines.elsewhere import EngineGone

KEY = "RATCHET_API_KEY"
"""Environment variable with the key of the server; none is sent if it is not set."""
PAUSE_S = 0.5
"""Between two questions whether a server is up."""


class Http:
    """One server. Every method may raise `EngineGone`: no connection, no answer in time, or an error of its own."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """**Raises**: `ConfigError` if the library it needs is not installed."""
        try:
            import httpx
        except ImportError:
            raise ConfigError(
                f'engine.url = "{url}" is a server, and asking one needs the library httpx: pip install '
                "'ratchet[remote]'."
            ) from None
        self.url = url.rstrip("/")
        key = os.environ.get(KEY)
        # No limit of connections: the engine itself decides how many answers are asked for at once.
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self._errors = (httpx.HTTPError,)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON a server answers with; None if it says nothing.

        **Raises**: `EngineError` if it refuses.
        """
        return await self._ask("POST", path, body)

    async def get(self, path: str) -> Any:
        """Return the JSON of a page; None if it is empty. **Raises**: `EngineError` if it refuses."""
        return await self._ask("GET", path, None)

    async def wait_until_up(self, path: str, within_s: float, check: Callable[[], None] = lambda: None) -> None:
        """Return when the page answers. **Raises**: `EngineGone` if it does not within `within_s`, or `check` does."""
        until = time.monotonic() + within_s
        while True:
            check()
            try:
                await self._ask("GET", path, None)
                return
            except EngineGone as gone:
                if time.monotonic() >= until:
                    raise EngineGone(f"{gone} It was waited for {within_s:g} s (engine.start_s).") from None
            await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        try:
            reply = await self._client.request(method, f"{self.url}{path}", json=body)
        except self._errors as error:
            raise EngineGone(f"{self.url} does not answer ({type(error).__name__} {error}".rstrip() + ").") from None
        if reply.status_code >= 500:
            raise EngineGone(f"{self.url}{path} failed: HTTP {reply.status_code}, {reply.text[:300].strip()}.")
        if reply.status_code >= 400:
            raise EngineError(f"{self.url}{path} refused: HTTP {reply.status_code}, {reply.text[:300].strip()}.")
        if not reply.content.strip():
            return None
        try:
            return reply.json()
        except json.JSONDecodeError:
            return None
