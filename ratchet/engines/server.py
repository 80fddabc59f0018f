"""What the servers have in common: being reached, started, waited for, and ended."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.core.errors import ConfigError
from ratchet.engines.elsewhere import EngineGone
from ratchet.engines.http import Http
from ratchet.engines.started import StartedServer


@dataclass(frozen=True, slots=True)
class Reached:
    """A server: how it is asked and, if this run started it, its process."""

    http: Http
    process: StartedServer | None
    start_s: float
    """Most seconds it may take to come up."""
    health: str = "/health"

    async def open(self) -> None:
        """Start the server if it is ours; return when it answers. **Raises**: `ConfigError` if it does not."""
        try:
            if self.process is None:
                await self.http.wait_until_up(self.health, 0.0)
            else:
                await self.reopen()
        except EngineGone as gone:
            self.end()
            fix = (
                "Look at engine.command, or raise engine.start_s."
                if self.process is not None
                else "Start it, correct the address, or set engine.command for this run to start it."
            )
            raise ConfigError(f'engine.url = "{self.http.url}": {gone} {fix}') from None

    async def reopen(self) -> None:
        """Start the server anew if it is ours; else wait for whoever owns it to bring it back."""
        if self.process is not None:
            self.process.start()
        await self.http.wait_until_up(self.health, self.start_s, self.process.check if self.process else _nothing)

    def end(self) -> None:
        """End the server if it is ours."""
        if self.process is not None:
            self.process.end()

    async def close(self) -> None:
        """End the server if it is ours, and close the connections."""
        self.end()
        await self.http.close()


def _nothing() -> None:
    return
