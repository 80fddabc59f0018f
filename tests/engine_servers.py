"""Servers that speak the documented APIs of vLLM and SGLang over our own tiny engine, on this machine's own loopback.

What they answer follows the source of vLLM 0.32 (`/inference/v1/generate`, `/collective_rpc`, `/pause`, ...) and
SGLang 0.5.23 (`/generate`, `/update_weights_from_disk`, ...). They let a test stop the model between two tokens, die,
and count what is in flight, so that the adapters are tried at the moments that matter.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from ratchet.config.schema import EngineSection
from ratchet.core.protocols import Completion, Request, Sampling
from ratchet.core.rollout import StopReason, Tokens
from ratchet.engines.build import engine_for
from ratchet.engines.dense import DenseRunner
from ratchet.engines.elsewhere import ElsewhereEngine
from ratchet.engines.local import LocalEngine
from ratchet.policy.policy import Policy, fingerprint

T = TypeVar("T")
Answer = tuple[int, Any]
"""Status and JSON of a reply; status 0 cuts the connection."""


@dataclass
class Gate:
    """A runner that a test can stop between two tokens."""

    runner: DenseRunner
    hold_at: int = -1
    """Steps after which it stops by itself, once; -1 never."""
    steps: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)
    inside: threading.Lock = field(default_factory=threading.Lock)
    errands: deque[Callable[[], None]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.free.set()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        self.runner.load(weights)

    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        return self.when_free(lambda: self.runner.prefill(prompts, copies, room))

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        if self.steps == self.hold_at:
            self.free.clear()
            self.reached.set()
        self.steps += 1
        return self.when_free(lambda: self.runner.step(rows, tokens))

    def when_free(self, work: Callable[[], T]) -> T:
        """Return what `work` does, done at a moment when nobody has stopped the model. Errands are run meanwhile."""
        while True:
            while not self.free.wait(0.005):
                self.run_errands()
            with self.inside:
                if self.free.is_set():
                    return work()

    def release(self, rows: Sequence[int]) -> None:
        self.runner.release(rows)

    def run_errands(self) -> None:
        """Do what other threads want done in the model's own."""
        while self.errands:
            self.errands.popleft()()

    def stop(self) -> None:
        """Return when no step is being computed, and let none begin."""
        self.free.clear()
        with self.inside:
            return


