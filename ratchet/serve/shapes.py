"""What a request may ask, and the shapes of answers and errors, as in OpenAI's API.

A setting that this endpoint cannot honour is refused, never passed over: an answer that quietly ignored it would be
another answer than the one asked for. What only labels a request (``user``, ``metadata``) is taken and not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.core.protocols import Sampling
from ratchet.core.task import Message
from ratchet.core.tools import ToolSpec, written


class ApiError(Exception):
    """A request that gets an error of HTTP, in the shape the API's clients read."""

    def __init__(self, status: int, message: str, *, code: str, param: str = "", retry_s: int = 0) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_s = status, message, code, param, retry_s

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param or None, "code": self.code}}


class StreamOptions(BaseModel):
    """How a stream is sent."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool = False


class Asked(BaseModel):
    """What both kinds of requests have in common."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    presence_penalty: float | None = Field(None, ge=0, le=0)
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def sampling(self, max_tokens: int) -> Sampling:
        """Return how the answer is drawn."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stop) > 4 or not all(stop):
            raise ApiError(
                400, "stop takes one to four strings that are not empty.", code="invalid_value", param="stop"
            )
        return Sampling(
            max_tokens,
            1.0 if self.temperature is None else self.temperature,
            1.0 if self.top_p is None else self.top_p,
            self.top_k or 0,
            stop,
        )


class TextRequest(Asked):
    """A request for a completion."""

    prompt: str | list[int]
    max_tokens: int | None = Field(None, ge=1)
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    best_of: Literal[1] | None = None
    logprobs: Literal[0, 1] | None = None


class ChatRequest(Asked):
    """A request for a chat completion."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: Literal[0] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None

    def conversation(self) -> tuple[Message, ...]:
        """Return the messages as the chat template takes them. **Raises**: `ApiError`."""
        return tuple(_message(number, given) for number, given in enumerate(self.messages))

    def tool_specs(self) -> tuple[ToolSpec, ...]:
        """Return the tools the model may call. **Raises**: `ApiError`."""
        if self.tool_choice == "none":
            return ()
        return tuple(_tool(number, given) for number, given in enumerate(self.tools or ()))


def read_request(kind: type[ChatRequest] | type[TextRequest], body: bytes) -> ChatRequest | TextRequest:
    """Return a request. **Raises**: `ApiError` naming the first parameter that cannot be used."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not JSON: {error}.", code="invalid_json") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][:1]) or "body"
        if first["type"] == "extra_forbidden":
            raise ApiError(
                400, f"This endpoint does not know the parameter {param}.", code="unknown_parameter", param=param
            ) from None
        raise ApiError(
            400, f"{param}: {first['msg']}. This endpoint cannot honour it.", code="invalid_value", param=param
        ) from None


def _message(number: int, given: Mapping[str, Any]) -> Message:
    role, content = given.get("role"), given.get("content")
    where = f"messages[{number}]"
    if role == "developer":
        role = "system"
    if role not in ("system", "user", "assistant", "tool"):
        raise ApiError(400, f"{where}.role is {role!r}.", code="invalid_value", param="messages")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if any(not isinstance(part, str) for part in parts):
            raise ApiError(400, f"{where}.content: only text is understood.", code="invalid_value", param="messages")
        content = "".join(str(part) for part in parts)
    calls = given.get("tool_calls") or []
    if content is None and role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise ApiError(400, f"{where}.content is no text.", code="invalid_value", param="messages")
    try:
        return Message(role, content + "".join(_written(call["function"]) for call in calls))
    except (KeyError, TypeError, ValueError):
        raise ApiError(
            400, f"{where}.tool_calls: each needs function.name and function.arguments as JSON.", code="invalid_value",
            param="messages",
        ) from None  # fmt: skip


def _written(function: Mapping[str, Any]) -> str:
    arguments = json.loads(function.get("arguments") or "{}")
    if not isinstance(arguments, dict):
        raise ValueError("arguments are an object")
    return written(str(function["name"]), arguments)


def _tool(number: int, given: Mapping[str, Any]) -> ToolSpec:
    function = given.get("function")
    if given.get("type") != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError(
            400, f'tools[{number}] is no {{"type": "function", "function": {{"name": ...}}}}.', code="invalid_value",
            param="tools",
        )  # fmt: skip
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, dict):
        raise ApiError(400, f"tools[{number}].function.parameters is no schema.", code="invalid_value", param="tools")
    return ToolSpec(function["name"], str(function.get("description") or ""), {}, schema=schema or {"type": "object"})
