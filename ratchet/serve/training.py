"""The endpoint of a run that trains on what an agent program does through it.

    POST /v1/attempts           200 {"key": ..., "task": {...}}; 204: none waits, ask again; 410: the run is over
    POST /v1/chat/completions   with the key as API key: a turn of the attempt
    POST /v1/attempts/reward    with the key: {"reward": 1.0, "parts": {...}}, or {} where the run judges
    POST /v1/attempts/failed    with the key: {"error": "..."}: counted, not trained on

It lives in a thread of its own, so that it answers while a step is trained; attempts live in the run's event loop.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ratchet.core.errors import RatchetError
from ratchet.core.load import require_library
from ratchet.core.protocols import AgentFailed, PromptTooLong, Sampling, Within
from ratchet.core.rollout import Score
from ratchet.environments.agents import Agents, Attempt, as_json
from ratchet.policy.tokenizer import Tokenizer
from ratchet.serve.address import hosts_of, listen, shown, token_for
from ratchet.serve.app import around, body_of, header_of
from ratchet.serve.conversations import Conversations
from ratchet.serve.limits import Door, Limits
from ratchet.serve.model import Answer, marks_of
from ratchet.serve.replies import CHAT
from ratchet.serve.shapes import ApiError, ChatRequest, TextRequest
from ratchet.serve.wanted import Told, Wanted, wants_logprobs, wants_usage

T = TypeVar("T")
NAME = "policy"
"""What clients call the model; any other name is answered too, since agent programs have their own."""
WAIT_S = 20.0
"""Seconds that a request for an attempt waits before it is told that there is none."""
LOOK_S = 0.02
"""Seconds between two looks for an attempt."""
_STOP_S = 5.0


class Earned(BaseModel):
    """What a program posts at the end of an attempt."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    reward: float | None = None
    parts: dict[str, float] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)


