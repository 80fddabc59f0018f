"""What a run says of its model before the first step, and the largest batch tried before anything depends on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Engine
from ratchet.engines.build import Converting
from ratchet.engines.hosted_runner import HostedRunner
from ratchet.engines.local import LocalEngine
from ratchet.policy.policy import Policy
from ratchet.policy.template import prefix_breaks
from ratchet.run.parts import Parts
from ratchet.run.ranks import Rehearse

SHORT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""What torch says when memory runs out, in errors that have no class of their own."""


def computed_by(policy: Policy) -> str:
    """Return who computes the policy, as a clause; with the reason where it is not our own decoder."""
    origin = policy.origin
    if not origin.hosted:
        return "computed by our own decoder"
    return f"computed by transformers ({origin.hosted.rstrip('.')})"


def tell_model(parts: Parts) -> None:
    """Record where the model comes from, who computes it, and whether its chat template keeps what was said."""
    policy, origin = parts.policy, parts.policy.origin
    facts = {
        "model": parts.config.policy.model,
        "revision": origin.revision,
        "family": policy.shape.family,
        "decoder": "transformers" if origin.hosted else "own",
        "why": origin.hosted,
        "trained": policy.num_trained,
        "engine": decoded_by(parts.engine),
    }
    parts.store.append_event("model", 0, **facts)
    if origin.hosted:
        parts.observer.note(f"Model: {computed_by(policy)}")
    for one in prefix_breaks(policy.tokenizer):
        parts.store.append_event("chat_template", 0, what=str(one), at=one.at)
        parts.observer.note(str(one))


def rehearse(parts: Parts) -> None:
    """Run the largest pass and fill the largest cache before the first step, where the config wants it.

    Raises `ConfigError` with advice when memory runs out.
    """
    config, plan, device = parts.config, parts.plan, parts.policy.device
    wanted = config.train.worst_case_first
    if wanted == "never" or (wanted == "auto" and device.type != "cuda") or parts.state.step >= config.train.steps:
        return
    started = time.perf_counter()
    prompt = min(plan.prompt_tokens, plan.context_tokens - 1)
    answer = min(config.explore.max_tokens, plan.context_tokens - prompt)
    rows = min(plan.samples_per_step, config.engine.max_rows)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if isinstance(parts.engine, LocalEngine) and not config.data.from_run:
        with _advised(config, f"sampling {rows} answers of {answer:,} tokens", ENGINE_ADVICE):
            asyncio.run(parts.sync.arrive(parts.schedule.version_for(parts.state.step)))
            parts.engine.rehearse(np.zeros(prompt, dtype=np.int32), rows, answer)
    longest = max(prompt + answer, config.train.micro_batch_tokens)
    with _advised(config, f"training on a pass of {longest:,} tokens", TRAINING_ADVICE):
        parts.ranks.tell(Rehearse(prompt, answer))
        parts.trainer.rehearse(prompt, answer)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    facts = {"rows": rows, "tokens": longest, "seconds": round(time.perf_counter() - started, 3), "peak_bytes": peak}
    parts.store.append_event("worst_case", parts.state.step, **facts)


ENGINE_ADVICE = (
    "lower engine.max_rows",
    "lower explore.max_tokens or policy.context",
    'set policy.dtype = "bfloat16"',
)
TRAINING_ADVICE = (
    "lower train.micro_batch_tokens",
    "lower explore.max_tokens or policy.context",
    "set train.gradient_checkpointing = true",
    "set policy.lora.rank = 16",
    "set train.reference_kl = false",
    "lower train.max_logits",
)


@contextmanager
def _advised(config: RunConfig, doing: str, advice: tuple[str, ...]) -> Iterator[None]:
    """Turn running out of memory into a sentence that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in SHORT_OF_MEMORY):
            raise
        open_to = [one for one in advice if not _is_done(config, one)]
        raise ConfigError(
            f"The worst case does not fit into memory: {doing} ran out of it before the first step. To need less: "
            f'{"; ".join(open_to)}. ratchet explain says what takes how much; train.worst_case_first = "never" skips '
            "this trial."
        ) from None


def _is_done(config: RunConfig, advice: str) -> bool:
    """Whether a piece of advice is followed already."""
    return {
        'set policy.dtype = "bfloat16"': config.policy.dtype == "bfloat16",
        "set train.gradient_checkpointing = true": config.train.gradient_checkpointing,
        "set policy.lora.rank = 16": config.policy.lora.rank > 0 or not config.policy.model,
        "set train.reference_kl = false": not config.train.reference_kl,
    }.get(advice, False)


def decoded_by(engine: Engine) -> str:
    """Return what decodes, in a few words."""
    if not isinstance(engine, LocalEngine):
        return type(engine).__name__
    inner = engine.runner.runner if isinstance(engine.runner, Converting) else engine.runner
    if isinstance(inner, HostedRunner):
        return "transformers, " + ("with its cache" if inner.caches else "every token computed anew")
    return type(inner).__name__