class Served:
    """A tiny engine in a thread of its own, behind HTTP."""

    def __init__(self, policy: Policy, context: int) -> None:
        self.policy = Policy(policy.decoder, policy.tokenizer, policy.device, policy.dtype)
        self.context = self.longest = context
        """Most tokens of prompt and answer together: of its engine, and what it says when asked."""
        self.gate = Gate(DenseRunner(policy.shape, policy.decoder.ops, policy.device))
        self.engine = LocalEngine(self.gate, policy.tokenizer, context=context, max_rows=64, device=policy.device)
        self.label, self.labels = "default", {-1: "default"}
        self.asked: list[tuple[str, Any]] = []
        """Path and body of every request."""
        self.in_flight: dict[str, Future[Completion]] = {}
        self.ended = threading.Condition()
        self.aborted: list[str] = []
        self.dead = False
        """While it is, every connection is cut."""
        self.dies = 0
        """How many of the next generations are cut off."""
        self.watch: Callable[[str, Any], None] = lambda path, body: None
        """Told of every request."""
        self.forgets = False
        """Whether it keeps the old weights and says nothing."""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.answer(json.loads(text) if text else None)

            def answer(self, body: Any) -> None:
                status, reply = (0, None) if server.dead else server.reply(self.path, body)
                if status == 0:
                    self.close_connection = True
                    return
                out = b"" if reply is None else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:  # the other side is gone
                    self.close_connection = True

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.listener = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.listener.start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def close(self) -> None:
        self.gate.free.set()
        self.http.shutdown()
        self.http.server_close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.listener.join()
        self.loop.close()

    def reply(self, path: str, body: Any) -> Answer:
        """Return the answer to one request."""
        self.asked.append((path, body))
        self.watch(path, body)
        path, _, query = path.partition("?")
        if path.endswith("generate") and body is None:  # cancelled before it was sent whole
            return 0, None
        return self.answers(path, body if body is not None else query)

    def answers(self, path: str, body: Any) -> Answer:
        raise NotImplementedError

    def generate(self, name: str, tokens: Sequence[int], sampling: Sampling, seed: int) -> Completion | None:
        """Return what the engine says; None if the server died over it or it was aborted."""
        if self.dies:
            self.dies -= 1
            return None
        request = Request(torch.tensor(tokens, dtype=torch.int32).numpy(), sampling, seed)
        waiting = asyncio.run_coroutine_threadsafe(self.engine.generate(request), self.loop)
        self.in_flight[name] = waiting
        try:
            return waiting.result(60)
        except CancelledError:
            return None
        finally:
            with self.ended:
                del self.in_flight[name]
                self.ended.notify_all()

    def is_idle(self) -> bool:
        """Return whether nothing is in flight any more, and no row is held, within ten seconds."""
        with self.ended:
            idle = self.ended.wait_for(lambda: not self.in_flight, 10)
        waiting = asyncio.run_coroutine_threadsafe(self.engine.generate(self.short()), self.loop)
        waiting.result(10)  # the engine lets go of cancelled rows before it goes on
        return idle and not self.gate.runner._rows

    def short(self) -> Request:
        """A request of one token."""
        return Request(self.policy.tokenizer.encode("a"), Sampling(max_tokens=1), 1)

    def abort(self, name: str) -> None:
        self.aborted.append(name)
        if name in self.in_flight:
            self.in_flight[name].cancel()

    def load(self, folder: str) -> None:
        """Put the weights of a checkpoint folder in place. The model must stand still."""
        if self.forgets:
            return
        stored = load_file(Path(folder) / "model.safetensors")
        self.weights = joined(stored, self.policy)
        done = threading.Event()

        def load() -> None:  # its version marks the rows in flight; the label gives it its name later
            self.engine.load(self.weights, self.engine.version + 1, "")
            done.set()

        self.gate.errands.append(load)  # in the engine's own thread, which is waiting at the gate or at its loop
        self.loop.call_soon_threadsafe(self.gate.run_errands)
        assert done.wait(60)

    def name_weights(self, label: str) -> None:
        self.label = label
        self.labels[self.engine.version] = label

    def digest(self) -> str:
        held = {n: p.detach() for n, p in self.gate.runner._decoder.named_parameters()}
        return fingerprint(held)

    def spans(self, done: Completion) -> list[dict[str, Any]]:
        """Return which weights sampled which tokens, in the form that both servers use."""
        starts = [(0, done.version), *done.switches]
        ends = [*(place for place, _ in starts[1:]), len(done.output)]
        return [
            {"version": self.labels[v], "start": s, "end": e} for (s, v), e in zip(starts, ends, strict=True) if e > s
        ]