class Failed(BaseModel):
    """What a program posts when an attempt cannot go on."""

    model_config = ConfigDict(extra="forbid")
    error: str = "The program gave the attempt up."


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """See `wanted.Speaks`: the policy of a run, asked by attempts that hold keys."""

    agents: Agents
    tokenizer: Tokenizer
    sampling: Sampling
    """How the run samples."""
    created: int = field(default_factory=lambda: int(time.time()))
    name: str = NAME
    fingerprint: str = ""
    _conversations: dict[str, Conversations] = field(default_factory=dict)

    def check(self, header: str) -> None:
        self.attempt(header)

    def attempt(self, header: str) -> Attempt:
        """Return the attempt that a request belongs to. **Raises**: `ApiError`."""
        attempt = self.agents.find(header.removeprefix("Bearer ").strip())
        if attempt is None:
            raise ApiError(
                401, "The API key must be that of an attempt that goes on: POST /v1/attempts gives one.",
                code="invalid_api_key",
            )  # fmt: skip
        return attempt

    def chat(self, asked: ChatRequest, header: str) -> Wanted:
        attempt, tools = self.attempt(header), asked.tool_specs()
        messages, stop = asked.conversation(), asked.sampling(1).stop
        self._check_sampling(asked)
        limit = asked.max_completion_tokens or asked.max_tokens or 0

        async def ask(told: Told | None) -> list[Answer]:
            loop = asyncio.get_running_loop()

            def hear(token: int) -> None:
                assert told is not None
                loop.call_soon_threadsafe(told, 0, token)

            within = Within(limit, stop, hear if told else None)
            return [await self.there(lambda: self._turn(attempt, messages, asked.messages, tools, within))]

        marks = marks_of(self.tokenizer, stop, tools)
        return Wanted(CHAT, 1, ask, marks, wants_logprobs(asked), bool(asked.stream), wants_usage(asked))

    def text(self, asked: TextRequest, header: str) -> Wanted:
        raise ApiError(
            400, "A run trains on conversations: use /v1/chat/completions.", code="invalid_value", param="prompt"
        )

    async def there(self, begin: Callable[[], Coroutine[Any, Any, T] | asyncio.Future[T]]) -> T:
        """Return what some work does in the event loop of the run. **Raises**: `ApiError` if the run is not sampling.

        The work is begun there and not here: what is handed over at the very end of that loop is then simply dropped.
        Work that is done at once gives a future that is done, so that no task is left over when that loop ends.
        """
        loop, here = self.agents.loop, asyncio.get_running_loop()
        waiting: asyncio.Future[T] = here.create_future()
        begun: list[asyncio.Future[T]] = []

        def start() -> None:
            begun.append(asyncio.ensure_future(begin()))
            if begun[0].done():
                hand_back(begun[0])
            else:
                begun[0].add_done_callback(hand_back)

        def hand_back(task: asyncio.Future[T]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            with suppress(RuntimeError):  # the endpoint is closed, and nobody waits
                here.call_soon_threadsafe(settle, task, error)

        def settle(task: asyncio.Future[T], error: BaseException | None) -> None:
            if waiting.done():
                return
            if isinstance(error, asyncio.CancelledError):
                waiting.set_exception(_not_sampling())
            elif error is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(task.result())

        try:
            if loop is None:
                raise _not_sampling()
            loop.call_soon_threadsafe(start)
            while not (await asyncio.wait({waiting}, timeout=1.0))[0]:
                if loop.is_closed():
                    raise _not_sampling()
            return waiting.result()
        except RuntimeError as error:  # the loop was closed before the work was handed over
            if loop is not None and loop.is_closed():
                raise _not_sampling() from error
            raise
        finally:
            waiting.cancel()
            if begun and loop is not None and not begun[0].done():
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(begun[0].cancel)

    async def _turn(
        self,
        attempt: Attempt,
        messages: Sequence[Any],
        given: Sequence[Mapping[str, Any]],
        tools: Sequence[Any],
        within: Within,
    ) -> Answer:
        """Return the policy's next turn; in the event loop of the run."""
        kept = self._conversations
        for key in [key for key in kept if self.agents.find(key) is None]:
            del kept[key]
        conversations = kept.setdefault(attempt.key, Conversations(attempt.handle, self.tokenizer))
        try:
            answer = await conversations.answer(messages, given, tools, within)
        except PromptTooLong as error:
            attempt.too_long = str(error)
            raise ApiError(
                400, f"{str(error).capitalize()}. Nothing is cut: say less.", code="context_length_exceeded",
                param="messages",
            ) from None  # fmt: skip
        except RatchetError as error:
            self.agents.stop(attempt, error)
            raise
        attempt.said, attempt.turns = answer.text, attempt.turns + 1
        attempt.conversations = len(conversations)
        return answer

    def _check_sampling(self, asked: ChatRequest) -> None:
        """Raise `ApiError` for a request that asks for another distribution than the run trains on, or for more than
        one answer."""
        if (asked.n or 1) != 1:
            raise ApiError(400, "A turn is one answer: n is 1.", code="invalid_value", param="n")
        if asked.seed is not None:
            raise ApiError(
                400, "The run draws by seeds of its own: leave seed out.", code="invalid_value", param="seed"
            )
        if self.agents.keep_sampling:
            return
        for param, was in (("temperature", asked.temperature), ("top_p", asked.top_p), ("top_k", asked.top_k)):
            runs = {
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "top_k": self.sampling.top_k,
            }[param]
            if was is not None and was != runs:
                raise ApiError(
                    400,
                    f"The run samples with {param} = {runs:g}, and trains on that distribution; this asks for {was:g}. "
                    f"Leave {param} out, set explore.{param} to it, or set environment.keep_sampling = true.",
                    code="invalid_value",
                    param=param,
                )


def _done(result: T) -> asyncio.Future[T]:
    """Return a future of the running loop that has its result."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def _not_sampling() -> ApiError:
    return ApiError(503, "The run is not sampling. Ask again.", code="not_sampling", retry_s=1)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The routes by which a program takes attempts up and ends them."""

    training: Training
    over: threading.Event
    """Set when the run is over."""
    door: Door
    """Asks those who take attempts up for the token; whoever holds a key needs none."""
    wait_s: float = WAIT_S

    def routes(self) -> list[Route]:
        """Return them."""
        return [
            Route("/v1/attempts", self.take, methods=["POST"]),
            Route("/v1/attempts/reward", self.reward, methods=["POST"]),
            Route("/v1/attempts/failed", self.failed, methods=["POST"]),
        ]

    async def take(self, request: Request) -> Response:
        """Give an attempt that waits, once there is one."""
        self.door.check_token(header_of(request))
        self.door.check_rate(request.client.host if request.client else "")
        try:
            async with asyncio.timeout(self.wait_s):
                while (attempt := await self._next()) is None:
                    if self.over.is_set():
                        raise ApiError(410, "The run is over.", code="run_over")
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            return Response(status_code=204)
        return JSONResponse({"key": attempt.key, "task": as_json(attempt)})

    async def _next(self) -> Attempt | None:
        try:
            return await self.training.there(lambda: _done(self.training.agents.take()))
        except ApiError:  # the run has not begun to sample, or is done with it
            return None

    async def reward(self, request: Request) -> Response:
        """End an attempt with its reward."""
        attempt = self.training.attempt(header_of(request))
        earned = _read(Earned, await body_of(request, self.door))
        if earned.reward is None and earned.parts:
            raise ApiError(400, "parts are those of a reward: give reward too.", code="invalid_value", param="parts")
        score = None if earned.reward is None else Score(earned.reward, earned.parts)
        try:
            agents = self.training.agents
            value = await self.training.there(lambda: agents.finish(attempt, score, earned.metrics))
        except AgentFailed as error:
            raise ApiError(400, str(error), code="invalid_value", param="reward") from None
        return JSONResponse({"reward": value if math.isfinite(value) else None})

    async def failed(self, request: Request) -> Response:
        """End an attempt that failed."""
        attempt = self.training.attempt(header_of(request))
        told = _read(Failed, await body_of(request, self.door))

        def fail() -> asyncio.Future[None]:
            self.training.agents.fail(attempt, told.error)
            return _done(None)

        await self.training.there(fail)
        return JSONResponse({})


Body = TypeVar("Body", bound=BaseModel)


def _read(kind: type[Body], body: bytes) -> Body:
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or "body"
        raise ApiError(400, f"{param}: {first['msg']}.", code="invalid_value", param=param) from None


class TrainingEndpoint:
    """The endpoint, in a thread, until it is closed."""

    def __init__(self, agents: Agents, tokenizer: Tokenizer, sampling: Sampling, limits: Limits) -> None:
        """**Raises**: `ConfigError` for an address that cannot be had, or a token that is missing."""
        require_library("uvicorn", extra="serve", purpose='environment.name = "agents"')
        import uvicorn

        token = token_for(agents.host, "environment.host =")
        listening = listen(agents.host, agents.port, "environment.host", "environment.port")
        port = listening.getsockname()[1]
        self.url = f"http://{shown(agents.host)}:{port}"
        self._over = threading.Event()
        door, training = Door(limits, token), Training(agents, tokenizer, sampling)
        app = around(
            training,
            door,
            hosts=hosts_of(agents.host),
            more=Attempts(training, self._over, door).routes(),
            any_name=True,
        )
        settings = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2, ws="none")
        self._server, self._listening = uvicorn.Server(settings), listening
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="endpoint", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End it; who still waits gets an error."""
        self._over.set()
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        self._listening.close()


def opener(
    agents: Agents, tokenizer: Tokenizer, sampling: Sampling, limits: Limits | None = None
) -> Callable[[], TrainingEndpoint]:
    """Return what makes the endpoint of a run; None for the usual limits."""
    return lambda: TrainingEndpoint(agents, tokenizer, sampling, limits or Limits())
