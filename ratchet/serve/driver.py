"""A loop for agent programs: take attempts up, play them, post what they earned. It needs httpx, and nothing of a run.

A program of any language does the same with three requests: `serve/training.py` lists them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from ratchet.core.errors import RatchetError

TAKE_S = 60.0
"""Most seconds that one request may take; the endpoint waits less for an attempt."""


class EndpointRefused(RatchetError):
    """The endpoint does not take what the program says."""


@dataclass(frozen=True, slots=True)
class Session:
    """An attempt in the hands of the program."""

    task: Mapping[str, Any]
    """``messages``, ``answer`` and ``extras`` of the task, or the ``number`` of one of the program's own; ``split``."""
    base_url: str
    """What an OpenAI client takes as base_url."""
    key: str
    """What it takes as api_key."""


Agent = Callable[[Session], float | None]
"""Plays an attempt and returns its reward, or None where the run judges it; what it raises is a failed attempt."""


def play(url: str, agent: Agent, *, workers: int = 8, token: str = "") -> int:
    """Play attempts of the run at `url`, `workers` at a time, until it is over; return how many.

    **Raises**: `EndpointRefused`, and what stands behind it, if the endpoint cannot be used as it is.
    """
    over, counted, lock = threading.Event(), [0], threading.Lock()

    def work() -> None:
        with httpx.Client(base_url=url, timeout=TAKE_S) as client:
            while not over.is_set():
                session = _taken(client, token, over)
                if session is None:
                    continue
                _posted(client, session, *_played(agent, session))
                with lock:
                    counted[0] += 1

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(work) for _ in range(workers)]:
            future.result()
    return counted[0]


def _taken(client: httpx.Client, token: str, over: threading.Event) -> Session | None:
    """Return the next attempt; None if there is none now, or the run is over."""
    try:
        answer = client.post("/v1/attempts", headers={"authorization": f"Bearer {token}"} if token else {})
    except httpx.TransportError:  # the run is over, and its endpoint with it
        over.set()
        return None
    if answer.status_code == 410:
        over.set()
        return None
    if answer.status_code in (204, 429, 503):
        return None
    if answer.status_code != 200:
        over.set()
        raise EndpointRefused(f"{client.base_url} gives no attempts: {_said(answer)}")
    given = answer.json()
    return Session(given["task"], f"{str(client.base_url).rstrip('/')}/v1", given["key"])


def _played(agent: Agent, session: Session) -> tuple[str, Mapping[str, Any]]:
    """Return what is to be posted where."""
    try:
        reward = agent(session)
    except Exception as error:  # an agent may raise anything, and the others go on
        return "/v1/attempts/failed", {"error": f"{type(error).__name__}: {error}"}
    return "/v1/attempts/reward", {} if reward is None else {"reward": reward}


def _posted(client: httpx.Client, session: Session, path: str, body: Mapping[str, Any]) -> None:
    """Post how an attempt ended. One that is over already, by its limit of time say, is counted by the run."""
    header = {"authorization": f"Bearer {session.key}"}
    try:
        answer = client.post(path, json=dict(body), headers=header)
        if answer.status_code == 400 and path.endswith("reward"):
            client.post("/v1/attempts/failed", json={"error": _said(answer)}, headers=header)
    except httpx.TransportError:
        return


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"code {answer.status_code}"
