"""The same as a task set of verifiers 0.4, with a harness in process: the built-in ones fetch their programs."""

from __future__ import annotations

import httpx
import verifiers.v1 as vf
from pydantic_config import BaseConfig  # noqa: F401  (a dependency that every task set has)
from verifiers.v1.dialects.chat import message_to_wire

__all__ = ["Talk", "TwoTurns", "VowelTasks"]


class Data(vf.TaskData):
    answer: str = ""


class VowelTask(vf.Task[Data, vf.State]):
    @vf.reward
    async def share(self, trace) -> float:
        said = "".join(message.content or "" for message in trace.assistant_messages)
        return sum(letter in "aei" for letter in said) / max(1, len(said))


class TasksConfig(vf.TasksetConfig):
    rows: int = 20
    turns: int = 1
    endless: bool = False


class VowelTasks(vf.Taskset[VowelTask, TasksConfig]):
    def load(self):
        for i in range(self.config.rows):
            yield VowelTask(Data(prompt=f"{i:02d}", system_prompt="Say.", answer="aei"), self.config.task)


class TalkConfig(vf.HarnessConfig):
    pass


class Talk(vf.Harness[TalkConfig]):
    """Says what the policy says, and nothing more."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data):
        system, prompt = self.resolve_prompt(data)
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(map(message_to_wire, prompt))
        messages = [{"role": "system", "content": system}, *asked] if system else asked
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(
                f"{endpoint}/chat/completions",
                json={"model": ctx.model, "messages": messages},
                headers={"authorization": f"Bearer {secret}"},
            )
            answer.raise_for_status()
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


class TwoTurnsConfig(vf.EnvConfig):
    agent: vf.AgentConfig = vf.AgentConfig()


class TwoTurns(vf.Env[TwoTurnsConfig]):
    async def run(self, task, agents):
        async with agents.agent.interaction(task) as talk:
            await talk.turn()
            for _ in range(self.config.taskset.turns - 1):
                await talk.turn("34")
