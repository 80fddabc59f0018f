"""An orchestrator and the agents it creates: two tools, their caps, and the log of what ran when.

    create_subagent(name, system_prompt)     registers an agent that can be asked again and again
    assign_task(agent, prompt)               asks it; the calls of a turn run at the same time, each brings a message

An agent begins every task anew, with its system prompt and the task. It may have tools of the environment's own and, up
to a stated depth, these two. Whatever goes wrong (a call that cannot be read, an agent that was never created, one that
fails, hangs or is over its caps) becomes a message that the orchestrator reads; the other agents go on.

**Source**: the tools and the caps per role are those of Kimi K2.5's Agent Swarm (technical report).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from pydantic import BaseModel, Field

from ratchet.core.protocols import AgentFailed, PolicyHandle, PromptTooLong, Reply, Spawns
from ratchet.core.task import Message
from ratchet.core.tools import ToolCall, ToolSpec
from ratchet.rewards.parallel import AgentRun, Ended, Stage, critical_steps, total_steps

CREATE = ToolSpec(
    "create_subagent",
    "Register an agent. It does nothing until it is given a task, and can be given any number.",
    {"name": "what to call it", "system_prompt": "what it is told before every task"},
)
ASSIGN = ToolSpec(
    "assign_task",
    "Give an agent a task and get its answer. It knows nothing but its system prompt and this task. Calls in one turn "
    "run at the same time.",
    {"agent": "name of an agent you have created", "prompt": "the task"},
)


class Caps(BaseModel, frozen=True, extra="forbid"):
    """What a team may use. 0 is no limit, where it is allowed."""

    turns: int = Field(15, ge=1, description="Most turns of the orchestrator.")
    critical_steps: int = Field(
        0,
        ge=0,
        description="Most critical steps: the orchestrator's turns, its answer included, and with each the turns of "
        "the longest agent it launched; 0: any.",
    )
    calls_per_turn: int = Field(100, ge=1, description="Most tool calls of one turn that are carried out.")
    agents_at_once: int = Field(64, ge=1, description="Most agents of one rollout that run at the same time.")
    agents_created: int = Field(100, ge=1, description="Most agents that can be created.")
    depth: int = Field(1, ge=1, description="Levels of agents below the orchestrator; 1: they create none themselves.")
    agent_turns: int = Field(20, ge=1, description="Most turns of an agent on one task.")
    agent_tokens: int = Field(0, ge=0, description="Most tokens of an agent on one task; 0: any.")
    agent_timeout_s: float = Field(300.0, gt=0, description="Most seconds of an agent on one task.")
    result_chars: int = Field(
        4000, ge=100, description="Longest result that is passed on, in characters; the rest is cut, and said to be."
    )


class Bench(Protocol):
    """What an environment gives a team to work with, for one rollout."""

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """Tools that every agent has besides those of the team."""
        ...

    async def use(self, call: ToolCall) -> str:
        """Return the result of one of these tools; a bad argument is a result that says so."""
        ...

    def opening(self, system: str, prompt: str, *, beside: int) -> Sequence[Message]:
        """Return what an agent is told for a task; `beside` tasks are worked on at the same time, this one included."""
        ...

    def judged(self, answer: str) -> Ended:
        """Return how an agent ended that gave this answer: FINISHED, or GAVE_UP."""
        ...


@dataclass
class Talk:
    """A conversation that has come to its end, and what it launched."""

    answer: str = ""
    """The last turn, if it called no tool."""
    answered: bool = False
    ended: Ended = Ended.TURNS
    """What ended it, if it gave no answer."""
    stages: list[Stage] = field(default_factory=list)
    bad_calls: int = 0
    """Calls that could not be carried out."""
    tokens: int = 0
    """Sampled in its own turns."""
    seconds: float = 0.0
    """In its own turns, waiting for the engine included."""
    agents: dict[str, str] = field(default_factory=dict)
    """Name -> system prompt of those it has created."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What one conversation may use."""

    turns: int
    tokens: int
    critical_steps: int
    depth: int


