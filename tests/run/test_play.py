"""Playing an environment with a policy that is not trained: a server, or a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from chat_server import calls, serving
from click.testing import CliRunner

from ratchet.cli.main import main
from ratchet.config.read import read_config
from ratchet.core.errors import ConfigError
from ratchet.run.observer import Silent
from ratchet.run.play import Played, play

TEXTS = (
    "a heron and a newt",
    "one newt",
    "the heron sleeps",
    "a badger",
    "badger and heron",
    "an otter",
    "otter, newt",
)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a collection of seven texts."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return path


def config_of(texts: Path, *more: str) -> list[str]:
    few = ("words=1", "hits_min=1", "hits_max=4", "held_out=0.5")
    return [
        "swarm/wide",
        "policy.model=none",
        f"environment.path={texts}",
        *(f"environment.{one}" for one in few),
        *more,
    ]


def librarian(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Play both roles: the orchestrator sends an agent for each word; an agent searches and repeats what it found."""
    messages = body["messages"]
    last = messages[-1]
    words = re.findall(r"words: (.*)\.$", messages[1]["content"])
    if last["role"] == "user" and words:
        return calls(
            ("create_subagent", {"name": "r", "system_prompt": "search"}),
            *(("assign_task", {"agent": "r", "prompt": word}) for word in words[0].split(", ")),
        )
    if last["role"] == "user":
        return calls(("search", {"query": last["content"], "page": "1"}))
    numbers = [int(n) for n in re.findall(r"#(\d+)", last["content"])]
    if words:
        return {"content": json.dumps({words[0]: numbers})}
    return {"content": last["content"]}


def test_a_server_plays_a_team_and_its_agents(texts: Path) -> None:
    with serving(librarian) as server:
        played = play(
            read_config(config_of(texts, f"subagent.policy={server.url}", "subagent.model=m")),
            server.url,
            "m",
            tasks=4,
            samples=2,
            split="test",
            observer=Silent(),
        )
    assert len(played.groups) == 4
    assert played.facts["reward_mean"] == 1
    rollout = played.groups[0].rollouts[0]
    assert [t.agent for t in rollout.trajectories] == ["policy", "r"], "the agent's turns are there too"
    assert rollout.metrics["finish_rate"] == 1


def test_an_agent_that_cannot_be_reached_is_told_to_the_orchestrator(texts: Path) -> None:
    with serving(librarian) as server:
        more = ("subagent.policy=http://127.0.0.1:9/v1", "subagent.model=m", "subagent.timeout_s=1")
        played = play(
            read_config(config_of(texts, *more)), server.url, "m", tasks=1, samples=1, split="test", observer=Silent()
        )
    rollout = played.groups[0].rollouts[0]
    assert rollout.trajectories[1].outcome == "failed"
    assert rollout.score is not None
    assert "could not be reached" in json.dumps(server.asked[-1]["messages"])


def test_nothing_played_is_an_error_that_says_why(texts: Path) -> None:
    with serving(lambda body: (500, "on fire")) as server, pytest.raises(ConfigError, match=r"Not one of 1.*on fire"):
        one_attempt(texts, server.url)


def test_a_policy_that_is_neither_is_refused(texts: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is no folder"):
        one_attempt(texts, "nowhere")
    with pytest.raises(ConfigError, match="--model"):
        play(read_config(config_of(texts)), "http://x/v1", "", tasks=1, samples=1, split="test", observer=Silent())


def one_attempt(texts: Path, policy: str) -> Played:
    return play(read_config(config_of(texts)), policy, "m", tasks=1, samples=1, split="test", observer=Silent())


def test_the_command_prints_numbers_and_attempts(texts: Path) -> None:
    with serving(librarian) as server:
        more = ("--tasks", "3", "--plain", f"subagent.policy={server.url}", "subagent.model=m")
        done = CliRunner().invoke(main, ["play", *config_of(texts), "--policy", server.url, "--model", "m", *more])
    assert done.exit_code == 0, done.output
    assert "3 test tasks x 1 samples" in done.output
    assert "reward_mean  1.000" in done.output
    assert "search" in done.output, "an attempt is shown"
