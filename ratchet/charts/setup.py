"""What a report says was trained, and how: read off the run's config and plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet.charts.document import Grid, plain
from ratchet.config.learning import AlgorithmSection
from ratchet.store.run_store import RunStore


def setup(store: RunStore, config: Mapping[str, Any]) -> Grid:
    """Say what was trained and how."""
    plan = store.plan()
    run, policy, explore = config.get("run", {}), config.get("policy", {}), config.get("explore", {})
    tiny = policy.get("tiny", {})
    model = policy.get("model") or f"tiny {tiny.get('family', 'model')}, made for this run"
    method = config.get("algorithm", {})
    defaults = {k: field.default for k, field in AlgorithmSection.model_fields.items()}
    known = {k: v for k, v in method.items() if k not in defaults or v != defaults[k]}
    warm = config.get("warm_start", {}).get("steps", 0)
    environment = config.get("environment", {})
    facts = [
        ("study", run.get("study") or "none named"),
        ("model", f"{model}; {plan.get('parameters', 0):,} weights, {policy.get('dtype', '?')}"),
        ("warm start", f"{warm} updates on demonstrations" if warm else "none"),
        ("environment", f"{environment.get('name')}{_options(environment)}"),
        ("algorithm", f"{method.get('name')}{_options(known)}"),
        (
            "batch",
            f"{plan.get('prompts_per_step')} prompts x {plan.get('samples_per_prompt')} samples, at most "
            f"{explore.get('max_tokens')} new tokens a turn, temperature {explore.get('temperature')}; "
            f"updates a step: {plan.get('updates_per_batch')}",
        ),
        ("data", _data(config)),
        ("seed", str(run.get("seed"))),
    ]
    return Grid(("what", "how"), [(name, plain(said)) for name, said in facts])


def _data(config: Mapping[str, Any]) -> str:
    """Say how old the data was, and whether it was used again."""
    sync, buffer, recorded = config.get("sync", {}), config.get("buffer", {}), config.get("data", {}).get("from_run")
    if recorded:
        said = f"the groups recorded in {recorded}"
    elif sync.get("offline"):
        said = "sampled by the starting policy alone (offline)"
    else:
        said = f"sampler refreshed with interval {_short(sync.get('interval'))}, offset {sync.get('offset')} (steps)"
        said += ", in the middle of answers too" if sync.get("partial_rollouts") else ""
    if buffer.get("kind") != "replay":
        return said
    prompts = buffer.get("train_prompts") or "as many groups as are sampled"
    return f"{said}; replay by {buffer.get('priority')}, trained per step: {prompts}"


def _options(values: Mapping[str, Any]) -> str:
    """Return the settings of a section in brackets, without its name and without long or empty ones."""
    said = [f"{k} = {_short(v)}" for k, v in values.items() if k != "name" and v not in ("", {}, [])]
    return f" ({', '.join(said)})" if said else ""


def _short(value: Any) -> str:
    """Return a setting on one line of a table."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_short(v)}" for k, v in value.items()) + "}"
    text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
