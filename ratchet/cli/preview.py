"""What the policy is asked, shown before anything is trained on it."""

from __future__ import annotations

from ratchet.core.protocols import Environment
from ratchet.core.task import Split
from ratchet.policy.tokenizer import Tokenizer

LONGEST = 600
"""Characters of a message that are shown; what is left out is counted."""
MEASURED = 256
"""Prompts whose length is measured: as many as take a moment."""


def preview(environment: Environment, seed: int) -> str:
    """Return the first training task as the environment makes it: messages and gold answer."""
    task = environment.task(Split("train", seed), 0)
    lines = [f"{message.role}: {_shown(message.content)}" for message in task.prompt]
    if task.answer:
        lines.append(f"gold answer: {_shown(task.answer)}")
    return "\n".join(["The first training task:", *(f"  {line}" for line in "\n".join(lines).split("\n"))])


def lengths(environment: Environment, tokenizer: Tokenizer, context: int, seed: int) -> str:
    """Say how long prompts are and how many leave no room for an answer, measured on the first training tasks."""
    split = Split("train", seed)
    size = environment.num_tasks(split)
    count = MEASURED if size is None else min(MEASURED, size)
    found = sorted(len(tokenizer.chat(environment.task(split, index).prompt)) for index in range(count))
    full = sum(length >= context for length in found)
    said = f"Prompts: the first {count:,} have {found[0]:,} to {found[-1]:,} tokens; "
    if not full:
        return said + f"all of them leave room in a context of {context:,}."
    return said + (
        f"{full} of them leave no room in a context of {context:,}. Their attempts will be counted as prompt_too_long; "
        "nothing is ever cut. Raise policy.context or leave such rows out."
    )


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text) - LONGEST:,} more characters)"
