"""The reward probe as a table."""

from __future__ import annotations

import asyncio

from ratchet.cli.preview import preview
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.task import Split
from ratchet.environments.table import close_environment
from ratchet.rewards.probe import probe, verdict
from ratchet.run.parts import make_environment


def check(config: RunConfig, count: int) -> str:
    """Return what the reward gives for known texts. Raises `ConfigError` if gold does not pay."""
    environment = make_environment(config)
    try:
        split = Split("train", config.run.seed)
        size = environment.num_tasks(split)
        tasks = [environment.task(split, i) for i in range(count if size is None else min(count, size))]
        rows = asyncio.run(probe(environment, tasks))
        shown = preview(environment, config.run.seed)
    finally:
        close_environment(environment)
    lines = [f"{'text':<14}{'mean':>8}{'full marks':>13}{'no score':>11}"]
    lines += [f"{r.probe:<14}{r.mean:>8.3f}{r.full_share:>13.0%}{r.num_failed:>7} of {r.num_tasks}" for r in rows]
    findings = verdict(rows)
    errors = [f.text for f in findings if f.level == "error"]
    if errors:
        raise ConfigError("\n".join(["The reward cannot be trained on: " + " ".join(errors), *lines]))
    return "\n".join(
        [*lines, *(f"{f.level}: {f.text}" for f in findings)] + ([] if findings else ["Nothing amiss."]) + [shown]
    )
