"""Correctness and speed on one GPU: sampling and training of random-weight models in the form of Qwen3.

    python bench/gpu.py                          0.1 B, 0.6 B, 1.7 B; writes bench/results/gpu.{json,md}
    python bench/gpu.py --models 0.6B --only decode,step
    python bench/gpu.py --only check,train --attention flex --out bench/results/gpu-flex
    python bench/gpu.py --small                  the same code on this machine's CPU, tiny: gpu-small.{json,md}

What it does, in this order; a part that fails says so in its row, and the others go on:

* `ceilings`: the memory bandwidth and the bfloat16 matrix rate that this machine reaches, measured, not quoted.
* `check`: log-probabilities of sampled tokens and the gradient of their mean against CPU float64. A difference above
  the run gate's tolerance ends the command with exit code 1 before anything is timed.
* `decode`: tokens per second of the engine at several batch sizes. The floor of a step is the time to read every
  weight and every cached key and value once at the measured bandwidth; "of floor" is that over the time taken,
  with sampling and without. Beside it `generate` of transformers where it is installed.
* `train`: a GRPO update on made-up answers; "of matrix rate" is the arithmetic of all passes over the measured rate.
* `step`: a whole GRPO step, 64 prompts x 8 answers x 1,024 tokens, and the same by TRL where it is installed.

Aims on one H200: decoding at batch 256 and more at 50 % of the floor; training of 1.7 B on answers of 4,096 tokens at
45 % of the matrix rate; a whole step of 0.6 B five times as fast as TRL with its own generation.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_baselines import transformers_generate, trl_step
from gpu_report import written

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.core.protocols import Completion, Request, Sampling
from ratchet.core.rollout import Group, Rollout, Score, Status, StopReason, Trajectory, Turn
from ratchet.core.shape import ModelShape
from ratchet.core.task import Message, Task
from ratchet.engines.graphed import GraphedRunner, Replay, why_no_graphs
from ratchet.engines.local import LocalEngine, generate_all
from ratchet.kernels.choose import Attention, ops_for
from ratchet.kernels.layout import layout_of
from ratchet.kernels.reference import OPS
from ratchet.policy.decoder import Decoder
from ratchet.policy.policy import Policy, Precision
from ratchet.policy.tokenizer import Tokenizer, tiny_tokenizer
from ratchet.run.gate import TOLERANCE
from ratchet.run.machine import describe_environment, resident_bytes
from ratchet.train.trainer import Trainer

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = ("ceilings", "check", "decode", "train", "step")
MODELS = {
    # hidden, layers, query heads, key heads, head size, feed-forward, vocabulary
    "tiny": (64, 2, 4, 2, 16, 128, 5000),
    "0.1B": (768, 12, 12, 4, 64, 2048, 32000),
    "0.6B": (1024, 28, 16, 8, 128, 3072, 151936),
    "1.7B": (2048, 28, 16, 8, 128, 6144, 151936),
}
"""The last two are Qwen3's own sizes; all heads are tied to the embedding, as there."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    models: tuple[str, ...]
    rows: tuple[int, ...]
    prompt: int
    new: int
    samples: int
    train_tokens: int
    train_answers: int
    step: tuple[int, int, int]
    """Prompts, answers per prompt, tokens per answer."""
    repeats: int
    matrix: int
    copy_mib: int


GPU = Scale(("0.1B", "0.6B", "1.7B"), (64, 256, 512), 256, 512, 8, 4096, 16, (64, 8, 1024), 3, 8192, 2048)
SMALL = Scale(("tiny",), (4, 16), 16, 24, 4, 64, 8, (4, 4, 16), 2, 512, 32)


def policy_of(name: str, device: torch.device, dtype: Precision, attention: Attention = "sdpa") -> Policy:
    """Return a random policy of a size."""
    hidden, layers, heads, keys, size, wide, vocab = MODELS[name]
    shape = ModelShape(
        family="qwen3", vocab=vocab, hidden=hidden, layers=layers, query_heads=heads, key_heads=keys, head_size=size,
        intermediate=wide, context=8192, rope_base=1e6, norm_eps=1e-6, tied=True, qk_norm=True, qkv_bias=False,
    )  # fmt: skip
    decoder = Decoder(shape, ops_for(device, dtype, attention)).to(device)
    decoder.initialise(torch.Generator(device).manual_seed(0))
    known = tiny_tokenizer((), "".join(chr(c) for c in range(32, 127)))
    return Policy(decoder, Tokenizer(known.backend, known.settings, known.end_tokens), device, dtype)