class FakeVllm(Served):
    """`vllm serve` with the worker extension of this project."""

    mode, max_logprobs, unfit = "processed_logprobs", 20, ""
    scaled_out, extended = True, True
    """Whether it was started with --enable-scale-out and with --worker-extension-cls."""

    def answers(self, path: str, body: Any) -> Answer:
        if path == "/health":
            return 200, None
        if path.startswith("/inference") and not self.scaled_out:
            return 403, {"error": {"message": "Scale-out endpoints are disabled.", "code": 403}}
        if path == "/inference/v1/generate":
            return self.inference(body)
        if path == "/inference/v1/abort_requests":
            for name in body["request_ids"]:
                self.abort(name)
            return 200, None
        if path == "/pause":
            self.gate.stop()
            return 200, {"status": "paused"}
        if path == "/resume":
            self.gate.free.set()
            return 200, {"status": "resumed"}
        if path == "/update_weight_version":
            self.name_weights(body["new_version"])
            return 200, {"success": True, "new_version": body["new_version"]}
        if path == "/collective_rpc" and not self.extended:
            return 500, {"error": {"message": "Call to collective_rpc method failed", "code": 500}}
        if path == "/collective_rpc" and body["method"] == "ratchet_facts":
            facts = {"logprobs_mode": self.mode, "max_logprobs": self.max_logprobs}
            facts |= {"dtype": self.policy.dtype, "unfit": self.unfit, "max_model_len": self.longest}
            return 200, {"results": [facts]}
        if path == "/collective_rpc" and body["method"] == "ratchet_load":
            self.load(body["args"][0])
            return 200, {"results": [{"digest": self.digest()}]}
        return 404, {"detail": "Not Found"}

    def inference(self, body: Any) -> Answer:
        given = body["sampling_params"]
        assert given["ignore_eos"], "the policy's own end tokens are named"
        sampling = Sampling(
            given["max_tokens"], given["temperature"], given["top_p"], given["top_k"], tuple(given["stop"]),
            tuple(given["stop_token_ids"]),
        )  # fmt: skip
        done = self.generate(body["request_id"], body["token_ids"], sampling, given["seed"])
        if done is None:
            return 0, None
        content = self.logprobs(body["token_ids"], done, given)
        finish, reason = finished(done, self.policy, sampling)
        choice = {
            "index": 0, "token_ids": done.output.tolist(), "logprobs": {"content": content}, "finish_reason": finish,
            "stop_reason": reason, "weight_versions": self.spans(done),
        }  # fmt: skip
        return 200, {"request_id": body["request_id"], "choices": [choice]}

    def logprobs(self, prompt: Sequence[int], done: Completion, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        """In the mode of this server: of the distribution drawn from, or of the plain one with the largest."""
        if self.mode == "processed_logprobs":
            return [
                {"token_id": int(t), "logprob": float(p), "rank": 1, "top_logprobs": []}
                for t, p in zip(done.output, done.logprobs, strict=True)
            ]
        plain = plain_logprobs(self.policy, prompt, done.output.tolist(), self.weights)
        rows = []
        for token, row in zip(done.output.tolist(), plain, strict=True):
            chosen = [token, *(t for t in row.topk(given["logprobs"]).indices.tolist() if t != token)]
            chosen = chosen[: max(1, given["logprobs"])]
            top = [{"token_id": t, "logprob": float(row[t]), "rank": None} for t in chosen]
            rows.append({"token_id": token, "logprob": float(row[token]), "rank": 1, "top_logprobs": top})
        return rows


class FakeSglang(Served):
    """`sglang.launch_server --enable-deterministic-inference`."""

    deterministic, widest = True, 4096
    """Whether it draws by the seeds of requests, and its --sampling-mask-max-tokens."""

    def answers(self, path: str, body: Any) -> Answer:
        if path == "/health":
            return 200, None
        if path == "/server_info":
            facts = {"enable_deterministic_inference": self.deterministic, "sampling_mask_max_tokens": self.widest}
            return 200, {**facts, "max_req_input_len": self.longest - 1, "dtype": self.policy.dtype}
        if path == "/weights_checker":
            assert body == {"action": "checksum"}
            return 200, {"success": True, "message": "Success.", "per_engine_checksum": self.digest()[::-1]}
        if path == "/model_info":
            return 200, {"weight_version": self.label}
        if path == "/abort_request":
            self.abort(body["rid"])
            return 200, None
        if path == "/pause_generation":
            assert body["mode"] == "retract"
            self.gate.stop()
            return 200, {"status": "ok"}
        if path == "/continue_generation":
            self.gate.free.set()
            return 200, {"status": "ok"}
        if path == "/update_weights_from_disk":
            if not Path(body["model_path"]).is_dir():
                return 400, {"success": False, "message": "no such folder"}
            self.load(body["model_path"])
            self.name_weights(body["weight_version"])
            return 200, {"success": True, "message": "Succeeded.", "num_paused_requests": 0}
        return self.said(body) if path == "/generate" else (404, None)

    def said(self, body: Any) -> Answer:
        given = body["sampling_params"]
        assert body["return_logprob"]
        assert given["no_stop_trim"]
        if body.get("return_sampling_mask") and not 1 <= given["top_k"] <= self.widest:
            return 400, {"error": {"message": f"return_sampling_mask requires 1 < top_k <= {self.widest}"}}
        sampling = Sampling(
            given["max_new_tokens"], given["temperature"], given["top_p"], max(0, given["top_k"]), tuple(given["stop"]),
            tuple(given["stop_token_ids"]),
        )  # fmt: skip
        done = self.generate(body["rid"], body["input_ids"], sampling, given["sampling_seed"])
        if done is None:
            return 0, None
        whole = done.logprobs + (done.log_kept if len(done.log_kept) else 0.0)
        finish, reason = finished(done, self.policy, sampling)
        meta: dict[str, Any] = {
            "id": body["rid"],
            "output_token_logprobs": [[float(p), int(t), None] for p, t in zip(whole, done.output, strict=True)],
            "finish_reason": {"type": finish, "matched": reason},
            "weight_version": self.label,
            "weight_versions": self.spans(done),
        }
        if body.get("return_sampling_mask"):
            meta["output_token_sampling_logprobs"] = [float(p) for p in done.logprobs]
        return 200, {"text": "", "output_ids": done.output.tolist(), "meta_info": meta}


def served(kind: str, policy: Policy, context: int, sampling: Sampling) -> tuple[ElsewhereEngine, Served]:
    """Return an engine whose tokens come from a fake server of a kind, with the policy's weights, and the server."""
    server: Served = FakeSglang(policy, context) if kind == "sglang" else FakeVllm(policy, context)
    if isinstance(server, FakeVllm) and sampling.top_k:
        server.mode, server.max_logprobs = "raw_logprobs", sampling.top_k
    engine = reached(kind, server.url, policy, context, sampling)
    engine.load(policy.weights(), 0, policy.fingerprint())
    return engine, server


@contextmanager
def standing_in_for_vllm() -> Iterator[None]:
    """Let `import vllm` find the stand-in in tests/fakes while this lasts."""
    folder = str(Path(__file__).parent / "fakes")
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "vllm"}
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in [n for n in sys.modules if n.partition(".")[0] == "vllm"]:
            del sys.modules[name]
        sys.modules.update(hidden)


