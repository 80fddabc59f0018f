"""vLLM itself, where it is installed: in this process, or as a server that is started once and ends with the tests."""

from __future__ import annotations

import asyncio
import sys
from functools import cache
from importlib.util import find_spec

import pytest
from engine_requests import CONTEXT
from engines_themselves import ASKING, free_address, start_for_all

from ratchet.config.schema import EngineSection
from ratchet.core.protocols import Sampling
from ratchet.engines.build import engine_for
from ratchet.engines.elsewhere import ElsewhereEngine
from ratchet.engines.vllm_server import EXTENSION
from ratchet.policy.policy import Policy

MARKS = [
    pytest.mark.skipif(
        find_spec("vllm") is None,
        reason="vLLM itself is not installed here; it wants an environment of its own: docs/how-to/engines.md",
    ),
    pytest.mark.filterwarnings("default"),  # its warnings are its own
]
BUDGET = CONTEXT
"""Tokens vLLM computes at once: so few that the prompts of a batch do not fit in one step."""
CACHE = 1 << 26
"""Bytes of its cache: several engines live in one test."""
TOKENS = "vllm:generation_tokens_total"


def inside_itself(policy: Policy, sampling: Sampling) -> ElsewhereEngine:
    """Return an engine with vLLM in this process; it holds no weights yet."""
    options = {"enforce_eager": True, "max_num_batched_tokens": BUDGET, "kv_cache_memory_bytes": CACHE}
    section = EngineSection(name="vllm", max_rows=16, memory=0.1, options=options)
    engine = engine_for(section, policy, context=CONTEXT, sampling=sampling, note=lambda text: None)
    assert isinstance(engine, ElsewhereEngine)
    return engine


def serving(url: str, mode: str = "processed_logprobs", most: int = 20) -> str:
    """Return the command of a server at an address, as the documentation has it."""
    return (
        f"env VLLM_SERVER_DEV_MODE=1 {sys.executable} -W ignore -m vllm.entrypoints.openai.api_server "
        f"--model {{model}} --port {url.rpartition(':')[2]} --dtype float32 --enable-scale-out --enforce-eager "
        f"--max-model-len {CONTEXT} --max-num-seqs 16 --kv-cache-memory-bytes {CACHE} --max-logprobs {most} "
        f"--max-num-batched-tokens {BUDGET} --no-enable-chunked-prefill "
        f"--worker-extension-cls {EXTENSION} --logprobs-mode {mode}"
    )


@cache
def address(mode: str = "processed_logprobs", most: int = 20) -> str:
    """Return the address of a server that is up; started at the first call of its kind, ended with this process."""
    url = free_address()
    start_for_all(serving(url, mode, most), url)
    return url


def count(url: str, name: str, label: str = "") -> float:
    """Return one of a server's counters."""
    lines = ASKING.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{") and label in line)


async def some_tokens(engine: ElsewhereEngine, url: str = "") -> None:
    """Return when the answers in flight have a few tokens; a second server's `url` tells by its counter."""
    if url:
        before = count(url, TOKENS)
        while count(url, TOKENS) < before + 3:
            await asyncio.sleep(0)
        return
    while not any(len(one.tokens) > 3 for one in engine._place._asked.values()):
        await asyncio.sleep(0)
