"""Entries of the metric dictionary: what a team of agents did. Means over the scored rollouts of a step."""

from __future__ import annotations

from ratchet.core.metric.entry import Better, Metric

TEAM = (
    Metric(
        "env/parallelism",
        "Agents at work at the same time, where any are: average parallelism.",
        "mean over the turns that launch agents of how many they launch; 0 if none does",
        "agents",
        "dips while few agents are paid, rises when accuracy asks for more",
        "0 means that no agent is launched: serial collapse, if it stays so",
    ),
    Metric(
        "env/critical_steps",
        "Turns of the longest chain: how long a rollout takes if all that can run at once does.",
        "sum over turns of 1 + the most steps of any agent launched in it",
        "steps",
        "at most environment.caps.critical_steps",
        better=Better.LOWER,
    ),
    Metric(
        "env/total_steps",
        "Turns of the orchestrator and of every agent.",
        "sum over turns of 1 + the steps of all agents launched in it, those below them included",
        "steps",
        "critical_steps times work_over_span",
    ),
    Metric(
        "env/work_over_span",
        "How many times longer one agent alone would take.",
        "total_steps / critical_steps",
        "times",
        "1 for work done alone; near parallelism for wide searches",
    ),
    Metric(
        "env/stages",
        "Turns of the orchestrator.",
        "number of turns",
        "turns",
        "at most environment.caps.turns",
    ),
    Metric(
        "env/launching_stages",
        "Turns of the orchestrator that launch agents.",
        "number of turns with at least one task assigned",
        "turns",
        "below env/stages by the turns that answer",
    ),
    Metric(
        "env/assigned",
        "Tasks given to agents.",
        "number of tasks assigned, refused calls not among them",
        "tasks",
        "parallelism times launching_stages, on average",
    ),
    Metric(
        "env/duplicates",
        "Tasks that had been assigned before, word for word.",
        "assigned tasks - different ones",
        "tasks",
        "near 0; much of it beside high parallelism is spurious parallelism",
        better=Better.LOWER,
    ),
    Metric(
        "env/finish_rate",
        "Share of assigned tasks that an agent finished.",
        "finished / assigned; rollouts that assign none are left out",
        "share",
        "falls as more agents compete; a term of PARL's reward",
        better=Better.HIGHER,
    ),
    Metric(
        "env/tokens/*",
        "Tokens sampled by role: the orchestrator's are trained on, the agents' are not.",
        "sum over the turns of the role",
        "tokens",
        "follows the number of turns and of agents",
    ),
    Metric(
        "env/seconds/*",
        "Time by role. The agents' adds up over agents that worked at the same time.",
        "sum over turns of the orchestrator, over runs of agents",
        "s",
        "follows the tokens and the load of the machine",
    ),
    Metric(
        "env/agents/*",
        "Assigned tasks by how they ended: finished, gave_up, out of turns or tokens, timeout, failed.",
        "number of tasks with this end",
        "tasks",
        "nearly all finished or given up",
    ),
)