def engine_of(policy: Policy, rows: int, context: int, replay: Replay) -> LocalEngine:
    """Return the engine a run would use on a GPU, on any device; nothing ends its answers before their limit."""
    endless = Tokenizer(policy.tokenizer.backend, policy.tokenizer.settings, ())
    runner = GraphedRunner(policy.shape, policy.dtype, policy.device, replay)
    engine = LocalEngine(runner, endless, context=context, max_rows=rows, device=policy.device)
    engine.load(policy.weights(), 0, "random")
    return engine


def requests(policy: Policy, rows: int, samples: int, prompt: int, new: int) -> list[Request]:
    """Return requests in groups that share a prompt."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(7, policy.shape.vocab, prompt).astype(np.int32) for _ in range(-(-rows // samples))]
    return [Request(prompts[i // samples], Sampling(max_tokens=new), seed=i) for i in range(rows)]


class Clock:
    """Seconds of work on a device, everything queued there included, and the most memory it took."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self.peak = device, 0.0, 0

    @contextmanager
    def running(self) -> Iterator[None]:
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - started
        self.peak = torch.cuda.max_memory_allocated() if cuda else resident_bytes()


def best(work: Callable[[], object], device: torch.device, repeats: int) -> Clock:
    """Return the shortest of several runs after one that is not counted."""
    work()
    runs = []
    for _ in range(repeats):
        clock = Clock(device)
        with clock.running():
            work()
        runs.append(clock)
    return min(runs, key=lambda c: c.seconds)


def ceilings(device: torch.device, scale: Scale) -> dict[str, float]:
    """Return bytes per second and floating-point operations per second that this machine reaches."""
    words = scale.copy_mib << 18
    one, other = torch.ones(words, device=device), torch.empty(words, device=device)
    copied = best(partial(other.copy_, one), device, 10).seconds
    del one, other
    n = scale.matrix
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = best(lambda: a @ b, device, 10).seconds
    return {"bytes_per_s": 8 * words / copied, "bf16_flops": 2 * n**3 / product}


def check(
    device: torch.device, scale: Scale, dtype: Precision, replay: Replay, attention: Attention
) -> dict[str, float]:
    """Return how far sampled log-probabilities and the gradient of their mean are from CPU float64."""
    policy = policy_of(scale.models[0], device, dtype, attention)
    asked = requests(policy, 4, 2, min(scale.prompt, 32), min(scale.new, 32))
    done = generate_all(engine_of(policy, 4, 128, replay), asked)
    exact = Decoder(policy.shape, OPS).double()
    exact.load_state_dict({n: w.double().cpu() for n, w in policy.weights().items()})
    theirs = torch.cat([mean_of(exact, r, d) for r, d in zip(asked, done, strict=True)])
    ours = torch.cat([mean_of(policy.decoder, r, d) for r, d in zip(asked, done, strict=True)])
    theirs.mean().backward()
    ours.mean().backward()
    sampled = torch.from_numpy(np.concatenate([d.logprobs for d in done])).double()
    sampler, trainer = (sampled - theirs.detach()).abs(), (ours.detach().double().cpu() - theirs.detach()).abs()
    pairs = [
        (p.grad.double().cpu(), q.grad)
        for p, q in zip(policy.decoder.parameters(), exact.parameters(), strict=True)
        if p.grad is not None and q.grad is not None
    ]
    gap = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
    return {
        "sampler_max": float(sampler.max()),
        "sampler_mean": float(sampler.mean()),
        "trainer_max": float(trainer.max()),
        "gradient": gap / sum(float(b.square().sum()) for _, b in pairs) ** 0.5,
        "holds": float(TOLERANCE[dtype].holds(sampled, theirs.detach())),
    }


def mean_of(decoder: Decoder, request: Request, done: Completion) -> torch.Tensor:
    """Return the log-probabilities of an answer by one full forward pass, with gradients."""
    device = decoder.embedding.device
    tokens = torch.from_numpy(np.concatenate([request.prompt, done.output[:-1]]).astype(np.int64)).to(device)
    hidden = decoder(tokens, layout_of([len(tokens)], [-1], device))[len(request.prompt) - 1 :]
    logp = decoder.ops.linear(hidden, decoder.head, None).log_softmax(-1)
    return logp.gather(1, torch.from_numpy(done.output.astype(np.int64)).to(device)[:, None])[:, 0]


