"""An agent framework of others, unchanged: what its agents do becomes turns, and a policy learns from it."""

from __future__ import annotations

import asyncio
import string
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ratchet.config.read import config_from_tree
from ratchet.core.protocols import Sampling
from ratchet.core.rollout import Group, Status
from ratchet.core.task import Split
from ratchet.engines.scripted import ScriptedEngine
from ratchet.environments.agents import Agents
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.policy.tokenizer import tiny_tokenizer
from ratchet.run.launch import train
from ratchet.run.observer import Silent
from ratchet.store.run_store import RunStore

sdk = pytest.importorskip("agents", reason="the OpenAI Agents SDK is not installed: pip install openai-agents")
openai = pytest.importorskip("openai")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from ratchet.serve.driver import Session, play  # noqa: E402
from ratchet.serve.training import opener  # noqa: E402

LETTERS = f"{Path(__file__).parents[1] / 'run' / 'letters.py'}:Letters"
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
pytestmark = pytest.mark.filterwarnings("default")  # its warnings are its own


@sdk.function_tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"{a}+{b}={a + b}"


async def conversation(session: Session, *messages: str, tools: list[Any]) -> list[str]:
    """Return what an agent of the SDK answers to messages, one after another, as its pages have it."""
    sdk.set_tracing_disabled(True)
    async with openai.AsyncOpenAI(base_url=session.base_url, api_key=session.key, max_retries=0) as client:
        model = sdk.OpenAIChatCompletionsModel(model="policy", openai_client=client)
        agent = sdk.Agent(name="speaker", instructions="Speak.", model=model, tools=tools)
        said: list[str] = []
        history: list[Any] = []
        for text in messages:
            result = await sdk.Runner.run(agent, [*history, {"role": "user", "content": text}])
            history = result.to_input_list()
            said.append(str(result.final_output))
        return said


def test_the_tools_that_the_sdk_runs_stand_between_the_turns_of_one_conversation() -> None:
    tokenizer = tiny_tokenizer(["<tool_call>", "</tool_call>"], string.printable)
    answers = [f"I add. {CALL}", "It is 3."]
    engine = ScriptedEngine(tokenizer, lambda prompt, seed: answers["1+2=3" in prompt], context=4000)
    engine.load({}, 0, "abc")
    environment = Agents(tasks=1, port=0)
    environment.serve_by(opener(environment, tokenizer, Sampling(200)))
    explorer = Explorer(environment, engine, tokenizer, Split("train", 0), Sampling(200), ExploreLimits(4000, 60))
    said: list[str] = []

    def agent(session: Session) -> float:
        said.extend(asyncio.run(conversation(session, "1+2", "sure?", tools=[add])))
        return 1.0

    async def explore() -> list[Group]:
        return [group async for group in explorer.groups(0, 0, 1, 1)]

    url = environment.open()
    thread = threading.Thread(target=lambda: play(url, agent, workers=1))
    thread.start()
    (group,) = asyncio.run(explore())
    environment.close()
    thread.join(30)
    assert said == ["It is 3.", "It is 3."]
    assert group.rollouts[0].status is Status.OK
    (trajectory,) = group.rollouts[0].trajectories
    assert [turn.text for turn in trajectory.turns] == [*answers, "It is 3."]
    for one, two in zip(trajectory.turns, trajectory.turns[1:], strict=False):
        seen = np.concatenate([one.prompt, one.output])
        assert np.array_equal(two.prompt[: len(seen)], seen)


class Starting(Silent):
    """Starts the program where the run says that its endpoint is."""

    def __init__(self) -> None:
        self.played: list[int] = []
        self.thread = threading.Thread()

    def note(self, text: str) -> None:
        if text.startswith("Endpoint:"):
            url = text.split()[1].removesuffix("/v1")
            self.thread = threading.Thread(target=lambda: self.played.append(play(url, vowels, workers=4)))
            self.thread.start()


def vowels(session: Session) -> float:
    """The program: two questions to an agent, and the share of vowels in its answers."""
    said = "".join(asyncio.run(conversation(session, "12", "34", tools=[])))
    return sum(letter in "aei" for letter in said) / max(1, len(said))


@pytest.mark.slow
def test_a_tiny_policy_learns_a_tiny_task_through_the_sdk(tmp_path: Path) -> None:
    steps, prompts, samples = 25, 2, 8
    config = config_from_tree(
        {
            "run": {"folder": str(tmp_path), "name": "agents", "device": "cpu", "threads": 1},
            "environment": {"name": "agents", "inner": LETTERS, "port": 0},
            "policy": {
                "tiny": {
                    "hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "head_size": 16, "intermediate": 16,
                    "context": 64,
                },
            },
            "explore": {"prompts_per_step": prompts, "samples_per_prompt": samples, "max_tokens": 6},
            "algorithm": {"name": "grpo", "lr": 2e-2},
            "train": {"steps": steps},
        }
    )  # fmt: skip
    observer = Starting()
    train(config, observer)
    observer.thread.join(60)
    store = RunStore.open(tmp_path / "agents")
    reward = [row["reward/mean"] for row in store.metrics()]
    assert observer.played == [steps * prompts * samples]
    assert np.mean(reward[:3]) < 0.35
    assert np.mean(reward[-3:]) > 0.8
    rollouts = [rollout for group in store.read_groups(steps - 1) for rollout in group.rollouts]
    assert [len(r.trajectories) for r in rollouts] == [1] * prompts * samples
    for rollout in rollouts:
        one, two = rollout.trajectories[0].turns
        seen = np.concatenate([one.prompt, one.output])
        assert np.array_equal(two.prompt[: len(seen)], seen)
        assert {turn.version for turn in (one, two)} == {steps - 1}
