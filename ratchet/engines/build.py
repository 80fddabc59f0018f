"""Making engines: the runner for a policy and a device and an engine around it, or the way to one elsewhere."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from ratchet.config.schema import EngineSection
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Engine, Sampling
from ratchet.core.rollout import Tokens
from ratchet.engines import sglang_server, vllm_server
from ratchet.engines.dense import DenseRunner
from ratchet.engines.elsewhere import ElsewhereEngine, Place
from ratchet.engines.graphed import GraphedRunner, Replay
from ratchet.engines.hosted_runner import HostedRunner
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
from ratchet.kernels.choose import ops_for
from ratchet.policy.decoder import Decoder
from ratchet.policy.policy import Policy

Note = Callable[[str], None]

EngineName = Literal["ratchet", "transformers"]


@dataclass(frozen=True, slots=True)
class Converting:
    """A runner that gets weights in another form than it reads: an adapter to be merged, other names."""

    runner: Runner
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """See `engines.runner.Runner`."""
        self.runner.load(self.convert(weights))

    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        """See `engines.runner.Runner`."""
        return self.runner.prefill(prompts, copies, room)

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """See `engines.runner.Runner`."""
        return self.runner.step(rows, tokens)

    def release(self, rows: Sequence[int]) -> None:
        """See `engines.runner.Runner`."""
        self.runner.release(rows)


def runner_for(policy: Policy, name: EngineName = "ratchet", replay: Replay | None = None) -> Runner:
    """Return what decodes for this policy: ours where its form and `name` allow it, else `transformers`.

    `replay` says how our own decodes on a GPU.
    """
    shape, device = policy.shape, policy.device
    if name == "transformers" or shape.counted:
        return Converting(HostedRunner(policy.hosted()), policy.stored_weights)
    if device.type == "cpu" and native.available() and native.runs_heads_of(shape.head_size) and shape.is_plain:
        runner: Runner = NativeRunner(shape, policy.dtype)
    elif device.type == "cuda":
        runner = GraphedRunner(shape, policy.dtype, device, replay or Replay(graphs=True))
    else:
        runner = DenseRunner(shape, ops_for(device, policy.dtype), device)
    return runner if policy.origin.base is None else Converting(runner, policy.own_weights)


def local_engine(
    policy: Policy, *, context: int, max_rows: int, name: EngineName = "ratchet", replay: Replay | None = None
) -> LocalEngine:
    """Return an engine for this policy; weights are loaded by the synchroniser."""
    runner = runner_for(policy, name, replay)
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


def check_server(config: EngineSection, policy: Policy, *, context: int, sampling: Sampling) -> None:
    """Raise `ConfigError` if the engine is a server that runs already and cannot serve this run: before a warm start,
    and before there is a run folder."""
    if not config.url or config.command:
        return

    async def ask(http: Http) -> None:
        if config.name == "vllm":
            await vllm_server.check_server(http, sampling, context=context, dtype=policy.dtype)
        else:
            vocab = policy.shape.vocab
            await sglang_server.check_server(http, sampling, context=context, vocab=vocab, dtype=policy.dtype)

    asyncio.run(_reach(config, ask))


async def _reach(config: EngineSection, ask: Callable[[Http], Awaitable[None]] | None = None) -> None:
    """Return if the server answers, and what is asked of it is there. **Raises**: `ConfigError`."""
    server = Reached(Http(config.url, timeout_s=config.timeout_s), None, config.start_s)
    try:
        await server.open()
        if ask is not None:
            await ask(server.http)
    finally:
        await server.close()


def engine_here(config: EngineSection, policy: Policy, *, context: int) -> LocalEngine:
    """Return an engine in this process, also where the config names one elsewhere: for frozen models and checkpoints.

    It holds no weights yet.
    """
    name: EngineName = "transformers" if config.name == "transformers" else "ratchet"
    replay = Replay(graphs=config.graphs, compiled=config.compile)
    return local_engine(policy, context=context, max_rows=config.max_rows, name=name, replay=replay)


def engine_for(config: EngineSection, policy: Policy, *, context: int, sampling: Sampling, note: Note) -> Engine:
    """Return the engine that the config names. It holds no weights yet.

    `sampling` is the run's way of exploring. **Raises**: `ConfigError` if it cannot be had.
    """
    if config.name in ("ratchet", "transformers"):
        return engine_here(config, policy, context=context)
    return ElsewhereEngine(
        _place(config, policy, context, sampling),
        context=context,
        max_rows=config.max_rows,
        note=note,
        digest=policy.fingerprint,
    )


def _place(config: EngineSection, policy: Policy, context: int, sampling: Sampling) -> Place:
    ends = policy.tokenizer.end_tokens
    folder = WeightFolder(
        config.folder,
        partial(policy.export, dtype=policy.dtype),
        policy.stored_weights,
        policy.dtype,
        readable=isinstance(policy.decoder, Decoder),
    )
    if config.name == "vllm" and not config.url:
        options = InsideOptions(context, config.max_rows, config.memory, config.options)
        return VllmInside(folder, ends, sampling, options)
    process = StartedServer(config.command, folder.start, _log(folder)) if config.command else None
    server = Reached(Http(config.url, timeout_s=config.timeout_s), process, config.start_s)
    if config.name == "vllm":
        return VllmServer(server, folder, ends, sampling, context=context)
    return SglangServer(server, folder, ends, sampling, context=context, vocab=policy.shape.vocab)


def _log(folder: WeightFolder) -> Path:
    return folder.folder / "server.log"