def decode(policy: Policy, rows: int, scale: Scale, limits: dict[str, float], replay: Replay) -> dict[str, Any]:
    """Return the speed of the engine for a batch, and of its runner alone."""
    device, shape = policy.device, policy.shape
    context = scale.prompt + scale.new
    engine = engine_of(policy, rows, context, replay)
    whole = best(
        lambda: generate_all(engine, requests(policy, rows, scale.samples, scale.prompt, scale.new)),
        device,
        scale.repeats,
    )
    first = best(
        lambda: generate_all(engine, requests(policy, rows, scale.samples, scale.prompt, 1)), device, scale.repeats
    )
    step_s = max(whole.seconds - first.seconds, 1e-9) / (scale.new - 1)
    runner = GraphedRunner(shape, policy.dtype, device, replay)
    runner.load(policy.weights())
    half = scale.prompt + scale.new // 2  # where a row stands on average
    prompt = np.full(half, 7, dtype=np.int32)
    numbers, _ = runner.prefill([prompt], [rows], 64)
    tokens = torch.zeros(rows, dtype=torch.int64, device=device)
    bare = best(lambda: [runner.step(numbers[0], tokens) for _ in range(8)], device, scale.repeats).seconds / 8
    width = 2 if policy.dtype == "bfloat16" else 4
    weights = sum(w.numel() for w in policy.weights().values()) * width
    cached = rows * half * shape.layers * 2 * shape.key_heads * shape.head_size * width
    floor = (weights + cached) / limits["bytes_per_s"]
    return {
        "rows": rows, "tokens_per_s": rows * scale.new / whole.seconds, "first_token_s": first.seconds,
        "step_ms": 1e3 * step_s, "runner_step_ms": 1e3 * bare, "floor_ms": 1e3 * floor, "of_floor": floor / step_s,
        "runner_of_floor": floor / bare, "peak_bytes": whole.peak, "graphs": why_no_graphs(device) or "in use",
    }  # fmt: skip


