"""The endpoint as the official client sees it."""

from __future__ import annotations

import asyncio
import json
import string
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import tiny_policy

from ratchet.core.protocols import Request, Sampling
from ratchet.core.rollout import StopReason
from ratchet.engines.build import local_engine
from ratchet.engines.local import generate_all
from ratchet.engines.scripted import ScriptedEngine
from ratchet.policy.tokenizer import Tokenizer, tiny_tokenizer
from ratchet.serve.limits import Door, Limits
from ratchet.serve.model import Served

openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

from ratchet.serve.app import build_app  # noqa: E402
from ratchet.serve.shapes import ApiError  # noqa: E402

TOKENIZER = tiny_tokenizer(["<tool_call>", "</tool_call>"], string.printable)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
HELLO = [{"role": "user", "content": "hello"}]


def scripted(answer: Callable[[str, int], str], context: int = 2000) -> Served:
    engine = ScriptedEngine(TOKENIZER, answer, context=context)
    engine.load({}, 0, "abc")
    return Served("tiny", engine, TOKENIZER, context, "abc", 1)


def native(seed: int = 0) -> Served:
    policy = tiny_policy(seed=seed)
    engine = local_engine(policy, context=96, max_rows=8)
    engine.load(policy.weights(), 0, policy.fingerprint())
    return Served("tiny", engine, policy.tokenizer, 96, policy.fingerprint(), 1)


@asynccontextmanager
async def client_of(served: Served, limits: Limits, token: str = "", key: str = "none") -> AsyncIterator[Any]:
    app = build_app(served, limits, token=token, hosts=["127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws="none"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0)
    try:
        yield client
    finally:
        await client.close()
        server.should_exit = True
        await task


def asked(
    served: Served, talk: Callable[[Any], Awaitable[Any]], limits: Limits | None = None, token: str = "", key: str = "x"
) -> Any:
    """Return what `talk` returns, given a client of an endpoint around `served`."""

    async def play() -> Any:
        async with client_of(served, limits or Limits(), token, key) as client:
            return await talk(client)

    return asyncio.run(play())


def refused(served: Served, limits: Limits | None = None, token: str = "", key: str = "x", **request: Any) -> Any:
    """Return the error that a chat request gets."""

    async def talk(client: Any) -> Any:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**{"model": "tiny", "messages": HELLO, **request})
        return caught.value

    return asked(served, talk, limits, token, key)


def test_a_chat_is_answered_with_text_reason_and_token_counts() -> None:
    served = scripted(lambda prompt, seed: f"You said: {prompt}")
    got = asked(served, lambda c: c.chat.completions.create(model="tiny", messages=HELLO))
    assert got.choices[0].message.content == "You said: hello"
    assert got.choices[0].finish_reason == "stop"
    assert got.usage.completion_tokens == len("You said: hello") + 1
    assert got.usage.prompt_tokens == len("hello") + 2
    assert got.system_fingerprint == "abc"


def test_a_stream_holds_the_same_text_in_pieces_and_the_usage_where_asked() -> None:
    served = scripted(lambda prompt, seed: "one two three")

    async def talk(client: Any) -> list[Any]:
        stream = await client.chat.completions.create(
            model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        return [piece async for piece in stream]

    pieces = asked(served, talk)
    texts = [p.choices[0].delta.content for p in pieces if p.choices and p.choices[0].delta.content]
    assert "".join(texts) == "one two three"
    assert len(texts) == len("one two three")
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [p.choices[0].finish_reason for p in pieces if p.choices][-1] == "stop"
    assert pieces[-1].usage.completion_tokens == len("one two three") + 1


def test_stop_strings_end_an_answer_and_stand_in_neither_form_of_it() -> None:
    served = scripted(lambda prompt, seed: "left STOP right")

    async def talk(client: Any) -> tuple[Any, str]:
        request = {"model": "tiny", "messages": HELLO, "stop": ["STOP", "STUFF"]}
        whole = await client.chat.completions.create(**request)
        stream = await client.chat.completions.create(**request, stream=True)
        return whole.choices[0], "".join([p.choices[0].delta.content or "" async for p in stream])

    whole, streamed = asked(served, talk)
    assert (whole.message.content, whole.finish_reason) == ("left ", "stop")
    assert streamed == "left "


def test_tools_are_told_to_the_model_and_its_calls_come_back_as_calls_whole_and_streamed() -> None:
    prompts = []

    def answer(prompt: str, seed: int) -> str:
        prompts.append(prompt)
        return 'Let me look. <tool_call>{"name": "weather", "arguments": {"place": "Oslo", "days": 2}}</tool_call>'

    async def talk(client: Any) -> tuple[Any, list[Any], str]:
        request = {"model": "tiny", "messages": HELLO, "tools": [WEATHER]}
        whole = await client.chat.completions.create(**request)
        stream = await client.chat.completions.create(**request, stream=True)
        pieces = [p.choices[0] async for p in stream]
        calls = [call for p in pieces for call in p.delta.tool_calls or []]
        return whole.choices[0], calls, "".join(p.delta.content or "" for p in pieces)

    whole, calls, text = asked(scripted(answer), talk)
    assert '"days": {"type": "integer"}' in prompts[0]
    for call in (whole.message.tool_calls[0], calls[0]):
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"place": "Oslo", "days": 2}
    assert (whole.message.content, text) == ("Let me look. ", "Let me look. ")
    assert whole.finish_reason == "tool_calls"


def test_results_of_tools_and_earlier_calls_reach_the_model() -> None:
    prompts = []

    def answer(prompt: str, seed: int) -> str:
        prompts.append(prompt)
        return "warm"

    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Oslo"}'}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "20 degrees"}]},
    ]
    asked(scripted(answer), lambda c: c.chat.completions.create(model="tiny", messages=messages, tools=[WEATHER]))
    assert '"name": "weather", "arguments": {"place": "Oslo"}' in prompts[0]
    assert prompts[0].endswith("20 degrees")


