"""Frozen agents behind a URL: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ratchet.core.errors import ConfigError
from ratchet.core.protocols import AgentFailed, PromptTooLong, Sampling
from ratchet.core.rollout import StopReason, Turn
from ratchet.core.tools import ToolCall, written
from ratchet.explore.handle import Opened, Round, bounded

KEY = "RATCHET_API_KEY"
"""Environment variable with the key of the server; none is sent if it is not set."""
ATTEMPTS = 3
"""How often a request is sent to a server that is busy or does not answer."""
_PAUSE_S = 1.0
"""Before the second attempt; doubled before the third."""
_NO_FLOATS = np.zeros(0, dtype=np.float32)


class RemoteSpeaker:
    """Speaks through a server. Its tokens are not known: a turn records its texts and how many tokens there were."""

    def __init__(self, url: str, model: str, sampling: Sampling, *, timeout_s: float) -> None:
        """`url` ends where ``/chat/completions`` follows, ``http://127.0.0.1:8000/v1`` say.

        **Raises**: `ConfigError` if the library it needs is not installed.
        """
        try:
            import httpx
        except ImportError:
            raise ConfigError(
                f'subagent.policy = "{url}" is a server, and asking one needs the library httpx: pip install '
                "'ratchet[remote]'."
            ) from None
        key = os.environ.get(KEY)
        self._url, self._model, self._sampling = url.rstrip("/"), model, sampling
        self._client = httpx.AsyncClient(
            timeout=timeout_s, headers={"Authorization": f"Bearer {key}"} if key else {}, limits=httpx.Limits()
        )
        self._errors = (httpx.HTTPError,)

    async def speak(self, opened: Opened, seed: int, began: float) -> tuple[Turn, tuple[ToolCall, ...]]:
        """Send the whole conversation; see `handle.Speaker`. **Raises**: `AgentFailed`, `PromptTooLong`."""
        started, sampling = time.perf_counter(), bounded(self._sampling, opened.within)
        answer = await self._post(
            {
                "model": self._model,
                "messages": _conversation(opened),
                "max_tokens": sampling.max_tokens,
                "temperature": self._sampling.temperature,
                "top_p": self._sampling.top_p,
                "seed": seed % (1 << 31),
                **({"stop": list(sampling.stop)} if sampling.stop else {}),
                **({"tools": [tool.as_json() for tool in opened.tools]} if opened.tools else {}),
            }
        )
        try:
            choice, usage = answer["choices"][0], answer.get("usage") or {}
            message = choice["message"]
            calls = tuple(_call(one["function"]) for one in message.get("tool_calls") or ())
            text = message.get("content") or ""
            sampled = int(usage.get("completion_tokens", 0))
            stop = StopReason.LENGTH if choice.get("finish_reason") == "length" else StopReason.END
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise AgentFailed(f"{self._url} answered in no form of a chat completion ({error!r})") from None
        turn = Turn(
            prompt=np.zeros(0, dtype=np.int32),
            output=np.full(sampled, -1, dtype=np.int32),  # as many as the server counted; it does not say which
            logprobs=_NO_FLOATS,
            log_kept=_NO_FLOATS,
            version=-1,
            last_version=-1,
            fingerprint="",
            stop=stop,
            text=text + "".join(written(call.name, call.arguments) for call in calls),
            seconds=time.perf_counter() - started,
            began=began,
        )
        return turn, calls

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the server's answer, asked again a few times while it is busy."""
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE_S * 2 ** (attempt - 1))
            try:
                reply = await self._client.post(f"{self._url}/chat/completions", json=body)
            except self._errors as error:
                reason = f"{type(error).__name__} {error}".strip()
                continue
            if reply.status_code == 200:
                try:
                    found = reply.json()
                except json.JSONDecodeError:
                    raise AgentFailed(f"{self._url} answered with something that is no JSON") from None
                return found if isinstance(found, dict) else {}
            reason = f"HTTP {reply.status_code}: {reply.text[:200]}"
            if "context" in reply.text and reply.status_code == 400:
                raise PromptTooLong(reason)
            if reply.status_code not in (408, 409, 425, 429) and reply.status_code < 500:
                break
        raise AgentFailed(f"{self._url} does not answer ({reason})")


def _conversation(opened: Opened) -> list[dict[str, Any]]:
    """Return the whole conversation in the API's form; results name the calls they answer."""
    messages: list[dict[str, Any]] = []
    waiting: list[str] = []
    for number, one in enumerate((*opened.rounds, None)):
        for message in opened.messages if one is None else one.messages:
            told: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.role == "tool":
                told["tool_call_id"] = waiting.pop(0) if waiting else f"call_{number}_more"
            messages.append(told)
        if one is not None:
            waiting = [f"call_{number}_{i}" for i in range(len(one.calls))]
            messages.append(_answer(one, waiting))
    return messages


def _answer(one: Round, ids: list[str]) -> dict[str, Any]:
    if not one.calls:
        return {"role": "assistant", "content": one.turn.text}
    calls = [
        {
            "id": name,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for name, call in zip(ids, one.calls, strict=True)
    ]
    said = one.turn.text.partition("<tool_call>")[0]
    return {"role": "assistant", "content": said or None, "tool_calls": calls}


def _call(function: Mapping[str, Any]) -> ToolCall:
    name, text = str(function["name"]), function.get("arguments") or "{}"
    try:
        arguments = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return ToolCall(name, error="the arguments are no JSON")
    if not isinstance(arguments, dict):
        return ToolCall(name, error="the arguments are no JSON object")
    return ToolCall(name, arguments)