def made_up(policy: Policy, answers: int, tokens: int, samples: int = 8) -> list[Group]:
    """Return groups of random answers with random rewards, as if the policy had sampled them."""
    rng = np.random.default_rng(1)
    groups = []
    for index in range(max(1, answers // samples)):
        prompt, task = rng.integers(7, policy.shape.vocab, 16).astype(np.int32), Task("bench", (Message("user", "x"),))
        made = []
        for attempt in range(min(samples, answers)):
            output = rng.integers(7, policy.shape.vocab, tokens - 16).astype(np.int32)
            sure = np.full(len(output), -np.log(policy.shape.vocab), dtype=np.float32)
            none = np.zeros(0, dtype=np.float32)
            turn = Turn(prompt, output, sure, none, 0, 0, "random", StopReason.LENGTH, "", 0.0)
            score = Score(float(rng.integers(0, 2)) + attempt / 8)
            made.append(Rollout(task.id, attempt, (Trajectory((turn,)),), Status.OK, score, ""))
        groups.append(Group(task, index, 0, tuple(made)))
    return groups


def trainer_of(policy: Policy, micro: int) -> Trainer:
    """Return a GRPO trainer as a run makes it, without a reference policy; on a GPU with more logits at once."""
    logits = 1 << (28 if policy.device.type == "cuda" else 25)  # each pass over so many reads the whole head
    section = TrainSection(micro_batch_tokens=micro, max_logits=logits, reference_kl=False)
    return Trainer(policy, build_algorithm("grpo", {}), AlgorithmSection(name="grpo", lr=1e-6), section, seed=0)


def train(policy: Policy, scale: Scale, limits: dict[str, float]) -> dict[str, Any]:
    """Return the speed of an update."""
    trainer, groups = trainer_of(policy, scale.train_tokens), made_up(policy, scale.train_answers, scale.train_tokens)
    reports = []
    clock = best(lambda: reports.append(trainer.step(groups, len(reports))), policy.device, scale.repeats)
    tokens, flops = scale.train_answers * scale.train_tokens, reports[-1].flops
    return {
        "answers": scale.train_answers, "tokens_each": scale.train_tokens, "seconds": clock.seconds,
        "tokens_per_s": tokens / clock.seconds, "flops": flops,
        "of_matrix_rate": flops / clock.seconds / limits["bf16_flops"], "peak_bytes": clock.peak,
    }  # fmt: skip


def step(policy: Policy, scale: Scale, replay: Replay) -> dict[str, Any]:
    """Return the seconds of a whole GRPO step: weights to the engine, sampling, an update."""
    prompts, samples, new = scale.step
    engine = engine_of(policy, prompts * samples, scale.prompt + new, replay)
    trainer, seconds = trainer_of(policy, 8192), {"load": 0.0, "sample": 0.0, "train": 0.0}

    def once() -> None:
        asked = requests(policy, prompts * samples, samples, scale.prompt, new)
        times = [time.perf_counter()]
        engine.load(policy.weights(), 0, "random")
        times.append(time.perf_counter())
        done = generate_all(engine, asked)
        times.append(time.perf_counter())
        trainer.step(scored(asked, done, samples), 0)
        times.append(time.perf_counter())
        seconds.update(zip(seconds, np.diff(times).tolist(), strict=True))

    clock = best(once, policy.device, max(1, scale.repeats - 1))
    return {"prompts": prompts, "answers_each": samples, "tokens_each": new, "seconds": clock.seconds,
            "parts_s": seconds, "peak_bytes": clock.peak}  # fmt: skip


def scored(asked: Sequence[Request], done: Sequence[Completion], samples: int) -> list[Group]:
    """Return answers as groups, with the share of even tokens as reward."""
    groups = []
    for index in range(len(asked) // samples):
        task, made = Task("bench", (Message("user", str(index)),)), []
        for attempt in range(samples):
            request, one = asked[index * samples + attempt], done[index * samples + attempt]
            turn = Turn(
                request.prompt, one.output, one.logprobs, one.log_kept, 0, 0, "random", one.stop, "", one.seconds
            )
            score = Score(float((one.output % 2 == 0).mean()))
            made.append(Rollout(task.id, attempt, (Trajectory((turn,)),), Status.OK, score, ""))
        groups.append(Group(task, index, 0, tuple(made)))
    return groups


def attempted(what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a part's numbers, or why there are none: out of memory must not cost the other rows."""
    print(what, file=sys.stderr, flush=True)
    try:
        return work()
    except (RuntimeError, ValueError, OSError) as error:
        return {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def measure(name: str, device: torch.device, scale: Scale, parts: set[str], limits: dict[str, float], replay: Replay,
            attention: Attention, small: bool) -> dict[str, Any]:  # fmt: skip
    """Return all rows of one model."""
    dtype: Precision = "float32" if small else "bfloat16"
    policy = policy_of(name, device, dtype, attention)
    found: dict[str, Any] = {"parameters": sum(w.numel() for w in policy.weights().values())}
    if "decode" in parts:
        found["decode"] = [
            attempted(f"{name}: decode {rows}", lambda rows=rows: decode(policy, rows, scale, limits, replay))
            for rows in scale.rows
        ]
        found["transformers"] = attempted(
            f"{name}: transformers", lambda: transformers_generate(policy, scale.rows[-2], scale.prompt, scale.new)
        )
    if "train" in parts:
        found["train"] = attempted(f"{name}: train", lambda: train(policy, scale, limits))
    if "step" in parts and name in ("tiny", "0.6B"):
        found["step"] = attempted(f"{name}: step", lambda: step(policy, scale, replay))
        found["trl"] = attempted(f"{name}: TRL", lambda: trl_step(policy, scale.step, scale.prompt))
    return found


def main() -> int:
    """Measure, print Markdown, write both files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the same code on the CPU, tiny: a check, no measurement")
    parser.add_argument("--models", default="", help="sizes, comma-separated")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, comma-separated")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    parser.add_argument("--compile", action="store_true", help="torch.compile in the runner")
    parser.add_argument("--attention", choices=("sdpa", "flex"), default="sdpa", help="policy.attention, of training")
    parser.add_argument("--out", type=Path, help="name of the files, without ending")
    args = parser.parse_args()
    if not args.small and not torch.cuda.is_available():
        print("bench/gpu.py: torch sees no GPU here. `--small` runs the same code on the CPU.", file=sys.stderr)
        return 2
    scale = SMALL if args.small else GPU
    scale = replace(scale, models=tuple(args.models.split(","))) if args.models else scale
    device, parts = torch.device("cpu" if args.small else "cuda"), {*args.only.split(",")}
    replay = Replay(graphs=not args.eager, compiled=args.compile)
    limits = ceilings(device, scale)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    report: dict[str, Any] = {
        "small": args.small, "machine": describe_environment(), "ceilings": limits, "replay": str(replay),
        "attention": args.attention,
        "installed": {n: importlib.util.find_spec(n) is not None for n in ("transformers", "trl", "vllm", "triton")},
        "check": {d: check(device, scale, d, replay, args.attention) for d in precisions} if "check" in parts else {},
        "models": {},
    }  # fmt: skip
    good = all(row["holds"] for row in report["check"].values())
    for name in scale.models if good else ():
        report["models"][name] = measure(name, device, scale, parts, limits, replay, args.attention, args.small)
    out = args.out or RESULTS / ("gpu-small" if args.small else "gpu")
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    out.with_suffix(".md").write_text(written(report))
    print(written(report))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