def inside(policy: Policy, context: int, sampling: Sampling, **settings: Any) -> ElsewhereEngine:
    """Return an engine with vLLM in this process, with the policy's weights; while the stand-in is there."""
    engine = engine_for(
        EngineSection(name="vllm", **settings), policy, context=context, sampling=sampling, note=lambda text: None
    )
    assert isinstance(engine, ElsewhereEngine)
    engine.load(policy.weights(), 0, policy.fingerprint())
    return engine


def reached(kind: str, url: str, policy: Policy, context: int, sampling: Sampling, **settings: Any) -> ElsewhereEngine:
    """Return an engine behind a URL, made as a run makes it."""
    section = EngineSection(name="sglang" if kind == "sglang" else "vllm", url=url, **{"start_s": 5.0, **settings})
    notes: list[str] = []
    engine = engine_for(section, policy, context=context, sampling=sampling, note=notes.append)
    assert isinstance(engine, ElsewhereEngine)
    engine.notes = notes  # type: ignore[attr-defined]
    return engine


def finished(done: Completion, policy: Policy, sampling: Sampling) -> tuple[str, Any]:
    """Return how both servers say why an answer ended: in a word, and what matched."""
    if done.stop is StopReason.LENGTH:
        return "length", None
    if done.stop is StopReason.END:
        return "stop", int(done.output[-1])
    text = policy.tokenizer.decode(done.output)
    return "stop", next(s for s in sampling.stop if s in text)


def joined(stored: Mapping[str, Tensor], policy: Policy) -> dict[str, Tensor]:
    """Return weights by our names from those of a checkpoint: the way back from what the adapters write."""
    from ratchet.policy.checkpoint import stored_names

    return {
        ours: torch.cat([stored[name] for name, _ in theirs]).float()
        for ours, theirs in stored_names(policy.shape).items()
    }


def plain_logprobs(
    policy: Policy, prompt: Sequence[int], output: Sequence[int], weights: Mapping[str, Tensor]
) -> Tensor:
    """Return the (T, V) log-probabilities of the plain distribution each output token was drawn from."""
    runner = DenseRunner(policy.shape, policy.decoder.ops, policy.device)
    runner.load(weights)
    rows, first = runner.prefill([torch.tensor(prompt, dtype=torch.int32).numpy()], [1], len(output))
    logits = [first, *(runner.step(rows[0], torch.tensor([token])) for token in output[:-1])]
    return torch.cat(logits).log_softmax(-1)
