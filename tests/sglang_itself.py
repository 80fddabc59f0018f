"""SGLang itself, where an interpreter has it: a server on the CPU that is started once and ends with the tests.

`RATCHET_SGLANG_PYTHON` names the interpreter: SGLang wants an environment of its own, and nothing of ours in it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
import sglang_on_cpu
from engine_requests import CONTEXT
from engines_themselves import ASKING, free_address, start_for_all

PYTHON = os.environ.get("RATCHET_SGLANG_PYTHON", "")
MARKS = [
    pytest.mark.skipif(
        not PYTHON, reason="RATCHET_SGLANG_PYTHON names no interpreter with SGLang: docs/how-to/engines.md"
    ),
]
WIDEST = 64
"""Most tokens that a cut may leave, as the server is started: more than the vocabulary of the tests' model."""


@cache
def _plugin() -> Path:
    """Return a folder in which SGLang finds its plugin, as if it were installed."""
    folder = Path(tempfile.mkdtemp(prefix="ratchet-sglang-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copy2(sglang_on_cpu.__file__, folder)
    facts = folder / "sglang_on_cpu-0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang-on-cpu\nVersion: 0\n")
    (facts / "entry_points.txt").write_text("[sglang.srt.plugins]\non_cpu = sglang_on_cpu:apply\n")
    return folder


def serving(url: str, *more: str) -> str:
    """Return the command of a server at an address."""
    return (
        f"env CUDA_VISIBLE_DEVICES= TRITON_INTERPRET=1 TORCHDYNAMO_DISABLE=1 PYTHONPATH={_plugin()} "
        "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1 "  # it keeps five positions back, and the model has no more
        f"{PYTHON} -W ignore -m sglang.launch_server --model-path {{model}} --port {url.rpartition(':')[2]} "
        f"--device cpu --dtype float32 --attention-backend triton --enable-deterministic-inference "
        f"--cuda-graph-backend-decode=disabled --cuda-graph-backend-prefill=disabled --skip-server-warmup "
        f"--context-length {CONTEXT + 5} --max-running-requests 16 --max-total-tokens 4096 "
        f"--sampling-mask-max-tokens {WIDEST} {' '.join(more)}"
    )


@cache
def address() -> str:
    """Return the address of a server that is up; started at the first call, ended with this process."""
    url = free_address()
    start_for_all(serving(url), url)
    return url


def load_of(url: str) -> dict[str, object]:
    """Return what the server says of its load, about a second old at most while it computes."""
    (load,) = ASKING.get(f"{url}/v1/loads").json()["loads"]
    return dict(load)


def tokens_so_far(url: str) -> float:
    """Return how many tokens the server has sampled, but for the first of each answer."""
    moments = load_of(url)["decode_moments"]
    assert isinstance(moments, list)
    return float(moments[1])


async def some_tokens(url: str) -> None:
    """Return when the answers in flight have a few tokens."""
    before = tokens_so_far(url)
    while tokens_so_far(url) < before + 3:
        await asyncio.sleep(0.02)