class Team:
    """Plays one rollout."""

    def __init__(
        self, caps: Caps, bench: Bench, *, note: Callable[[int], str] = lambda left: "", tell: bool = True
    ) -> None:
        """`note` is put behind the orchestrator's results, given the critical steps that are left (-1: no limit).

        Without `tell` nobody is told of the tools: for policies that know them.
        """
        self._caps, self._bench, self._note, self._tell = caps, bench, note, tell
        self._places = asyncio.Semaphore(caps.agents_at_once)

    async def play(self, handle: PolicyHandle, opening: Sequence[Message]) -> Talk:
        """Let an orchestrator work until it answers or is out of turns, critical steps or context.

        **Raises**: `PromptTooLong` if not even the opening fits; `AgentFailed` if its server does not answer.
        """
        return await self._work(handle, opening, _Bounds(self._caps.turns, 0, self._caps.critical_steps, 0), Talk())

    async def _work(self, handle: PolicyHandle, opening: Sequence[Message], bounds: _Bounds, talk: Talk) -> Talk:
        messages = list(opening)
        while len(talk.stages) < bounds.turns:
            reply = await self._ask(handle, messages, bounds, talk)
            if reply is None:
                talk.ended = Ended.TOKENS
                break
            if bounds.tokens and talk.tokens >= bounds.tokens:
                talk.stages.append(Stage())
                talk.ended = Ended.TOKENS
                break
            if not reply.calls:
                talk.stages.append(Stage())
                talk.answer, talk.answered = reply.text, True
                break
            left = _left(bounds, talk)
            if 0 <= left < 2:  # an answer was all that fitted, and it was told so
                talk.stages.append(Stage())
                break
            messages, stage = await self._carry_out(handle, reply.calls, bounds, talk)
            talk.stages.append(stage)
            if bounds.depth == 0 and (note := self._note(_left(bounds, talk))):
                messages[-1] = Message(messages[-1].role, messages[-1].content + note)
        return talk

    async def _ask(self, handle: PolicyHandle, messages: list[Message], bounds: _Bounds, talk: Talk) -> Reply | None:
        """Return the next turn; None if not even shortened results leave room for one."""
        own = (CREATE, ASSIGN) if bounds.depth < self._caps.depth else ()
        tools = (*own, *self._bench.tools) if self._tell else ()
        started = time.perf_counter()
        for shown in (messages, [_shortened(m) for m in messages]):
            try:
                reply = await handle.chat(shown, tools)
            except PromptTooLong:
                if not talk.stages:
                    raise
                continue
            talk.seconds += time.perf_counter() - started
            talk.tokens += reply.num_tokens
            return reply
        return None

    async def _carry_out(
        self, handle: PolicyHandle, calls: Sequence[ToolCall], bounds: _Bounds, talk: Talk
    ) -> tuple[list[Message], Stage]:
        """Carry out the calls of a turn; return a message for each, in their order, and what was launched."""
        most = self._caps.calls_per_turn
        beside = sum(call.name == ASSIGN.name and not call.error for call in calls[:most])
        work = [self._begun(handle, call, beside, bounds, talk) for call in calls[:most]]
        done = await asyncio.gather(*(_ready(one) if isinstance(one, str) else one for one in work))
        messages = [Message("tool", self._cut(text)) for text, _ in done]
        if len(calls) > most:
            talk.bad_calls += len(calls) - most
            rest = f"{len(calls) - most} more calls were not carried out: at most {most} in one turn."
            messages.append(Message("tool", rest))
        return messages, Stage(tuple(run for _, run in done if run is not None))

    def _begun(
        self, handle: PolicyHandle, call: ToolCall, beside: int, bounds: _Bounds, talk: Talk
    ) -> Awaitable[tuple[str, AgentRun | None]] | str:
        """Return the work of a call, not yet begun, or at once the message that answers it."""
        known = {CREATE.name: CREATE, ASSIGN.name: ASSIGN} if bounds.depth < self._caps.depth else {}
        known |= {tool.name: tool for tool in self._bench.tools}
        if wrong := _wrong(call, known):
            talk.bad_calls += 1
            return wrong
        if call.name not in (CREATE.name, ASSIGN.name):
            return self._used(call)
        if call.name == CREATE.name:
            return self._created(call.arguments, talk)
        name = str(call.arguments["agent"])
        if name not in talk.agents:
            talk.bad_calls += 1
            return f'There is no agent "{name}". Create it first, with {CREATE.name}.'
        left = _left(bounds, talk) - 2  # one step is this turn, one the answer
        if bounds.critical_steps and left < 1:
            talk.bad_calls += 1
            return "No critical steps are left for agents. Answer now."
        turns = min(self._caps.agent_turns, left) if bounds.critical_steps else self._caps.agent_turns
        child, system, prompt = _spawner(handle).spawn(name), talk.agents[name], str(call.arguments["prompt"])
        inner = _Bounds(turns, self._caps.agent_tokens, 0, bounds.depth + 1)
        return self._assigned(child, name, system, prompt, beside, inner)

    async def _used(self, call: ToolCall) -> tuple[str, None]:
        return await self._bench.use(call), None

    def _created(self, arguments: Mapping[str, object], talk: Talk) -> str:
        name = str(arguments["name"])
        if name in talk.agents:
            talk.bad_calls += 1
            return f'There is an agent "{name}" already. Give it tasks, or choose another name.'
        if len(talk.agents) >= self._caps.agents_created:
            talk.bad_calls += 1
            return f"No more than {self._caps.agents_created} agents can be created. Give tasks to those there are."
        talk.agents[name] = str(arguments["system_prompt"])
        return "ok"

    async def _assigned(
        self, child: Spawns, agent: str, system: str, prompt: str, beside: int, bounds: _Bounds
    ) -> tuple[str, AgentRun]:
        """Let an agent work on a task, within its caps; return its message and what it cost."""
        talk = Talk()
        async with self._places:
            started = time.perf_counter()
            opening = self._bench.opening(system, prompt, beside=beside)
            try:
                async with asyncio.timeout(self._caps.agent_timeout_s):
                    await self._work(child, opening, bounds, talk)
                ended = self._bench.judged(talk.answer) if talk.answered else talk.ended
            except PromptTooLong:
                ended = Ended.TOKENS
            except AgentFailed:
                ended = Ended.FAILED
            except TimeoutError:
                ended = Ended.TIMEOUT
        child.ended(ended.value)
        text = talk.answer if talk.answered else f"{agent} did not finish: {_WHY[ended]}."
        run = AgentRun(
            agent,
            prompt,
            ended,
            steps=critical_steps(talk.stages),
            work=total_steps(talk.stages),
            tokens=talk.tokens + sum(below.tokens for stage in talk.stages for below in stage.runs),
            seconds=time.perf_counter() - started,
        )
        return text, run

    def _cut(self, text: str) -> str:
        most = self._caps.result_chars
        return text if len(text) <= most else f"{text[:most]} [cut: {len(text) - most} of {len(text)} characters]"


