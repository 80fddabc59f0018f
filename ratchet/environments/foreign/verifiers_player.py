"""A program: loads one environment of `verifiers`, tells its tasks, and plays the attempts of a run at its endpoint.

It is started by `environments/verifiers.py` with one argument, JSON, and speaks lines of JSON on its standard input and
output. It ends when its input does, so it does not outlive the run. What the environment prints goes to its error
output.

    out  {"ready": {...}} or {"refused": "..."}
    in   {"task": [split, number]}         out  {"prompt": [[role, text], ...], "answer": "..."}
    in   {"play": url}                     (no answer; attempts are taken up and ended at the endpoint)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ratchet.environments.foreign.verifiers_game import Asked, Failed, Game, Refused, load, serving
else:  # beside this file: Ratchet itself may not be there
    from verifiers_game import Asked, Failed, Game, Refused, load, serving

TOKEN = "RATCHET_SERVE_TOKEN"
TAKE_S = 60.0
"""Most seconds that a request for an attempt may take; the endpoint waits less."""


class Player:
    """Answers the run, and plays."""

    def __init__(self, game: Game, out: TextIO, at_once: int) -> None:
        self._game, self._out = game, out
        self._places = asyncio.Semaphore(at_once)
        self._playing: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Do what the run says, until it says no more."""
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            if "play" in asked:
                self._begin(self._take(asked["play"]))
            else:
                split, number = asked["task"]
                shown = self._game.shown(self._game.tasks.of(split)[number])
                self._say({"prompt": list(shown.prompt), "answer": shown.answer})
        for playing in self._playing:
            playing.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)

    async def _take(self, url: str) -> None:
        """Take attempts up until the run is over."""
        import httpx

        token = os.environ.get(TOKEN, "")
        header = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(base_url=url, timeout=TAKE_S, trust_env=False) as http:
            while True:
                await self._places.acquire()
                try:
                    answer = await http.post("/v1/attempts", headers=header)
                except httpx.TransportError:  # the run is over, and its endpoint with it
                    return
                if answer.status_code == 200:
                    given = answer.json()
                    self._begin(self._play(http, url, given["key"], given["task"]))
                    continue
                self._places.release()
                if answer.status_code not in (204, 429, 503):
                    return
                await asyncio.sleep(0.0 if answer.status_code == 204 else 1.0)

    async def _play(self, http: Any, url: str, key: str, task: Mapping[str, Any]) -> None:
        """Play an attempt to its end, and tell what it earned."""
        try:
            chosen = self._game.tasks.of(task["split"])[task["number"]]
            path, body = await self._played(chosen, f"{url}/v1", key)
            await http.post(path, json=body, headers={"authorization": f"Bearer {key}"})
        finally:
            self._places.release()

    async def _played(self, task: Any, base_url: str, key: str) -> tuple[str, dict[str, Any]]:
        try:
            earned = await self._game.play(task, base_url, key)
        except Failed as reason:
            return "/v1/attempts/failed", {"error": str(reason)}
        except Exception as error:  # an environment may raise anything, and the others go on
            return "/v1/attempts/failed", {"error": f"{type(error).__name__}: {error}"[:500]}
        body = {"reward": earned.reward, "parts": dict(earned.parts), "metrics": dict(earned.metrics)}
        return "/v1/attempts/reward", body

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._playing.add(task)
        task.add_done_callback(self._playing.discard)

    def _say(self, what: Mapping[str, Any]) -> None:
        print(json.dumps(what), file=self._out, flush=True)


def main() -> None:
    """Load the environment that the first argument describes, and serve."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, os.getcwd())  # an environment may be a file that lies there
    spec = json.loads(sys.argv[1])
    try:
        asyncio.run(_served(load(Asked(**spec["environment"])), out, spec["at_once"]))
    except Refused as reason:
        print(json.dumps({"refused": str(reason)}), file=out, flush=True)


async def _served(game: Game, out: TextIO, at_once: int) -> None:
    async with serving(game):
        sizes = {"train": len(game.tasks.train), "test": len(game.tasks.test)}
        ready = {**sizes, "form": game.form, "version": version("verifiers")}
        print(json.dumps({"ready": ready}), file=out, flush=True)
        await Player(game, out, at_once).serve()


if __name__ == "__main__":
    main()
