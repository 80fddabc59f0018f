"""The endpoint: routes, the door, whole answers and streams. It knows HTTP; `model` knows tokens.

Everything runs in one event loop with the engine, whose pump batches whatever is asked at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ratchet.core.errors import ConfigError, RatchetError
from ratchet.serve.limits import Door, Limits
from ratchet.serve.model import Answer, Served
from ratchet.serve.plain import Plain
from ratchet.serve.replies import (
    DONE,
    Envelope,
    choice,
    event,
    last_piece,
    logprobs_of,
    piece,
    usage,
)
from ratchet.serve.shapes import ApiError, ChatRequest, TextRequest, read_request
from ratchet.serve.spoken import Spoken
from ratchet.serve.wanted import Speaks, Wanted


def build_app(served: Served, limits: Limits, *, token: str, hosts: Sequence[str]) -> Starlette:
    """Return the application around a frozen model. `token` is what clients must show, empty for none; `hosts` are the
    names it answers to: a page in a browser must not reach a local endpoint under a name of its own."""
    door = Door(limits, token)
    return around(Plain(served, door), door, hosts=hosts)


def around(
    speaks: Speaks, door: Door, *, hosts: Sequence[str], more: Sequence[Route] = (), any_name: bool = False
) -> Starlette:
    """Return the application around whoever speaks; `more` are routes besides those of the API. With `any_name` it
    answers whatever a client calls the model."""
    api = _Api(speaks, door, any_name=any_name)
    routes = [
        Route("/health", api.health),
        Route("/v1/models", api.models),
        Route("/v1/models/{name:path}", api.model),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.text, methods=["POST"]),
        *more,
    ]
    handlers: Any = {ApiError: _told, ConfigError: _refused, 404: _unknown, 405: _unknown}
    return Starlette(
        routes=routes,
        exception_handlers=handlers,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


class _Api:
    def __init__(self, speaks: Speaks, door: Door, *, any_name: bool) -> None:
        self._speaks, self._limits, self._door, self._any_name = speaks, door.limits, door, any_name

    async def health(self, request: Request) -> Response:
        """Say that it is there, to anyone."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """List the one model."""
        self._speaks.check(header_of(request))
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def model(self, request: Request) -> Response:
        """Describe the model."""
        self._speaks.check(header_of(request))
        self._check_name(request.path_params["name"])
        return JSONResponse(self._described())

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        asked = await self._read(request, ChatRequest)
        assert isinstance(asked, ChatRequest)
        return await self._answer(request, self._speaks.chat(asked, header_of(request)))

    async def text(self, request: Request) -> Response:
        """Go on with a text, or with tokens."""
        asked = await self._read(request, TextRequest)
        assert isinstance(asked, TextRequest)
        return await self._answer(request, self._speaks.text(asked, header_of(request)))

    async def _read(self, request: Request, kind: type[ChatRequest] | type[TextRequest]) -> ChatRequest | TextRequest:
        """Return the request, once the door has let it in."""
        self._speaks.check(header_of(request))
        asked = read_request(kind, await body_of(request, self._door))
        self._check_name(asked.model)
        return asked

    async def _answer(self, request: Request, wanted: Wanted) -> Response:
        self._door.enter()
        if wanted.stream:
            return _Stream(self._events(wanted), self._door)
        try:
            answers = await self._bounded(_unless_gone(request, wanted.ask(None)))
        finally:
            self._door.leave()
        choices = [choice(wanted.shape, i, one, self._logprobs(wanted, one)) for i, one in enumerate(answers)]
        envelope = Envelope(wanted.shape, self._speaks.name, self._speaks.fingerprint)
        return JSONResponse(envelope.put(choices, piece=False, usage=usage(answers)))

    async def _events(self, wanted: Wanted) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream. If the client goes away this is cancelled, and its places are freed."""
        envelope = Envelope(wanted.shape, self._speaks.name, self._speaks.fingerprint)
        shape = wanted.shape
        drawn: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
        spoken = [Spoken(self._speaks.tokenizer, wanted.marks) for _ in range(wanted.count)]
        work = asyncio.ensure_future(self._bounded(wanted.ask(lambda index, token: drawn.put_nowait((index, token)))))
        work.add_done_callback(lambda _: drawn.put_nowait(None))
        try:
            if shape.chat:
                yield event(envelope.put([piece(shape, i, "", first=True) for i in range(len(spoken))], piece=True))
            while (token := await drawn.get()) is not None:
                if text := spoken[token[0]].add(token[1]):
                    yield event(envelope.put([piece(shape, token[0], text)], piece=True))
            answers = work.result()
            for i, one in enumerate(answers):
                end = last_piece(shape, i, one, spoken[i].rest(one.text), self._logprobs(wanted, one))
                yield event(envelope.put([end], piece=True))
            if wanted.told_usage:
                yield event(envelope.put([], piece=True, usage=usage(answers)))
            yield DONE
        except ApiError as error:  # the status is sent already; clients look for errors in the stream too
            yield event(error.as_json())
        finally:
            work.cancel()

    async def _bounded(self, work: Awaitable[Sequence[Answer]]) -> Sequence[Answer]:
        """Return what `work` does, within the time limit. **Raises**: `ApiError`."""
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await work
        except TimeoutError:
            raise ApiError(
                504, f"The answer took longer than {self._limits.seconds:g} s. Ask for fewer tokens.", code="timeout"
            ) from None
        except RatchetError as error:
            raise ApiError(500, f"The engine failed: {error}", code="engine_failed") from None

    def _logprobs(self, wanted: Wanted, answer: Answer) -> dict[str, Any] | None:
        return logprobs_of(wanted.shape, answer, self._speaks.tokenizer) if wanted.logprobs else None

    def _check_name(self, name: str) -> None:
        if name != self._speaks.name and not self._any_name:
            raise ApiError(
                404, f'There is no model "{name}" here. There is "{self._speaks.name}".', code="model_not_found",
                param="model",
            )  # fmt: skip

    def _described(self) -> dict[str, Any]:
        return {"id": self._speaks.name, "object": "model", "created": self._speaks.created, "owned_by": "ratchet"}


