"""A run that is played by an agent program: attempts, keys, conversations, rewards."""

from __future__ import annotations

import asyncio
import string
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Sampling
from ratchet.core.rollout import Group, Rollout, Status
from ratchet.core.task import Split
from ratchet.engines.scripted import ScriptedEngine
from ratchet.environments.agents import Agents
from ratchet.environments.table import build_environment
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.policy.tokenizer import tiny_tokenizer
from ratchet.train.experience import flatten

openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from ratchet.serve.driver import EndpointRefused, Session, play  # noqa: E402
from ratchet.serve.training import opener  # noqa: E402

TOKENIZER = tiny_tokenizer(["<tool_call>", "</tool_call>"], string.printable)
SAMPLING = Sampling(max_tokens=200)
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}


def agents(**options: Any) -> Agents:
    made = build_environment("agents", {"port": 0, **({"tasks": 3} if "inner" not in options else {}), **options})
    assert isinstance(made, Agents)
    made.serve_by(opener(made, TOKENIZER, SAMPLING))
    return made


@contextmanager
def programs(environment: Agents, agent: Callable[[Session], float | None], workers: int = 4) -> Iterator[list[int]]:
    """Play the environment's attempts in a thread while this lasts; the list gets their number."""
    played: list[int] = []
    url = environment.open()
    thread = threading.Thread(target=lambda: played.append(play(url, agent, workers=workers)))
    thread.start()
    try:
        yield played
    finally:
        environment.close()
        thread.join(30)


def groups(
    environment: Agents,
    agent: Callable[[Session], float | None],
    answer: Callable[[str, int], str],
    *,
    prompts: int = 1,
    samples: int = 1,
    context: int = 2000,
    timeout_s: float = 60.0,
) -> list[Group]:
    """Return what an explorer makes of a program's play."""
    engine = ScriptedEngine(TOKENIZER, answer, context=context)
    engine.load({}, 0, "abc")
    explorer = Explorer(environment, engine, TOKENIZER, Split("train", 0), SAMPLING, ExploreLimits(context, timeout_s))

    async def explore() -> list[Group]:
        return [group async for group in explorer.groups(0, 0, prompts, samples)]

    with programs(environment, agent):
        return asyncio.run(explore())


def only(found: list[Group]) -> Rollout:
    return found[0].rollouts[0]


def ask(session: Session, messages: list[dict[str, Any]], **more: Any) -> Any:
    client = openai.OpenAI(base_url=session.base_url, api_key=session.key, max_retries=0)
    with client:
        return client.chat.completions.create(model="gpt", messages=messages, **more).choices[0].message


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_every_attempt_of_every_task_is_handed_out_once_and_gets_its_own_reward() -> None:
    taken = []

    def agent(session: Session) -> float:
        taken.append((session.task["number"], session.key))
        ask(session, [user(f"task {session.task['number']}")])
        return float(session.task["number"])

    found = groups(agents(), agent, lambda prompt, seed: "yes", prompts=3, samples=2)
    assert len({key for _, key in taken}) == len(taken) == 6
    assert sorted(g.task.extras["number"] for g in found) == [0, 1, 2]
    for group in found:
        assert [r.score.value for r in group.rollouts if r.score] == [float(group.task.extras["number"])] * 2


def test_turns_keep_their_tokens_and_what_the_program_says_between_them_is_not_trained_on() -> None:
    def agent(session: Session) -> float:
        messages = [{"role": "system", "content": "Add."}, user("1+2")]
        first = ask(session, messages, tools=[ADD])
        messages.append(first.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "3"})
        assert ask(session, messages, tools=[ADD]).content == "It is 3"
        return 1.0

    found = groups(agents(), agent, lambda prompt, seed: "It is 3" if "</tool_call>3" in prompt else f"So {CALL}")
    (trajectory,) = only(found).trajectories
    one, two = trajectory.turns
    assert np.array_equal(two.prompt[: len(one.prompt) + len(one.output)], np.concatenate([one.prompt, one.output]))
    (sample,) = flatten(found)
    assert sample.num_trained == len(one.output) + len(two.output)
    assert len(sample.tokens) > sample.num_trained, "the tool's result stands between the turns"
    assert only(found).metrics == {"conversations": 1.0, "turns": 2.0}


def test_a_rewritten_history_opens_a_conversation_of_its_own_in_the_same_attempt() -> None:
    def agent(session: Session) -> float:
        messages = [user("a")]
        reply = ask(session, messages).content
        ask(session, [*messages, {"role": "assistant", "content": f" {reply}\n"}, user("b")])  # trimmed: the same
        ask(session, [*messages, {"role": "assistant", "content": "forged"}, user("b")])
        return 0.5

    found = groups(agents(), agent, lambda prompt, seed: "said")
    first, other = only(found).trajectories
    assert [len(first.turns), len(other.turns)] == [2, 1]
    assert (first.trainable, other.trainable, other.parent) == (True, True, -1)
    assert [s.reward for s in flatten(found)] == [0.5, 0.5]
    assert only(found).metrics["conversations"] == 2


def test_a_stream_is_recorded_like_a_whole_answer() -> None:
    heard = []

    def agent(session: Session) -> float:
        with openai.OpenAI(base_url=session.base_url, api_key=session.key) as client:
            stream = client.chat.completions.create(model="x", messages=[user("a")], stream=True)
            heard.append("".join(p.choices[0].delta.content or "" for p in stream if p.choices))
        return 1.0

    found = groups(agents(), agent, lambda prompt, seed: "one two")
    assert heard == ["one two"]
    assert only(found).trajectories[0].turns[0].text == "one two"


