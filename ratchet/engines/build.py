"""Making engines: the runner for a device and an engine around it, or the way to one that lives elsewhere."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ratchet.config.schema import EngineSection
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Engine, Sampling
from ratchet.engines.dense import DenseRunner
from ratchet.engines.elsewhere import ElsewhereEngine, Place
from ratchet.engines.graphed import GraphedRunner, Replay
from ratchet.engines.http import Http
from ratchet.engines.local import LocalEngine
from ratchet.engines.native_runner import NativeRunner
from ratchet.engines.runner import Runner
from ratchet.engines.server import Reached
from ratchet.engines.sglang_server import SglangServer
from ratchet.engines.started import StartedServer
from ratchet.engines.vllm_inside import InsideOptions, VllmInside
from ratchet.engines.vllm_server import VllmServer, logprobs_mode
from ratchet.engines.weight_folder import WeightFolder
from ratchet.kernels import native
from ratchet.policy.checkpoint import split_weights
from ratchet.policy.policy import Policy

Note = Callable[[str], None]


def local_engine(policy: Policy, *, context: int, max_rows: int, replay: Replay | None = None) -> LocalEngine:
    """Return an engine for this policy's shape; weights are loaded by the synchroniser.

    `replay` says how a GPU decodes; a CPU without native kernels does it step by step.
    """
    shape, device = policy.shape, policy.device
    fast = device.type == "cpu" and native.available() and native.runs_heads_of(shape.head_size)
    if fast:
        runner: Runner = NativeRunner(shape, policy.dtype)
    elif device.type == "cuda":
        runner = GraphedRunner(shape, policy.dtype, device, replay or Replay(graphs=True))
    else:
        runner = DenseRunner(shape, policy.decoder.ops, device)
    return LocalEngine(runner, policy.tokenizer, context=context, max_rows=max_rows, device=policy.device)


def check_engine(config: EngineSection, sampling: Sampling) -> None:
    """Raise `ConfigError`, before anything long, for an engine that cannot be had or cannot draw as asked."""
    if config.name == "vllm":
        logprobs_mode(sampling)
        if not config.url and importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                'engine.name = "vllm" without engine.url runs vLLM in this process, and the library vllm is not '
                "installed here: pip install vllm, or set engine.url to a server."
            )
    if config.url and not config.command:
        asyncio.run(_reach(config))
    if config.command and shutil.which(config.command.split()[0]) is None:
        raise ConfigError(
            f'engine.command = "{config.command}": there is no program "{config.command.split()[0]}". Install it, or '
            "start the server yourself and leave engine.command out."
        )


async def _reach(config: EngineSection) -> None:
    """Return if the server answers. **Raises**: `ConfigError`."""
    server = Reached(Http(config.url, timeout_s=config.timeout_s), None, config.start_s)
    try:
        await server.open()
    finally:
        await server.close()


def engine_for(config: EngineSection, policy: Policy, *, context: int, sampling: Sampling, note: Note) -> Engine:
    """Return the engine that the config names. It holds no weights yet.

    `sampling` is the run's way of exploring. **Raises**: `ConfigError` if it cannot be had.
    """
    if config.name == "ratchet":
        replay = Replay(graphs=config.graphs, compiled=config.compile)
        return local_engine(policy, context=context, max_rows=config.max_rows, replay=replay)
    return ElsewhereEngine(
        _place(config, policy, context, sampling), context=context, max_rows=config.max_rows, note=note
    )


def _place(config: EngineSection, policy: Policy, context: int, sampling: Sampling) -> Place:
    def split(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return split_weights(weights, policy.shape)

    ends = policy.tokenizer.end_tokens
    folder = WeightFolder(config.folder, policy.save, split, policy.dtype)
    if config.name == "vllm" and not config.url:
        options = InsideOptions(context, config.max_rows, config.memory, config.options)
        return VllmInside(folder, ends, sampling, options)
    process = StartedServer(config.command, folder.start, _log(folder)) if config.command else None
    server = Reached(Http(config.url, timeout_s=config.timeout_s), process, config.start_s)
    if config.name == "vllm":
        return VllmServer(server, folder, ends, sampling)
    return SglangServer(server, folder, ends)


def _log(folder: WeightFolder) -> Path:
    return folder.folder / "server.log"