def _spawner(handle: PolicyHandle) -> Spawns:
    # isinstance() of a protocol looks through all of its methods, thousands of times per step here.
    assert hasattr(handle, "spawn"), "agents need a handle that spawns them"
    return cast(Spawns, handle)


_WHY = {
    Ended.TURNS: "it was out of turns",
    Ended.TOKENS: "it was out of tokens",
    Ended.TIMEOUT: "it was out of time",
    Ended.FAILED: "it could not be reached",
    Ended.FINISHED: "it gave no answer",
    Ended.GAVE_UP: "it gave up",
}

_SHORT = 100
"""Characters that are left of a result for which there is no room."""


async def _ready(text: str) -> tuple[str, None]:
    return text, None


def _left(bounds: _Bounds, talk: Talk) -> int:
    """Return the critical steps that are left, that of the answer among them; -1 without a limit."""
    return max(0, bounds.critical_steps - critical_steps(talk.stages)) if bounds.critical_steps else -1


def _shortened(message: Message) -> Message:
    if len(message.content) <= _SHORT:
        return message
    return Message(message.role, f"{message.content[:_SHORT]} [cut: there is no room for more]")


def _wrong(call: ToolCall, known: Mapping[str, ToolSpec]) -> str:
    """Return what is wrong with a call, as a message to the policy; empty if nothing is."""
    if call.error:
        return f"The call cannot be read: {call.error}."
    if call.name not in known:
        return f'There is no tool "{call.name}". There are: {", ".join(known) or "none"}.'
    for name in known[call.name].parameters:
        value = call.arguments.get(name)
        if not isinstance(value, str) or not value.strip():
            return f'{call.name} needs "{name}": text that is not empty.'
    return ""
