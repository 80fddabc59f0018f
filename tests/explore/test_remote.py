"""Asking a server for turns: what is sent, what becomes of the answer, and what of a server that misbehaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from chat_server import ChatServer, calls, completion, serving

from ratchet.core.protocols import AgentFailed, PromptTooLong, Reply, Sampling
from ratchet.core.rollout import StopReason, Turn
from ratchet.core.task import Message
from ratchet.core.tools import ToolSpec
from ratchet.explore import remote
from ratchet.explore.handle import RecordingHandle
from ratchet.explore.remote import KEY, RemoteSpeaker

SAMPLING = Sampling(max_tokens=64, temperature=0.7, top_p=0.9)
FIND = ToolSpec("find", "Finds.", {"text": "what"})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long before asking again."""
    monkeypatch.setattr(remote, "_PAUSE_S", 0.01)


@asynccontextmanager
async def speaking(server: ChatServer, timeout_s: float = 5.0) -> AsyncIterator[RecordingHandle]:
    speaker = RemoteSpeaker(server.url, "some-model", SAMPLING, timeout_s=timeout_s)
    try:
        yield RecordingHandle(speaker, lambda: speaker, seed=1)
    finally:
        await speaker.close()


def ask(server: ChatServer, *tools: ToolSpec, timeout_s: float = 5.0) -> Reply:
    async def one() -> Reply:
        async with speaking(server, timeout_s) as handle:
            return await handle.chat([Message("user", "hello")], tools)

    return asyncio.run(one())


def test_a_turn_is_asked_for_as_the_api_describes_it() -> None:
    async def talk(server: ChatServer) -> tuple[Reply, Turn]:
        async with speaking(server) as handle:
            reply = await handle.chat([Message("system", "be kind"), Message("user", "hello")])
            return reply, handle.trajectories()[0].turns[0]

    with serving(lambda body: {"content": "good day"}) as server:
        reply, turn = asyncio.run(talk(server))
    assert (reply.text, reply.num_tokens, reply.stop) == ("good day", 8, StopReason.END)
    body = server.asked[0]
    assert body["messages"] == [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("some-model", 64, 0.7, 0.9)
    assert "tools" not in body
    assert turn.text == "good day", "the text is kept"
    assert len(turn.output) == 8, "and how many tokens it was, which nobody else knows"
    assert server.keys == [None]


def test_tool_calls_and_their_results_keep_their_ids() -> None:
    replies: Iterator[Mapping[str, Any]] = iter(
        [calls(("find", {"text": "a"}), ("find", {"text": "b"})), {"content": "both found"}]
    )

    async def talk(server: ChatServer) -> tuple[Reply, Reply]:
        async with speaking(server) as handle:
            first = await handle.chat([Message("user", "find a and b")], [FIND])
            return first, await handle.chat([Message("tool", "one"), Message("tool", "two")], [FIND])

    with serving(lambda body: next(replies)) as server:
        first, second = asyncio.run(talk(server))
    assert [(call.name, dict(call.arguments)) for call in first.calls] == [
        ("find", {"text": "a"}),
        ("find", {"text": "b"}),
    ]
    assert second.text == "both found"
    assert not second.calls
    assert server.asked[0]["tools"][0]["function"]["name"] == "find"
    _, assistant, one, two = server.asked[1]["messages"]
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert [one["tool_call_id"], two["tool_call_id"]] == ids
    assert len(set(ids)) == 2
    assert (one["content"], two["content"]) == ("one", "two")


@pytest.mark.parametrize(
    ("arguments", "error"), [("{broken", "no JSON"), ("[1, 2]", "no JSON object"), ("", ""), ('{"text": "x"}', "")]
)
def test_arguments_that_are_no_object_are_a_bad_call_and_not_a_crash(arguments: str, error: str) -> None:
    with serving(lambda body: calls(("find", arguments))) as server:
        (call,) = ask(server, FIND).calls
    assert (error in call.error) if error else not call.error


def test_a_turn_that_was_cut_says_so() -> None:
    with serving(lambda body: completion({"content": "and so"}, finish="length")) as server:
        assert ask(server).stop is StopReason.LENGTH


def test_a_busy_server_is_asked_again() -> None:
    replies: Iterator[Mapping[str, Any] | tuple[int, str]] = iter([(503, "busy"), (429, "slow down"), {"content": "x"}])
    with serving(lambda body: next(replies)) as server:
        assert ask(server).text == "x"
    assert len(server.asked) == 3


def test_a_refusal_is_not_asked_again() -> None:
    with serving(lambda body: (401, "no key")) as server, pytest.raises(AgentFailed, match="HTTP 401: no key"):
        ask(server)
    assert len(server.asked) == 1


def test_a_prompt_above_the_context_is_told_as_such() -> None:
    text = "This model's maximum context length is 4096 tokens."
    with serving(lambda body: (400, text)) as server, pytest.raises(PromptTooLong, match="4096"):
        ask(server)


@pytest.mark.parametrize("answer", [{"choices": []}, {"choices": "none"}, {"choices": [{"message": 3}]}])
def test_an_answer_of_another_form_fails_the_agent(answer: Mapping[str, Any]) -> None:
    with serving(lambda body: answer) as server, pytest.raises(AgentFailed, match="no form of a chat completion"):
        ask(server)


def test_a_server_that_hangs_is_given_up() -> None:
    def hang(body: Mapping[str, Any]) -> Mapping[str, Any]:
        time.sleep(0.5)
        return {"content": "late"}

    with serving(hang) as server, pytest.raises(AgentFailed, match=r"does not answer.*Timeout"):
        ask(server, timeout_s=0.05)


def test_nobody_at_the_address_fails_the_agent() -> None:
    with serving(lambda body: {"content": "x"}) as server:
        pass
    with pytest.raises(AgentFailed, match="does not answer"):
        ask(server)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    with serving(lambda body: {"content": "x"}) as server:
        ask(server)
    assert server.keys == ["Bearer secret"]
