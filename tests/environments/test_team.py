"""An orchestrator and its agents: what runs at the same time, what goes wrong, and what the orchestrator is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from ratchet.core.protocols import AgentFailed, PolicyHandle, PromptTooLong, Reply
from ratchet.core.rollout import StopReason
from ratchet.core.task import Message
from ratchet.core.tools import ToolCall, ToolSpec, written
from ratchet.environments.scripted import Scripted, ScriptedTeam, Silent
from ratchet.environments.team import Caps, Talk, Team
from ratchet.rewards.parallel import Ended, critical_steps

OPENING = [Message("user", "find it")]
FIND = ToolSpec("find", "Finds.", {"text": "what"})


def create(name: str = "r") -> str:
    return written("create_subagent", {"name": name, "system_prompt": "read"})


def assign(prompt: str, agent: str = "r") -> str:
    return written("assign_task", {"agent": agent, "prompt": prompt})


class Bench:
    """A bench with one tool; an agent that says "?" gave up."""

    tools: Sequence[ToolSpec] = ()

    def __init__(self, *tools: ToolSpec) -> None:
        self.tools = tools
        self.beside: list[int] = []

    async def use(self, call: ToolCall) -> str:
        return f"found {call.arguments['text']}"

    def opening(self, system: str, prompt: str, *, beside: int) -> Sequence[Message]:
        self.beside.append(beside)
        return [Message("system", system), Message("user", prompt)]

    def judged(self, answer: str) -> Ended:
        return Ended.GAVE_UP if answer == "?" else Ended.FINISHED


def says(*replies: str) -> Callable[[str], PolicyHandle]:
    return lambda name: Scripted(list(replies))


DONE = says("done")


def play(
    replies: Sequence[str],
    agents: Callable[[str], PolicyHandle] = DONE,
    bench: Bench | None = None,
    **caps: object,
) -> tuple[Talk, ScriptedTeam]:
    team = ScriptedTeam(replies, agents)
    talk = asyncio.run(Team(Caps(**caps), bench or Bench()).play(team, OPENING))
    return talk, team


def told(team: ScriptedTeam, turn: int) -> list[str]:
    return [m.content for m in team.asked[turn]]


def test_calls_of_one_turn_run_together_and_each_brings_one_message() -> None:
    bench = Bench()
    talk, team = play([create() + assign("a") + assign("b"), assign("c"), "it is b"], says("done"), bench)
    assert (talk.answer, talk.answered) == ("it is b", True)
    assert told(team, 1) == ["ok", "done", "done"]
    assert [len(stage.runs) for stage in talk.stages] == [2, 1, 0]
    assert bench.beside == [2, 2, 1]
    assert [agent.outcome for agent in team.spawned] == ["finished"] * 3


def test_agents_of_a_turn_really_run_at_the_same_time() -> None:
    waiting, met = 0, asyncio.Event()

    class Meets:
        """Answers once three of its kind have been asked."""

        async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
            nonlocal waiting
            waiting += 1
            if waiting == 3:
                met.set()
            await met.wait()
            return Reply("met", 1, StopReason.END)

    talk, _ = play([create() + assign("a") + assign("b") + assign("c"), "x"], lambda name: Meets())
    assert [run.ended for run in talk.stages[0].runs] == [Ended.FINISHED] * 3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (assign("a", "nobody"), 'There is no agent "nobody". Create it first'),
        (assign("a"), 'There is no agent "r"'),
        (written("fly", {}), 'There is no tool "fly". There are: create_subagent, assign_task.'),
        (written("assign_task", {"agent": "r"}), 'assign_task needs "prompt"'),
        (written("assign_task", {"agent": "r", "prompt": "  "}), "text that is not empty"),
        (written("assign_task", {"agent": 3, "prompt": "a"}), 'assign_task needs "agent"'),
        ("<tool_call>{</tool_call>", "The call cannot be read: the call is no JSON."),
        ("<tool_call>", "The call cannot be read: the call is not finished."),
    ],
)
def test_a_bad_call_is_a_message_and_the_others_go_on(call: str, says: str) -> None:
    talk, team = play([create("s") + call + assign("a", "s") if call != "<tool_call>" else call, "x"])
    assert any(says in text for text in told(team, 1)), told(team, 1)
    assert talk.bad_calls == 1
    if call != "<tool_call>":
        assert "done" in told(team, 1)


def test_an_agent_cannot_be_created_twice_nor_too_many() -> None:
    talk, team = play([create("a") + create("a") + create("b") + create("c"), "x"], agents_created=2)
    assert told(team, 1)[0] == told(team, 1)[2] == "ok"
    assert "already" in told(team, 1)[1]
    assert "No more than 2" in told(team, 1)[3]
    assert talk.bad_calls == 2


def test_a_thousand_calls_are_not_all_carried_out() -> None:
    talk, team = play([create() + assign("a") * 1000, "x"], calls_per_turn=10)
    assert len(told(team, 1)) == 11
    assert told(team, 1)[-1] == "991 more calls were not carried out: at most 10 in one turn."
    assert len(talk.stages[0].runs) == 9


def test_agents_that_fail_hang_or_are_over_their_caps_are_told_and_the_others_go_on() -> None:
    class Fails:
        async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
            raise AgentFailed("503")

    class Full:
        async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
            raise PromptTooLong("too long")

    kinds: dict[str, Callable[[], PolicyHandle]] = {
        "fails": Fails,
        "hangs": Silent,
        "full": Full,
        "talks": lambda: Scripted([written("find", {"text": "x"})] * 9),
        "writes": lambda: Scripted([written("find", {"text": "x" * 100})] * 9),
        "quits": lambda: Scripted(["?"]),
        "works": lambda: Scripted(["yes"]),
    }
    first = "".join(create(name) for name in kinds) + "".join(assign(name, name) for name in kinds)
    talk, team = play(
        [first, "x"], lambda name: kinds[name](), Bench(FIND), agent_timeout_s=0.2, agent_turns=2, agent_tokens=150
    )
    messages = told(team, 1)[len(kinds) :]
    assert messages == [
        "fails did not finish: it could not be reached.",
        "hangs did not finish: it was out of time.",
        "full did not finish: it was out of tokens.",
        "talks did not finish: it was out of turns.",
        "writes did not finish: it was out of tokens.",
        "?",
        "yes",
    ]
    assert [run.ended.value for run in talk.stages[0].runs] == [
        "failed", "timeout", "tokens", "turns", "tokens", "gave_up", "finished",
    ]  # fmt: skip
    assert [run.steps for run in talk.stages[0].runs] == [0, 0, 0, 2, 1, 1, 1]


def test_critical_steps_are_a_budget_and_the_last_one_is_for_the_answer() -> None:
    calls = create() + assign("a")
    spent, _ = play([calls, assign("b"), "x"], critical_steps=5)
    assert spent.answered, "two stages of two steps, and one for the answer"
    late, _ = play([calls, assign("b"), assign("c"), "x"], critical_steps=5)
    assert not late.answered
    assert [len(stage.runs) for stage in late.stages] == [1, 1, 0]
    slow, team = play(
        [calls, "x"], says(*[written("find", {"text": "x"})] * 9), Bench(FIND), critical_steps=5, agent_turns=20
    )
    assert [run.steps for run in slow.stages[0].runs] == [3], "one for the turn and one for the answer are kept"
    assert slow.answered
    assert critical_steps(slow.stages) == 5
    assert "out of turns" in told(team, 1)[1]
    _, team = play([create(), create("s"), assign("a"), "x"], critical_steps=4)
    assert told(team, 3) == ["No critical steps are left for agents. Answer now."]


def test_what_is_left_is_told_behind_the_results() -> None:
    team = ScriptedTeam([create() + assign("a"), "x"], says("done"))
    made = Team(Caps(critical_steps=5), Bench(), note=lambda left: f" ({left} left)")
    asyncio.run(made.play(team, OPENING))
    assert told(team, 1) == ["ok", "done (3 left)"]


def test_agents_create_agents_down_to_the_stated_depth() -> None:
    def agents(name: str) -> PolicyHandle:
        if name == "r":
            return Scripted([create("deep") + assign("below", "deep"), "r done"])
        return Scripted(["deep done"])

    flat, team = play([create() + assign("a"), "x"], agents, depth=1)
    assert team.spawned[0].spawned == []
    assert flat.stages[0].runs[0].steps == 2
    deep, team = play([create() + assign("a"), "x"], agents, depth=2)
    assert [a.name for a in team.spawned[0].spawned] == ["deep"]
    run = deep.stages[0].runs[0]
    assert (run.steps, run.work) == (3, 3)
    assert run.tokens > flat.stages[0].runs[0].tokens


def test_long_results_are_cut_and_said_to_be() -> None:
    _, team = play([create() + assign("a"), "x"], says("y" * 500), result_chars=100)
    assert told(team, 1)[1] == "y" * 100 + " [cut: 400 of 500 characters]"


def test_results_for_which_the_context_has_no_room_are_shortened_before_anything_fails() -> None:
    class Small(ScriptedTeam):
        """Holds 300 characters of new messages."""

        async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
            if sum(len(m.content) for m in messages) > 300:
                raise PromptTooLong("full")
            return await super().chat(messages, tools)

    team = Small([create() + assign("a"), "x"], says("y" * 500))
    talk = asyncio.run(Team(Caps(), Bench()).play(team, OPENING))
    assert talk.answered
    assert told(team, 1)[1].endswith("[cut: there is no room for more]")
    full = Small([create() + assign("a") * 5, "x"], says("y" * 500))
    talk = asyncio.run(Team(Caps(), Bench()).play(full, OPENING))
    assert (talk.answered, talk.ended) == (False, Ended.TOKENS)
    with pytest.raises(PromptTooLong):
        asyncio.run(Team(Caps(), Bench()).play(Small(["x"], says("y")), [Message("user", "z" * 400)]))


def test_an_orchestrator_may_use_the_environment_s_tools_itself() -> None:
    talk, team = play([written("find", {"text": "x"}), "x"], bench=Bench(FIND))
    assert told(team, 1) == ["found x"]
    assert [len(stage.runs) for stage in talk.stages] == [0, 0]


def test_an_orchestrator_that_never_answers_is_out_of_turns() -> None:
    talk, _ = play([create("a"), create("b"), create("c")], turns=2)
    assert (talk.answered, talk.ended, len(talk.stages)) == (False, Ended.TURNS, 2)
