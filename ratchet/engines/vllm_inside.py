"""vLLM in this process, and what its workers are extended with. The one file that imports vllm.

Called by `engines.build` for ``engine.name = "vllm"`` without an ``engine.url``; a vLLM server loads `RatchetWorker`
by name. Written against vLLM 0.32: `v1/engine/llm_engine`, `v1/sample/sampler`, `model_executor/model_loader/reload`;
run with its build for CPUs.

One step of vLLM blocks this engine's thread, so cancellations and loads come between two steps, and how many tokens
an answer had at a load is known exactly.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ratchet.core.errors import ConfigError, EngineError
from ratchet.core.protocols import Request, Sampling
from ratchet.engines.elsewhere import Answer, EngineGone, Label
from ratchet.engines.vllm_server import (
    EXTENSION,
    answer_of,
    check_facts,
    check_read_back,
    logprobs_mode,
    sampling_fields,
)
from ratchet.engines.weight_folder import WeightFolder
from ratchet.policy.policy import fingerprint

_OURS = {
    "self_attn.qkv_proj.weight": "qkv", "self_attn.qkv_proj.bias": "qkv_bias", "self_attn.q_norm.weight": "q_norm",
    "self_attn.k_norm.weight": "k_norm", "self_attn.o_proj.weight": "out", "mlp.gate_up_proj.weight": "gate_up",
    "mlp.down_proj.weight": "down", "input_layernorm.weight": "attn_norm",
    "post_attention_layernorm.weight": "mlp_norm",
}  # fmt: skip
"""vLLM's names of a layer's weights, which it fuses as we do, and ours."""
_WHOLE = {"model.embed_tokens.weight": "embedding", "model.norm.weight": "final_norm", "lm_head.weight": "untied_head"}


MOST_UNPACKED = 2e11
"""Most multiplications for reading packed weights back: a few seconds of one core. Larger models are not read back."""


def read_back(parameters: Iterable[tuple[str, Tensor]], vocab: int, *, tied: bool) -> str:
    """Return the fingerprint of the weights a model of vLLM holds; empty where they cannot be read back.

    That is where a weight has no place in our decoder, or was packed for a kernel and emptied. `tied` models whose head
    is not their embedding have none that a policy could have: `TORN`.
    """
    found: dict[str, Tensor] = {}
    tied_head: Tensor | None = None
    for name, weight in parameters:
        if tied and name == "lm_head.weight":
            tied_head = weight.detach()[:vocab]
            continue
        layer, _, kind = name.removeprefix("model.layers.").partition(".")
        ours = _WHOLE.get(name) or (f"layers.{layer}.{_OURS[kind]}" if kind in _OURS else "")
        if not ours or not weight.numel():
            return ""
        found[ours] = weight.detach()[:vocab] if ours in ("embedding", "untied_head") else weight.detach()
    if tied_head is not None and not torch.equal(tied_head, found["embedding"]):
        return TORN
    return fingerprint(found)


TORN = "with a head that is not their embedding"
"""What `read_back` says of a tied model whose two uses of one weight differ."""


def held(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that a model of vLLM computes with, by its names.

    On CPUs it packs matrices for their kernels and empties them; what a packed one holds comes out when it is given the
    unit vectors, exactly. Those too costly to ask (`MOST_UNPACKED`) stay empty.
    """
    packed = {n: m for n, m in model.named_modules() if "cpu_linear" in vars(m) and n != "model.embed_tokens"}
    cost = sum(m.output_size_per_partition * m.input_size_per_partition**2 for m in packed.values())
    heads = ("lm_head.weight",) if "lm_head" in packed else ()
    for name in dict.fromkeys([*(n for n, _ in model.named_parameters()), *heads]):
        owner = name.removesuffix(".weight")
        if owner in packed and cost <= MOST_UNPACKED:
            module = packed[owner]
            units = torch.eye(module.input_size_per_partition, dtype=module.weight.dtype)
            yield name, module.cpu_linear(units, module.weight, None).T
        else:
            yield name, model.get_parameter(name)


