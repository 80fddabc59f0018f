"""What vLLM and SGLang themselves have in common in tests: a policy, a free port, a server started once."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Literal

import httpx
import torch
from engine_requests import CONTEXT, model

from ratchet.config.schema import EngineSection
from ratchet.core.protocols import Sampling
from ratchet.engines.build import engine_for
from ratchet.engines.elsewhere import ElsewhereEngine
from ratchet.engines.http import Http
from ratchet.engines.server import Reached
from ratchet.engines.started import StartedServer
from ratchet.policy.policy import Policy

START_S = 300.0
ASKING = httpx.Client()
"""Asks servers what they do; made once, for making one takes longer than a short answer."""


def fit(**changes: object) -> Policy:
    """A policy that vLLM has kernels for on CPUs too, with the head that it does not reload there by itself."""
    policy = model(**{"head_size": 32, "tied": True, **changes})
    if policy.shape.tied:  # as wide a head as an untied one makes a tied model say the same token again and again
        with torch.no_grad():
            policy.decoder.head.mul_(0.3)
    return policy


def behind(
    name: Literal["vllm", "sglang"], policy: Policy, sampling: Sampling, url: str, command: str = ""
) -> ElsewhereEngine:
    """Return an engine over a server; it holds no weights yet."""
    section = EngineSection(name=name, max_rows=16, url=url, command=command, start_s=START_S)
    engine = engine_for(section, policy, context=CONTEXT, sampling=sampling, note=lambda text: None)
    assert isinstance(engine, ElsewhereEngine)
    return engine


def free_address() -> str:
    """Return the address of a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


def start_for_all(command: str, url: str) -> None:
    """Start a server, wait until it is up, and let it end with this process."""
    folder = Path(tempfile.mkdtemp(prefix="ratchet-server-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    fit().save(folder / "model")

    async def start() -> None:
        server = StartedServer(command, folder / "model", folder / "log")
        reached = Reached(Http(url, timeout_s=60.0), server, START_S)
        await reached.reopen()
        await reached.http.close()

    asyncio.run(start())
