"""What a team of agents did, stage by stage, and the numbers that follow. Pure functions.

A stage is one turn of the orchestrator and what it launched; all agents of a stage run at the same time.

**Source**: Kimi K2.5, technical report (PARL, Agent Swarm): critical steps and the three-term reward. The report gives
neither a formula for average parallelism nor one for the parallel reward: ours are below, and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Ended(StrEnum):
    """How a sub-agent's work ended."""

    FINISHED = "finished"
    """It gave an answer."""
    GAVE_UP = "gave_up"
    """It said that it could not do its task."""
    TURNS = "turns"
    """It was out of turns."""
    TOKENS = "tokens"
    """It was out of tokens, or its context was full."""
    TIMEOUT = "timeout"
    FAILED = "failed"
    """Its server did not answer."""


@dataclass(frozen=True, slots=True)
class AgentRun:
    """One task that an agent worked on."""

    agent: str
    prompt: str
    ended: Ended
    steps: int
    """Its turns; if it launched agents itself, its critical steps."""
    work: int
    """Its turns and those of all agents below it."""
    tokens: int
    """Tokens it sampled."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One turn of the orchestrator."""

    runs: tuple[AgentRun, ...] = ()
    """What it launched; empty if it launched nothing."""


def critical_steps(stages: Sequence[Stage]) -> int:
    """Return ``sum_t (1 + max_i steps_ti)``: the length of the longest chain of turns (K2.5 report)."""
    return sum(1 + max((run.steps for run in stage.runs), default=0) for stage in stages)


def total_steps(stages: Sequence[Stage]) -> int:
    """Return all turns of the orchestrator and of every agent."""
    return sum(1 + sum(run.work for run in stage.runs) for stage in stages)


def parallelism(stages: Sequence[Stage]) -> float:
    """Return the mean number of agents over the stages that launch any; 0 if none does (our definition)."""
    sizes = [len(stage.runs) for stage in stages if stage.runs]
    return sum(sizes) / len(sizes) if sizes else 0.0


def work_over_span(stages: Sequence[Stage]) -> float:
    """Return all turns over critical steps: how many times longer one agent alone would take; 1 without a stage."""
    return total_steps(stages) / critical_steps(stages) if stages else 1.0


def finish_rate(stages: Sequence[Stage]) -> float:
    """Return the share of assigned tasks that were finished; 0 if none was assigned (r_finish of the K2.5 report)."""
    runs = [run for stage in stages for run in stage.runs]
    return sum(run.ended is Ended.FINISHED for run in runs) / len(runs) if runs else 0.0


def duplicates(stages: Sequence[Stage]) -> int:
    """Return how many assigned tasks had been assigned before, word for word."""
    prompts = [run.prompt.strip() for stage in stages for run in stage.runs]
    return len(prompts) - len(set(prompts))


def parallel_term(stages: Sequence[Stage], most: int) -> float:
    """Return the different tasks assigned, as a share of `most`, at most 1 (r_parallel; the formula is ours).

    Counting different ones keeps an orchestrator from being paid for the same task many times.
    """
    prompts = {run.prompt.strip() for stage in stages for run in stage.runs}
    return min(1.0, len(prompts) / most)


def team_metrics(stages: Sequence[Stage], *, tokens: int, seconds: float) -> dict[str, float]:
    """Return the metrics of one rollout; `tokens` and `seconds` are the orchestrator's own."""
    runs = [run for stage in stages for run in stage.runs]
    facts = {
        "critical_steps": float(critical_steps(stages)),
        "total_steps": float(total_steps(stages)),
        "stages": float(len(stages)),
        "launching_stages": float(sum(bool(stage.runs) for stage in stages)),
        "parallelism": parallelism(stages),
        "work_over_span": work_over_span(stages),
        "assigned": float(len(runs)),
        "duplicates": float(duplicates(stages)),
        "tokens/orchestrator": float(tokens),
        "tokens/agents": float(sum(run.tokens for run in runs)),
        "seconds/orchestrator": seconds,
        "seconds/agents": sum(run.seconds for run in runs),
    }
    if runs:
        facts["finish_rate"] = finish_rate(stages)
    return facts | {f"agents/{how.value}": float(sum(run.ended is how for run in runs)) for how in Ended}