def test_limits_of_a_request_end_a_turn_and_are_recorded() -> None:
    def agent(session: Session) -> float:
        ask(session, [user("a")], max_tokens=3)
        ask(session, [user("b")], stop=["6"])
        return 1.0

    first, other = only(groups(agents(), agent, lambda prompt, seed: "123456789")).trajectories
    assert (first.turns[0].text, first.turns[0].stop) == ("123", "length")
    assert (other.turns[0].text, other.turns[0].stop) == ("123456", "stop")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"temperature": 0.3}, "The run samples with temperature = 1, and trains on that distribution"),
        ({"n": 2}, "A turn is one answer"),
        ({"seed": 4}, "seeds of its own"),
        ({"extra_body": {"top_k": 5}}, "set explore.top_k to it"),
    ],
)
def test_another_distribution_than_the_runs_is_refused(more: dict[str, Any], said: str) -> None:
    found = only(groups(agents(), lambda s: ask(s, [user("a")], **more), lambda prompt, seed: "x"))
    assert found.status is Status.ENVIRONMENT_ERROR
    assert said in found.error


def test_another_temperature_is_answered_as_the_run_samples_where_that_is_asked_for() -> None:
    def agent(session: Session) -> float:
        ask(session, [user("a")], temperature=0.3)
        return 1.0

    assert only(groups(agents(keep_sampling=True), agent, lambda prompt, seed: "x")).status is Status.OK


def test_an_attempt_that_the_program_gives_up_or_never_plays_is_counted_and_says_why() -> None:
    def broken(session: Session) -> float:
        ask(session, [user("a")])
        raise ValueError("the browser is gone")

    failed = only(groups(agents(), broken, lambda prompt, seed: "x"))
    assert (failed.status, failed.error) == (Status.ENVIRONMENT_ERROR, "ValueError: the browser is gone")
    silent = only(groups(agents(), lambda session: 1.0, lambda prompt, seed: "x"))
    assert silent.status is Status.ENVIRONMENT_ERROR
    assert "No answer was asked for with this key" in silent.error
    unjudged = only(groups(agents(), lambda s: ask(s, [user("a")]) and None, lambda prompt, seed: "x"))
    assert "No reward was posted, and no inner environment judges" in unjudged.error


def test_a_conversation_without_room_is_told_to_the_program_and_counted() -> None:
    def agent(session: Session) -> float:
        ask(session, [user("x" * 100)])
        return 1.0

    found = only(groups(agents(), agent, lambda prompt, seed: "y", context=50))
    assert found.status is Status.PROMPT_TOO_LONG


def test_the_reward_of_an_inner_environment_judges_the_last_answer() -> None:
    def agent(session: Session) -> None:
        ask(session, session.task["messages"])

    environment = agents(inner="arithmetic")
    right = build_environment("arithmetic", {})
    task = right.task(Split("train", 0), 0)
    found = only(groups(environment, agent, lambda prompt, seed: right.gold(task)))
    wrong = only(groups(agents(inner="arithmetic"), agent, lambda prompt, seed: "no"))
    assert [one.score.parts["accuracy"] for one in (found, wrong) if one.score] == [1.0, 0.0]


def test_time_counts_from_where_an_attempt_is_taken_up() -> None:
    waited = threading.Event()

    def agent(session: Session) -> float:
        ask(session, [user("a")])
        waited.wait(0.6)  # longer than half the limit: four one after another would exceed it
        return 1.0

    engine = ScriptedEngine(TOKENIZER, lambda prompt, seed: "x", context=200)
    engine.load({}, 0, "abc")
    environment = agents()
    explorer = Explorer(environment, engine, TOKENIZER, Split("train", 0), SAMPLING, ExploreLimits(200, 2.0))

    async def explore() -> list[Group]:
        return [group async for group in explorer.groups(0, 0, 1, 4)]

    with programs(environment, agent, workers=1):
        found = asyncio.run(explore())
    assert [r.status for r in found[0].rollouts] == [Status.OK] * 4
    assert all(r.seconds < 2 for r in found[0].rollouts)


def test_an_attempt_over_its_time_is_counted_and_its_key_opens_nothing_any_more() -> None:
    after = []

    def agent(session: Session) -> float:
        ask(session, [user("a")])
        threading.Event().wait(0.8)
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(session, [user("b")])
        after.append(caught.value.code)
        return 1.0

    found = only(groups(agents(), agent, lambda prompt, seed: "x", timeout_s=0.3))
    assert found.status is Status.ROLLOUT_TIMEOUT


def test_a_token_is_needed_to_take_attempts_on_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = agents(host="0.0.0.0")
    monkeypatch.delenv("RATCHET_SERVE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"environment\.host = 0\.0\.0\.0 lets other machines ask"):
        environment.open()
    monkeypatch.setenv("RATCHET_SERVE_TOKEN", "a-long-random-token")
    url = environment.open().replace("0.0.0.0", "127.0.0.1")
    try:
        with pytest.raises(EndpointRefused, match="needs its token"):
            play(url, lambda session: 1.0, workers=1)
    finally:
        environment.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give either tasks"),
        ({"tasks": 3, "inner": "arithmetic"}, "give either tasks"),
        ({"inner": "agents"}, "cannot hand out its own tasks"),
        ({"inner": "reproduce"}, "runs code in the sandbox"),
        ({"tasks": 3, "inner_options": {"a": 1}}, "inner_options are those of inner"),
    ],
)
def test_settings_that_make_no_sense_are_sentences(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_environment("agents", options)
