"""The server: addresses, and the stream that tells pages what has changed. Answers are computed in `board`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ratchet.board.board import Board, as_query
from ratchet.board.curve import plain
from ratchet.board.guard import LOOPBACK, Guard, refusal
from ratchet.core.errors import ConfigError, RatchetError

STATIC = Path(__file__).parent / "static"
LOOK_EVERY_S = 1.0
"""Between two looks for changes while a page is open."""
LEAVE_WITHIN_S = 0.5
"""A stream notices within this time that the server is about to end."""
STILL_HERE_EVERY = 15
"""Looks without a change after which the stream says that it lives."""
MOST_BODY_BYTES = 1 << 16

Answer = Callable[[Board, Request], Any]


def make_app(
    board: Board,
    *,
    token: str = "",
    hosts: Iterable[str] = LOOPBACK,
    leaving: Callable[[], bool] = lambda: False,
) -> Starlette:
    """Return the application. With a `token` everybody must bring it; without, only `hosts` are answered.

    `leaving` says that the server is about to end, so that streams end by themselves and it need not wait for them.
    """
    assets = read_assets()
    stream = Stream(board, leaving)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        stream.close()
        board.close()

    routes = [
        Route("/", _page(assets)),
        Route("/static/{name:path}", _asset(assets)),
        Route("/api/changes", stream.answer),
        *(Route(path, _get(answer)) for path, answer in GETS.items()),
        Route("/api/runs/{id}/acts", _post(_act), methods=["POST"]),
        Route("/api/runs/{id}/tags", _post(_tags), methods=["POST"]),
    ]
    guard = Middleware(Guard, token=token, hosts=frozenset(hosts))
    app = Starlette(
        routes=routes, middleware=[guard, Middleware(GZipMiddleware, minimum_size=2048, compresslevel=3)], lifespan=life
    )
    app.state.board = board
    return app


def read_assets() -> Mapping[str, bytes]:
    """Return the files of the page by name. Addresses are looked up here, so none can lead out of the folder."""
    return {p.relative_to(STATIC).as_posix(): p.read_bytes() for p in sorted(STATIC.rglob("*")) if p.is_file()}


def _page(assets: Mapping[str, bytes]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        return Response(assets["index.html"], media_type="text/html", headers={"cache-control": "no-cache"})

    return answer


def _asset(assets: Mapping[str, bytes]) -> Callable[[Request], Any]:
    marks = {name: f'"{hashlib.blake2b(data, digest_size=8).hexdigest()}"' for name, data in assets.items()}

    async def answer(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in assets:
            return refusal(404, "There is no such file.")
        headers = {"etag": marks[name], "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == marks[name]:
            return Response(status_code=304, headers=headers)
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        return Response(assets[name], media_type=kind, headers=headers)

    return answer


def _get(answer: Answer) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        return await _answered(lambda: answer(request.app.state.board, request))

    return respond


def _post(act: Callable[[Board, str, Mapping[str, Any]], Any]) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BODY_BYTES:
                return refusal(413, "That is too long.")
        try:
            tree = json.loads(body)
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            return refusal(400, "A JSON object was expected.")
        return await _answered(lambda: act(request.app.state.board, request.path_params["id"], tree))

    return respond


async def _answered(work: Callable[[], Any]) -> Response:
    """Return what `work` returns as JSON, computed in a thread; an error of ours as a sentence."""
    try:
        found = await run_in_threadpool(work)
    except ConfigError as error:
        return refusal(404, str(error))
    except RatchetError as error:
        return refusal(500, str(error))
    body = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})


def _series(board: Board, request: Request) -> Any:
    asked = request.query_params
    names = asked.getlist("m")
    return board.series(
        request.path_params["id"],
        names,
        axis=asked.get("x", "step"),
        points=_int(asked.get("points", "1200")),
        window=asked.get("smooth", "auto"),
        low=_float(asked.get("from", "")),
        high=_float(asked.get("to", "")),
    )


def _compare(board: Board, request: Request) -> Any:
    asked = request.query_params
    return board.compare(
        asked.getlist("run"),
        asked.getlist("m"),
        axis=asked.get("x", "step"),
        points=min(5000, max(2, _int(asked.get("points", "600")))),
        window=asked.get("smooth", "auto"),
        by_seed=asked.get("seeds", "") == "mean",
    )


def _attempt(board: Board, request: Request) -> Any:
    asked = request.path_params
    number = -1 if asked["attempt"] == "greedy" else _int(asked["attempt"])
    return plain(board.attempt(asked["id"], asked["step"], asked["index"], number))


def _act(board: Board, id_: str, body: Mapping[str, Any]) -> Any:
    step, text = body.get("step", -1), body.get("text", "")
    if not isinstance(step, int) or not isinstance(text, str):
        raise ConfigError("A step is a whole number, and a note is text.")
    return board.act(id_, str(body.get("act", "")), step=step, text=text)


def _tags(board: Board, id_: str, body: Mapping[str, Any]) -> Any:
    tags = body.get("tags")
    if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags):
        raise ConfigError("Tags are a list of words.")
    board.library.get(id_)
    return {"tags": board.tags.put(id_, tags)}


def _int(text: str) -> int:
    if not text.isdecimal() or len(text) > 12:
        raise ConfigError(f'"{text}" is no whole number.')
    return int(text)


def _float(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise ConfigError(f'"{text}" is no number.') from None


GETS: Mapping[str, Answer] = {
    "/api/runs": lambda b, r: b.runs(),
    "/api/compare": _compare,
    "/api/runs/{id}": lambda b, r: b.run(r.path_params["id"]),
    "/api/runs/{id}/series": _series,
    "/api/runs/{id}/ledger": lambda b, r: b.ledger(r.path_params["id"]),
    "/api/runs/{id}/steps": lambda b, r: b.steps(r.path_params["id"]),
    "/api/runs/{id}/search": lambda b, r: plain(b.search(r.path_params["id"], as_query(r.query_params))),
    "/api/runs/{id}/tasks/{task}": lambda b, r: plain(b.same_task(r.path_params["id"], r.path_params["task"])),
    "/api/runs/{id}/steps/{step:int}": lambda b, r: plain(b.groups(r.path_params["id"], r.path_params["step"])),
    "/api/runs/{id}/steps/{step:int}/{index:int}": lambda b, r: plain(
        b.group(r.path_params["id"], r.path_params["step"], r.path_params["index"])
    ),
    "/api/runs/{id}/steps/{step:int}/{index:int}/{attempt}": _attempt,
}


class Stream:
    """Server-sent events: what has changed, by id. A page then asks for what it shows.

    One look serves all pages, and nobody looks while no page is open.
    """

    def __init__(self, board: Board, leaving: Callable[[], bool] = lambda: False) -> None:
        self._board, self._leaving = board, leaving
        self._pages: set[asyncio.Queue[str]] = set()
        self._looker: asyncio.Task[None] | None = None
        self._boot = secrets.token_hex(8)

    def close(self) -> None:
        """End the streams, so that the server can end."""
        if self._looker is not None:
            self._looker.cancel()
        for page in self._pages:
            page.put_nowait("")

    async def answer(self, request: Request) -> Response:
        """Return a stream for one page."""
        page: asyncio.Queue[str] = asyncio.Queue()
        # A page that finds another number here knows that the server was started anew, and asks for everything.
        page.put_nowait(f"retry: 1000\nevent: hello\ndata: {self._boot}\n\n")
        return StreamingResponse(
            self._told(page), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _told(self, page: asyncio.Queue[str]) -> AsyncIterator[str]:
        self._pages.add(page)
        if self._looker is None or self._looker.done():
            self._looker = asyncio.get_running_loop().create_task(self._look())
        try:
            while not self._leaving():
                try:
                    text = await asyncio.wait_for(page.get(), LEAVE_WITHIN_S)
                except TimeoutError:
                    continue
                if not text:
                    return
                yield text
        finally:
            self._pages.discard(page)

    async def _look(self) -> None:
        quiet = 0
        while self._pages:
            changed = await run_in_threadpool(self._board.changes)
            quiet = 0 if changed else quiet + 1
            if changed or quiet % STILL_HERE_EVERY == 0:
                text = f"event: changed\ndata: {json.dumps(changed)}\n\n" if changed else ": still here\n\n"
                for page in self._pages:
                    page.put_nowait(text)
            await asyncio.sleep(LOOK_EVERY_S)