class RatchetWorker:
    """Methods that vLLM adds to its worker class: ``--worker-extension-cls``. It is never instantiated by itself."""

    model_runner: Any
    model_config: Any
    vllm_config: Any
    reload_weights: Any

    def ratchet_facts(self) -> dict[str, Any]:
        """Return what decides whether this engine can serve a run."""
        config = self.model_config
        splits = bool(self.vllm_config.scheduler_config.enable_chunked_prefill)
        return {
            "logprobs_mode": str(config.logprobs_mode),
            "max_logprobs": int(config.max_logprobs),
            "max_model_len": int(config.max_model_len),
            "dtype": str(config.dtype).removeprefix("torch."),
            "unfit": _unfit(int(config.get_head_size()), splits=splits),
        }

    def ratchet_load(self, folder: str) -> dict[str, str]:
        """Put the weights of a model folder in place of those held; return what is held then."""
        self.reload_weights(weights_path=folder)
        return self.ratchet_loaded()

    def ratchet_load_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Put weights of this process, by the names of `transformers`, in place of those held."""
        self.reload_weights(weights_iterator=iter(tensors.items()))
        return self.ratchet_loaded()

    def ratchet_loaded(self) -> dict[str, str]:
        """Finish a load; return the fingerprint of what is held, empty where it cannot be read back."""
        model, hf = self.model_runner.get_model(), self.model_config.hf_text_config
        tied = bool(hf.tie_word_embeddings)
        if tied and _on_cpu():
            _pack_head(model)
        if self.vllm_config.parallel_config.tensor_parallel_size != 1:
            return {"digest": ""}
        return {"digest": read_back(held(model), int(hf.vocab_size), tied=tied)}


def _unfit(head_size: int, *, splits: bool) -> str:
    """Return why vLLM would fail in the middle of a run, and what to do; empty if nothing is known.

    On CPUs it takes any size of head and fails in its first step, and fails over a request with a seed whose prompt is
    computed in pieces (`splits`): torch's generators have no offset there for it to set back.
    """
    if not _on_cpu():
        return ""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    sizes = CPUAttentionBackend.get_supported_head_sizes()
    if head_size not in sizes:
        return (
            f"the model's heads have {head_size} channels, and on CPUs vLLM has kernels for "
            f'{", ".join(map(str, sizes))} alone. Take another model, or engine.name = "ratchet"'
        )
    if splits:
        return "on CPUs vLLM fails over a seed when it splits a prompt. Start it with --no-enable-chunked-prefill"
    return ""


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _pack_head(model: Any) -> None:
    """Pack a tied head again after a reload.

    On CPUs vLLM 0.32 packs the head at the first load, and a reload keeps the old one without a word: log-probabilities
    were off by 0.6 to 1.0. To be removed when `reload_weights` of a tied model does it.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    if model.lm_head.weight.numel():
        dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


@contextmanager
def _nothing_else_changed() -> Iterator[None]:
    """Give this process back what making vLLM takes from it: it seeds every global generator anew, and on CPUs puts a
    function that does nothing in the place of ``torch.set_num_threads``."""
    threads, python, numpy, plain = (
        torch.set_num_threads,
        random.getstate(),
        np.random.get_state(),
        torch.get_rng_state(),
    )
    try:
        yield
    finally:
        torch.set_num_threads = threads
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(plain)


