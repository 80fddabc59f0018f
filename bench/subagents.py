"""What it is worth that the agents of a turn run together: one turn that asks many agents, at once and one by one.

    python bench/subagents.py                       writes bench/results/subagents.{md,json}; a few minutes
    python bench/subagents.py --agents 4,16,64 --tokens 64 --rounds 3

An orchestrator (a script) creates an agent and gives it N tasks in one turn, as `ratchet.environments.team` plays it;
each task is answered by the project's engine with `--tokens` new tokens of a random policy. "together" lets all of
them run at the same time, "one by one" sets `agents_at_once = 1`; nothing else differs, and the tokens are the same.
Rounds are interleaved, so that what disturbs the machine disturbs both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from ratchet.config.schema import TinySection
from ratchet.core.protocols import Sampling
from ratchet.core.task import Message
from ratchet.core.tools import ToolCall, ToolSpec, written
from ratchet.engines.build import local_engine
from ratchet.environments.scripted import ScriptedTeam
from ratchet.environments.team import Caps, Team
from ratchet.explore.handle import EngineSpeaker, RecordingHandle
from ratchet.policy.policy import Policy
from ratchet.rewards.parallel import Ended
from ratchet.run.machine import describe_environment

SIZES = {
    "1 M": TinySection(hidden=128, layers=4, query_heads=4, key_heads=2, head_size=32, intermediate=512, context=512),
    "10 M": TinySection(hidden=384, layers=6, query_heads=6, key_heads=2, head_size=64, intermediate=1152, context=512),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,?:"
OUT = Path(__file__).parent / "results" / "subagents"


class Bench:
    """Agents without tools of their own."""

    tools: Sequence[ToolSpec] = ()

    async def use(self, call: ToolCall) -> str:
        raise AssertionError("there are no tools")

    def opening(self, system: str, prompt: str, *, beside: int) -> Sequence[Message]:
        return [Message("system", system), Message("user", prompt)]

    def judged(self, answer: str) -> Ended:
        return Ended.FINISHED


def script(agents: int) -> list[str]:
    """Return an orchestrator's turns: all tasks at once, then an answer."""
    tasks = (written("assign_task", {"agent": "r", "prompt": f"read document {i}"}) for i in range(agents))
    return [written("create_subagent", {"name": "r", "system_prompt": "you read"}) + "".join(tasks), "done"]


async def seconds(speaker: EngineSpeaker, agents: int, at_once: int) -> tuple[float, list[list[int]]]:
    """Return how long a rollout takes, and what the agents sampled."""
    handles: list[RecordingHandle] = []

    def agent(name: str) -> RecordingHandle:
        handles.append(RecordingHandle(speaker, lambda: speaker, seed=len(handles), agent=name))
        return handles[-1]

    team = Team(Caps(calls_per_turn=agents + 1, agents_at_once=at_once, agent_timeout_s=3600), Bench())
    began = time.perf_counter()
    talk = await team.play(ScriptedTeam(script(agents), agent), [Message("user", "go")])
    took = time.perf_counter() - began
    assert len(talk.stages[0].runs) == agents
    return took, [handle.trajectories()[0].turns[0].output.tolist() for handle in handles]


def measure(size: TinySection, agents: Sequence[int], tokens: int, rounds: int) -> list[dict[str, object]]:
    """Return a row per number of agents."""
    policy = Policy.tiny(size, words=(), characters=LETTERS, seed=0)
    engine = local_engine(policy, context=size.context, max_rows=512)
    engine.load(policy.weights(), 0, policy.fingerprint())
    speaker = EngineSpeaker(engine, policy.tokenizer, Sampling(tokens, 1.0, 1.0, 0), size.context)
    rows: list[dict[str, object]] = []

    async def all_of_them() -> None:
        await seconds(speaker, 4, 4)  # warm
        for number in agents:
            together, alone = [], []
            for _ in range(rounds):
                took, one = await seconds(speaker, number, number)
                together.append(took)
                took, other = await seconds(speaker, number, 1)
                alone.append(took)
                assert one == other, "the same seeds sample the same tokens, whatever else is in the batch"
            ratios = [a / t for a, t in zip(alone, together, strict=True)]
            sampled = sum(map(len, one))
            rows.append(
                {
                    "agents": number,
                    "tokens": sampled,
                    "together_s": together,
                    "one_by_one_s": alone,
                    "ratio": statistics.median(ratios),
                    "ratio_range": [min(ratios), max(ratios)],
                }
            )
            print(f"{number:4} agents: {rows[-1]['ratio']:.1f} times faster together", flush=True)

    asyncio.run(all_of_them())
    engine.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", default="4,16,64")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    numbers = [int(n) for n in args.agents.split(",")]
    measured = {}
    for name, size in SIZES.items():
        print(name, flush=True)
        measured[name] = measure(size, numbers, args.tokens, args.rounds)
    lines = [
        "# Agents of one turn, together and one by one",
        "",
        f"`python bench/subagents.py`; {args.rounds} rounds.",
        "",
    ]
    lines += ["| weights | agents | tokens | together, s | one by one, s | times faster (least to most) |"]
    lines += ["|---|---:|---:|---:|---:|---|"]
    for name, rows in measured.items():
        for row in rows:
            low, high = row["ratio_range"]
            lines.append(
                f"| {name} | {row['agents']} | {row['tokens']} | {statistics.median(row['together_s']):.2f} | "
                f"{statistics.median(row['one_by_one_s']):.2f} | {row['ratio']:.1f} ({low:.1f} to {high:.1f}) |"
            )
    machine = describe_environment()
    lines += ["", f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads.", ""]
    OUT.with_suffix(".md").write_text("\n".join(lines))
    OUT.with_suffix(".json").write_text(json.dumps({"machine": machine, "measured": measured}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
