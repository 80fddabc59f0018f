"""The endpoint: routes, the door, whole answers and streams. It knows HTTP; `model` knows tokens.

Everything runs in one event loop with the engine, whose pump batches whatever is asked at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ratchet.core.errors import ConfigError, RatchetError
from ratchet.core.protocols import Completion, Sampling
from ratchet.core.rollout import Tokens
from ratchet.core.tools import ToolSpec
from ratchet.serve.limits import Door, Limits
from ratchet.serve.model import Answer, Served, seeds_of
from ratchet.serve.replies import (
    CHAT,
    DONE,
    TEXT,
    Envelope,
    Shape,
    choice,
    event,
    last_piece,
    logprobs_of,
    piece,
    usage,
)
from ratchet.serve.shapes import ApiError, Asked, ChatRequest, TextRequest, read_request
from ratchet.serve.spoken import Spoken


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that was understood."""

    shape: Shape
    prompt: Tokens
    sampling: Sampling
    seeds: Sequence[int]
    tools: Sequence[ToolSpec]
    logprobs: bool
    stream: bool
    told_usage: bool


def build_app(served: Served, limits: Limits, *, token: str, hosts: Sequence[str]) -> Starlette:
    """Return the application. `token` is what clients must show, empty for none; `hosts` are the names it answers to:
    a page in a browser must not reach a local endpoint under a name of its own."""
    api = _Api(served, limits, Door(limits, token))
    routes = [
        Route("/health", api.health),
        Route("/v1/models", api.models),
        Route("/v1/models/{name:path}", api.model),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.text, methods=["POST"]),
    ]
    handlers: Any = {ApiError: _told, ConfigError: _refused, 404: _unknown, 405: _unknown}
    return Starlette(
        routes=routes,
        exception_handlers=handlers,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


class _Api:
    def __init__(self, served: Served, limits: Limits, door: Door) -> None:
        self._served, self._limits, self._door = served, limits, door

    async def health(self, request: Request) -> Response:
        """Say that it is there, to anyone."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """List the one model."""
        self._door.check_token(request.headers.get("authorization", ""))
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def model(self, request: Request) -> Response:
        """Describe the model."""
        self._door.check_token(request.headers.get("authorization", ""))
        self._check_name(request.path_params["name"])
        return JSONResponse(self._described())

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        asked = await self._read(request, ChatRequest)
        assert isinstance(asked, ChatRequest)
        tools = asked.tool_specs()
        prompt = self._served.chat_prompt(asked.conversation(), tools)
        wanted = self._wanted(asked, CHAT, prompt, asked.max_completion_tokens or asked.max_tokens, tools)
        return await self._answer(request, wanted)

    async def text(self, request: Request) -> Response:
        """Go on with a text, or with tokens."""
        asked = await self._read(request, TextRequest)
        assert isinstance(asked, TextRequest)
        tokenizer = self._served.tokenizer
        given = asked.prompt
        if not isinstance(given, str) and not all(0 <= token < tokenizer.vocab_size for token in given):
            raise ApiError(400, "prompt holds numbers that are no tokens.", code="invalid_value", param="prompt")
        prompt = tokenizer.encode(given) if isinstance(given, str) else _tokens(given)
        return await self._answer(request, self._wanted(asked, TEXT, prompt, asked.max_tokens, ()))

    async def _read(self, request: Request, kind: type[ChatRequest] | type[TextRequest]) -> Asked:
        """Return the request, once the door has let it in."""
        self._door.check_token(request.headers.get("authorization", ""))
        self._door.check_rate(request.client.host if request.client else "")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "Send content-type: application/json.", code="unsupported_media_type")
        body, most = bytearray(), self._limits.body_bytes
        async for part in request.stream():
            body += part
            if len(body) > most:
                raise ApiError(413, f"The request is larger than {most} bytes.", code="request_too_large")
        asked = read_request(kind, bytes(body))
        self._check_name(asked.model)
        return asked

    def _wanted(
        self,
        asked: ChatRequest | TextRequest,
        shape: Shape,
        prompt: Tokens,
        most: int | None,
        tools: Sequence[ToolSpec],
    ) -> Wanted:
        count = asked.n or 1
        if count > self._limits.choices:
            raise ApiError(400, f"n is above {self._limits.choices}.", code="invalid_value", param="n")
        sampling = asked.sampling(self._served.room(prompt, most, self._limits.tokens))
        told_usage = asked.stream_options is not None and asked.stream_options.include_usage
        logprobs = asked.logprobs not in (None, False)  # 0 asks for those of the sampled tokens
        stream = bool(asked.stream)
        return Wanted(shape, prompt, sampling, seeds_of(asked.seed, count), tools, logprobs, stream, told_usage)

    async def _answer(self, request: Request, wanted: Wanted) -> Response:
        self._door.enter()
        if wanted.stream:
            return _Stream(self._events(wanted), self._door)
        try:
            work = self._served.generate(wanted.prompt, wanted.sampling, wanted.seeds)
            completions = await self._bounded(_unless_gone(request, work))
        finally:
            self._door.leave()
        answers = [self._served.answer(one, wanted.sampling, wanted.tools) for one in completions]
        choices = [choice(wanted.shape, i, one, self._logprobs(wanted, one)) for i, one in enumerate(answers)]
        envelope = Envelope.of(self._served, wanted.shape)
        return JSONResponse(envelope.put(choices, piece=False, usage=usage(len(wanted.prompt), answers)))

    async def _events(self, wanted: Wanted) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream. If the client goes away this is cancelled, and its places are freed."""
        envelope, shape = Envelope.of(self._served, wanted.shape), wanted.shape
        drawn: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
        marks = self._served.marks(wanted.sampling, wanted.tools)
        spoken = [Spoken(self._served.tokenizer, marks) for _ in wanted.seeds]
        work = asyncio.ensure_future(
            self._bounded(
                self._served.generate(
                    wanted.prompt, wanted.sampling, wanted.seeds, lambda index, token: drawn.put_nowait((index, token))
                )
            )
        )
        work.add_done_callback(lambda _: drawn.put_nowait(None))
        try:
            if shape.chat:
                yield event(envelope.put([piece(shape, i, "", first=True) for i in range(len(spoken))], piece=True))
            while (token := await drawn.get()) is not None:
                if text := spoken[token[0]].add(token[1]):
                    yield event(envelope.put([piece(shape, token[0], text)], piece=True))
            answers = [self._served.answer(one, wanted.sampling, wanted.tools) for one in work.result()]
            for i, one in enumerate(answers):
                end = last_piece(shape, i, one, spoken[i].rest(one.text), self._logprobs(wanted, one))
                yield event(envelope.put([end], piece=True))
            if wanted.told_usage:
                yield event(envelope.put([], piece=True, usage=usage(len(wanted.prompt), answers)))
            yield DONE
        except ApiError as error:  # the status is sent already; clients look for errors in the stream too
            yield event(error.as_json())
        finally:
            work.cancel()

    async def _bounded(self, work: Awaitable[list[Completion]]) -> list[Completion]:
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
        return logprobs_of(wanted.shape, answer, self._served.tokenizer) if wanted.logprobs else None

    def _check_name(self, name: str) -> None:
        if name != self._served.name:
            raise ApiError(
                404, f'There is no model "{name}" here. There is "{self._served.name}".', code="model_not_found",
                param="model",
            )  # fmt: skip

    def _described(self) -> dict[str, Any]:
        return {"id": self._served.name, "object": "model", "created": self._served.created, "owned_by": "ratchet"}


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


async def _unless_gone(request: Request, work: Awaitable[list[Completion]]) -> list[Completion]:
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


def _tokens(given: Sequence[int]) -> Tokens:
    return np.array(given, dtype=np.int32)


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