@dataclass(slots=True, eq=False)
class _Asked:
    """A request in flight and who waits for it."""

    request: Request
    future: asyncio.Future[Answer]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[list[float]] = field(default_factory=list)
    spans: list[tuple[int, Label]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class InsideOptions:
    """How vLLM is made in this process."""

    context: int
    max_rows: int
    memory: float
    """Share of the GPU's memory that it takes."""
    more: Mapping[str, object]
    """Further engine arguments."""


class VllmInside:
    """A `Place`."""

    def __init__(self, folder: WeightFolder, ends: Sequence[int], sampling: Sampling, options: InsideOptions) -> None:
        self._folder, self._ends, self._sampling, self._options = folder, tuple(ends), sampling, options
        self._engine: Any = None
        self._asked: dict[str, _Asked] = {}
        self._label: Label | None = None
        self._pump: asyncio.Task[None] | None = None

    async def open(self) -> None:
        logprobs_mode(self._sampling)
        try:
            import vllm
        except ImportError as error:
            raise ConfigError(
                f'engine.name = "vllm" needs the library vllm in this environment ({error}): pip install vllm, or set '
                "engine.url to a server."
            ) from None
        # Its core in this process, so that weights are handed over without a copy. Read when the engine is made.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        arguments = {
            "model": str(self._folder.start),
            "dtype": self._folder.dtype,
            "max_model_len": self._options.context,
            "max_num_seqs": self._options.max_rows,
            "gpu_memory_utilization": self._options.memory,
            "logprobs_mode": logprobs_mode(self._sampling),
            "max_logprobs": max(20, self._sampling.top_k),
            "worker_extension_cls": EXTENSION,
            "disable_log_stats": True,
            "async_scheduling": False,  # a token computed ahead of a load would come out after it
            **({"enable_chunked_prefill": False} if _on_cpu() else {}),  # see _unfit
            **self._options.more,
        }
        try:
            with _nothing_else_changed():
                self._engine = vllm.LLMEngine.from_engine_args(vllm.EngineArgs(**arguments))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f'engine.name = "vllm" cannot be made: {error}. Look at engine.options and policy.model.'
            ) from None
        facts = self._rpc("ratchet_facts")
        check_facts(facts, self._sampling, context=self._options.context, dtype=self._folder.dtype)

    async def reopen(self) -> None:
        self._drop()
        await self.open()

    async def generate(self, request: Request, name: str) -> Answer:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        assert self._label is not None
        fields = sampling_fields(request, self._ends, self._sampling.top_k)
        prompt = {"prompt_token_ids": request.prompt.tolist(), "cache_salt": str(self._label)}
        asked = _Asked(request, asyncio.get_running_loop().create_future(), spans=[(0, self._label)])
        try:
            self._engine.add_request(name, prompt, SamplingParams(**fields, output_kind=RequestOutputKind.DELTA))
        except ValueError as error:
            raise EngineError(f"vLLM refuses a request: {error}.") from None
        self._asked[name] = asked
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())
        return await asked.future

    async def abort(self, name: str) -> None:
        if self._asked.pop(name, None) is not None:
            self._engine.abort_request([name])

    async def load(self, weights: Mapping[str, Tensor], label: Label) -> None:
        try:
            facts = self._rpc("ratchet_load_tensors", self._folder.tensors(weights))
        except RuntimeError as error:
            raise EngineGone(f"vLLM failed while it took weights: {error}.") from None
        self._label = label
        for asked in self._asked.values():
            if not asked.tokens:
                asked.spans = [(0, label)]
            else:
                asked.spans.append((len(asked.tokens), label))
        check_read_back(facts, label, self._folder, weights)

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        self._drop()
        self._folder.remove()

    def _rpc(self, method: str, *args: object) -> Mapping[str, Any]:
        return dict(self._engine.collective_rpc(method, args=args)[0])

    def _drop(self) -> None:
        """Let the engine go, and its memory with it."""
        if self._engine is not None:
            self._engine.engine_core.shutdown()
        self._engine = None
        self._fail(EngineGone("vLLM was ended."))

    def _fail(self, gone: EngineGone) -> None:
        for asked in self._asked.values():
            if not asked.future.done():
                asked.future.set_exception(gone)
        self._asked = {}

    async def _run(self) -> None:
        """Step vLLM until nothing is in flight; between two steps the other calls get their turn."""
        from vllm.exceptions import VLLMError

        while self._asked:
            await asyncio.sleep(0)
            try:
                outputs = self._engine.step()
            except (RuntimeError, ValueError, VLLMError) as error:  # torch's own errors are RuntimeErrors
                self._fail(EngineGone(f"vLLM failed in a step: {type(error).__name__}: {error}."))
                return
            for output in outputs:
                self._take(output)

    def _take(self, output: Any) -> None:
        """Add the new tokens of an answer, and hand it out if it is done."""
        asked = self._asked.get(output.request_id)
        if asked is None:  # cancelled in this very step
            return
        one = output.outputs[0]
        for token, row in zip(one.token_ids, one.logprobs or (), strict=True):
            asked.tokens.append(int(token))
            asked.logprobs.append(float(row[token].logprob))
            asked.top.append([float(entry.logprob) for entry in row.values()])
        if not output.finished:
            return
        del self._asked[output.request_id]
        if asked.future.done():
            return
        try:
            spans = tuple(span for span in asked.spans if span[0] < len(asked.tokens) or span[0] == 0)
            answer = answer_of(
                asked.tokens, asked.logprobs, asked.top, asked.request, finish=str(one.finish_reason),
                stop=one.stop_reason, ends=self._ends, spans=spans,
            )  # fmt: skip
        except EngineGone as gone:
            asked.future.set_exception(gone)
        else:
            asked.future.set_result(answer)
