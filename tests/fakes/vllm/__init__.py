"""A stand-in for the library vllm, for its adapter in this process: the same calls, over our own tiny model.

Only what `ratchet.engines.vllm_inside` calls of vLLM 0.32: an engine that is stepped by its caller, whose workers are
extended by a class given by name.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ratchet.engines.dense import DenseRunner
from ratchet.engines.sampling import draw, uniforms
from ratchet.policy.checkpoint import stored_names
from ratchet.policy.policy import Policy

THEIRS = {
    "qkv": "self_attn.qkv_proj", "q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm", "out": "self_attn.o_proj",
    "gate_up": "mlp.gate_up_proj", "down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
}  # fmt: skip
WHOLE = {"embedding": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "untied_head": "lm_head.weight"}


class EngineArgs(SimpleNamespace):
    """Arguments as they were given."""


class Model:
    """Its weights by vLLM's names."""

    def __init__(self, runner: DenseRunner) -> None:
        self.runner = runner

    def named_modules(self) -> Iterable[tuple[str, object]]:
        return ()  # none that packs its weights

    def get_parameter(self, name: str) -> Tensor:
        return dict(self.named_parameters())[name]

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        for name, weight in self.runner._decoder.named_parameters():
            _, layer, kind = name.split(".") if name.startswith("layers.") else ("", "", name)
            yield (f"model.layers.{layer}.{THEIRS[kind]}.weight" if layer else WHOLE[name]), weight


class LLMEngine:
    """One token for every request in flight at each step."""

    def __init__(self, args: EngineArgs) -> None:
        self.args, self.policy = args, Policy.load(args.model)
        self.runner = DenseRunner(self.policy.shape, self.policy.decoder.ops, self.policy.device)
        self.asked: dict[str, Any] = {}
        self.steps, self.hold_at, self.held, self.reached = 0, -1, False, threading.Event()
        self.fails = 0
        """How many of the next steps fail."""
        self.engine_core = SimpleNamespace(shutdown=lambda: None)
        module, _, name = args.worker_extension_cls.rpartition(".")
        self.worker = type("Worker", (getattr(importlib.import_module(module), name),), {})()
        self.worker.model_config = SimpleNamespace(
            logprobs_mode=args.logprobs_mode, max_logprobs=args.max_logprobs, dtype=torch.float32,
            max_model_len=args.max_model_len,
            get_head_size=lambda: self.policy.shape.head_size,
            hf_text_config=SimpleNamespace(
                tie_word_embeddings=self.policy.shape.tied, vocab_size=self.policy.shape.vocab
            ),
        )  # fmt: skip
        self.worker.vllm_config = SimpleNamespace(
            parallel_config=SimpleNamespace(tensor_parallel_size=1),
            scheduler_config=SimpleNamespace(enable_chunked_prefill=True),
        )
        self.worker.model_runner = SimpleNamespace(get_model=lambda: Model(self.runner))
        self.worker.reload_weights = self.reload

    @classmethod
    def from_engine_args(cls, args: EngineArgs) -> LLMEngine:
        return cls(args)

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        return [getattr(self.worker, method)(*args)]

    def reload(self, weights_iterator: Iterable[tuple[str, Tensor]]) -> None:
        stored: Mapping[str, Tensor] = dict(weights_iterator)
        names = stored_names(self.policy.shape).items()
        self.runner.load({ours: torch.cat([stored[name] for name, _ in theirs]) for ours, theirs in names})
        self.held = False

    def add_request(self, request_id: str, prompt: Mapping[str, Any], params: Any) -> None:
        tokens = np.array(prompt["prompt_token_ids"], dtype=np.int32)
        self.asked[request_id] = SimpleNamespace(prompt=tokens, params=params, row=None, said=[])

    def abort_request(self, request_ids: list[str]) -> None:
        for name in request_ids:
            self.let_go(name)

    def let_go(self, name: str) -> None:
        one = self.asked.pop(name)
        if one.row is not None:
            self.runner.release([one.row])

    def step(self) -> list[Any]:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("CUDA error, say")
        if self.steps == self.hold_at:
            self.hold_at, self.held = -1, True
            self.reached.set()
        if self.held:
            return []
        self.steps += 1
        return [self.advance(name, one) for name, one in list(self.asked.items())]

    def advance(self, name: str, one: Any) -> Any:
        if one.row is None:
            ((row,),), logits = self.runner.prefill([one.prompt], [1], one.params.max_tokens)
            one.row = row
        else:
            logits = self.runner.step([one.row], torch.tensor([one.said[-1]]))
        given = one.params
        uniform = torch.from_numpy(uniforms(np.array([given.seed], dtype=np.uint64), np.array([len(one.said)])))
        settings = (torch.tensor([given.temperature]), torch.tensor([given.top_p]), torch.tensor([given.top_k]))
        token, logprob, _ = draw(logits, uniform, *settings)
        one.said.append(int(token))
        row = {int(token): SimpleNamespace(logprob=float(logprob))}
        if self.args.logprobs_mode == "raw_logprobs":
            plain = logits[0].log_softmax(-1)
            chosen = [int(token), *plain.topk(given.logprobs).indices.tolist()]
            row = {t: SimpleNamespace(logprob=float(plain[t])) for t in dict.fromkeys(chosen)}
        text = self.policy.tokenizer.decode(one.said)
        matched = next((s for s in given.stop if s in text), None)
        finish, stop = None, None
        if one.said[-1] in given.stop_token_ids:
            finish, stop = "stop", one.said[-1]
        elif matched is not None:
            finish, stop = "stop", matched
        elif len(one.said) >= given.max_tokens:
            finish = "length"
        if finish:
            self.let_go(name)
        output = SimpleNamespace(token_ids=[int(token)], logprobs=[row], finish_reason=finish, stop_reason=stop)
        return SimpleNamespace(request_id=name, outputs=[output], finished=finish is not None)