def test_tokens_and_log_probabilities_are_those_of_the_engine_and_requests_share_its_batches() -> None:
    served = native()
    prompt = served.tokenizer.encode("1+1=")
    alone = generate_all(served.engine, [Request(prompt, Sampling(12), seed) for seed in (1, 2, 3)])

    async def talk(client: Any) -> list[Any]:
        requests = [
            client.completions.create(model="tiny", prompt="1+1=", max_tokens=12, seed=seed, logprobs=1)
            for seed in (1, 2, 3)
        ]
        return list(await asyncio.gather(*requests))

    for got, one in zip(asked(served, talk), alone, strict=True):
        assert got.choices[0].text == served.tokenizer.decode(one.output)
        assert np.allclose(got.choices[0].logprobs.token_logprobs, one.logprobs, atol=1e-5)
        assert got.choices[0].finish_reason == ("length" if one.stop is StopReason.LENGTH else "stop")


def test_several_answers_to_one_request_differ_and_a_seed_repeats_them() -> None:
    request = {"model": "tiny", "messages": [{"role": "user", "content": "1+1"}], "n": 3, "seed": 5, "max_tokens": 10}

    async def talk(client: Any) -> list[list[str]]:
        both = [await client.chat.completions.create(**request) for _ in range(2)]
        return [[choice.message.content for choice in got.choices] for got in both]

    first, second = asked(native(), talk)
    assert first == second
    assert len(set(first)) == 3


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place(stream: bool) -> None:
    served = scripted(lambda prompt, seed: "x" * 1900)

    async def talk(client: Any) -> int:
        body = json.dumps({"model": "tiny", "messages": HELLO, "stream": stream}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        _, out = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        out.write(head.encode() + body)
        await until(lambda: served.engine.in_flight == 1)
        out.close()
        return await until(lambda: served.engine.in_flight == 0)

    # The engine says one token a turn of the event loop: by itself it would be done after 1,900 of them.
    assert asked(served, talk) < 1000


async def until(true: Callable[[], bool]) -> int:
    """Return after how many turns of the event loop something is true."""
    for turn in range(100_000):
        if true():
            return turn
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


def test_a_base_model_without_a_chat_template_completes_texts_and_is_no_party_to_a_chat() -> None:
    settings = {name: value for name, value in TOKENIZER.settings.items() if name != "chat_template"}
    base = Tokenizer(TOKENIZER.backend, settings, TOKENIZER.end_tokens)
    assert (TOKENIZER.converses, base.converses) == (True, False)
    served = replace(scripted(lambda prompt, seed: f"{prompt} there"), tokenizer=base)
    got = asked(served, lambda c: c.completions.create(model="tiny", prompt="hello"))
    assert got.choices[0].text == "hello there"
    error = refused(served)
    assert (error.status_code, "no chat template" in error.message) == (400, True)


def test_models_are_listed_and_another_name_is_an_error() -> None:
    served = scripted(lambda prompt, seed: "x")
    assert [m.id for m in asked(served, lambda c: c.models.list()).data] == ["tiny"]
    error = refused(served, model="huge")
    assert (error.status_code, error.code, error.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("request_", "status", "code", "said"),
    [
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"temperature": 3}, 400, "invalid_value", "temperature"),
        ({"presence_penalty": 1}, 400, "invalid_value", "presence_penalty"),
        ({"tool_choice": "required"}, 400, "invalid_value", "tool_choice"),
        ({"response_format": {"type": "json_object"}}, 400, "invalid_value", "response_format"),
        ({"extra_body": {"beam": 4}}, 400, "unknown_parameter", "does not know the parameter beam"),
        ({"messages": [{"role": "boss", "content": "x"}]}, 400, "invalid_value", "messages[0].role is 'boss'"),
        ({"messages": [{"role": "user", "content": "x" * 3000}]}, 400, "context_length_exceeded", "Nothing is cut"),
        ({"n": 1000}, 400, "invalid_value", "n is above 64"),
        ({"stop": ["a"] * 5}, 400, "invalid_value", "one to four"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_the_apis_shape(
    request_: dict[str, Any], status: int, code: str, said: str
) -> None:
    error = refused(scripted(lambda prompt, seed: "x"), **request_)
    assert (error.status_code, error.code) == (status, code)
    assert said in error.message


def test_size_rate_number_and_time_are_limited() -> None:
    slow = scripted(lambda prompt, seed: "x" * 1900)
    assert refused(slow, Limits(body_bytes=50)).status_code == 413
    late = refused(slow, Limits(seconds=1e-6))
    assert (late.status_code, late.code) == (504, "timeout")
    full = refused(slow, Limits(at_once=0))
    assert (full.status_code, full.code, full.response.headers["retry-after"]) == (429, "rate_limit_exceeded", "1")


def test_a_client_has_its_minute_and_time_gives_it_back() -> None:
    now = [0.0]
    door = Door(Limits(per_minute=2), "", lambda: now[0])
    door.check_rate("a")
    door.check_rate("a")
    door.check_rate("b")
    with pytest.raises(ApiError, match=r"More than 2 requests in a minute\. Try again in 30 s"):
        door.check_rate("a")
    now[0] = 31.0
    door.check_rate("a")


def test_a_token_is_asked_for_where_there_is_one() -> None:
    served = scripted(lambda prompt, seed: "x")
    wrong = refused(served, token="a-long-random-token", key="guess")
    assert (wrong.status_code, wrong.code) == (401, "invalid_api_key")
    got = asked(
        served,
        lambda c: c.chat.completions.create(model="tiny", messages=HELLO),
        token="a-long-random-token",
        key="a-long-random-token",
    )
    assert got.choices[0].message.content == "x"


def test_what_is_no_request_at_all_gets_the_apis_shape_too() -> None:
    app = build_app(scripted(lambda prompt, seed: "x"), Limits(), token="", hosts=["local"])

    async def play() -> list[tuple[int, Any]]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://local") as client:
            json_type = {"content-type": "application/json"}
            answers = [
                await client.post("/v1/chat/completions", content=b"{", headers=json_type),
                await client.post("/v1/chat/completions", content=b"{}"),
                await client.get("/v1/nothing"),
                await client.get("/v1/models", headers={"host": "evil.example"}),
            ]
        return [(a.status_code, a.text) for a in answers]

    broken, untyped, unknown, foreign = asyncio.run(play())
    assert (broken[0], json.loads(broken[1])["error"]["code"]) == (400, "invalid_json")
    assert (untyped[0], json.loads(untyped[1])["error"]["code"]) == (415, "unsupported_media_type")
    assert (unknown[0], json.loads(unknown[1])["error"]["code"]) == (404, "not_found")
    assert foreign[0] == 400