class _Stream(StreamingResponse):
    """A stream that holds a place until it ends, even if it never began."""

    def __init__(self, events: AsyncGenerator[bytes, None], door: Door) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._events, self._door = events, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # In place of the base's own way, which is late where events come without a pause.
        streaming = asyncio.ensure_future(self.stream_response(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({streaming, gone}, return_when=asyncio.FIRST_COMPLETED)
            if streaming.done():
                streaming.result()
        finally:
            for task in (streaming, gone):
                task.cancel()
            await asyncio.gather(streaming, gone, return_exceptions=True)
            self._door.leave()
            await self._events.aclose()


def header_of(request: Request) -> str:
    """Return the header ``Authorization``, empty if there is none."""
    return request.headers.get("authorization", "")


async def body_of(request: Request, door: Door) -> bytes:
    """Return the body of a request that the door lets in. **Raises**: `ApiError`."""
    door.check_rate(request.client.host if request.client else "")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Send content-type: application/json.", code="unsupported_media_type")
    body, most = bytearray(), door.limits.body_bytes
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise ApiError(413, f"The request is larger than {most} bytes.", code="request_too_large")
    return bytes(body)


async def _unless_gone(request: Request, work: Awaitable[Sequence[Answer]]) -> Sequence[Answer]:
    """Return what `work` does; cancel it when the client goes away, so that its places in the batch are freed."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_end_of(request))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ApiError(499, "The client went away.", code="client_closed_request")
        return doing.result()
    finally:
        doing.cancel()
        gone.cancel()


async def _end_of(request: Request) -> None:
    """Return when the client goes away."""
    await _disconnected(request.receive)


async def _disconnected(receive: Receive) -> None:
    """Return when the client goes away; its body was read, so nothing else is of interest."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _told(request: Request, error: ApiError) -> Response:
    headers = {"retry-after": str(error.retry_s)} if error.retry_s else None
    return JSONResponse(error.as_json(), error.status, headers)


def _refused(request: Request, error: ConfigError) -> Response:
    """Tell what the chat template refused."""
    return _told(request, ApiError(400, str(error), code="invalid_value", param="messages"))


def _unknown(request: Request, error: Exception) -> Response:
    known = "GET /v1/models, POST /v1/chat/completions and POST /v1/completions"
    said = f"There is no {request.method} {request.url.path} here; there are {known}."
    return _told(request, ApiError(404, said, code="not_found"))
