"""One benchmark worker: GRPO steps of this project on a small random model; prints one JSON line.

It uses the project's own explorer, engine and trainer. What differs from a run is only that nothing is written to
disk. Called by `step.py`, which also makes the model with `--make`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import string
import time
from pathlib import Path

import torch
from torch import Tensor

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.core.protocols import Outcome, PolicyHandle, Sampling
from ratchet.core.rollout import Group, Score, Status
from ratchet.core.shape import ModelShape
from ratchet.core.task import Message, Split, Task
from ratchet.engines.dense import DenseRunner
from ratchet.engines.local import LocalEngine
from ratchet.engines.native_runner import NativeRunner
from ratchet.engines.runner import Runner
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.kernels import native
from ratchet.kernels.reference import OPS
from ratchet.policy.decoder import Decoder
from ratchet.policy.policy import Policy, Precision
from ratchet.policy.tokenizer import Tokenizer, tiny_tokenizer
from ratchet.train.trainer import Trainer

SIZES = {"1M": (128, 4, 4, 32, 352), "10M": (384, 6, 6, 64, 1024)}
"""Name -> width, layers, heads, head size, feed-forward width."""
VOCAB = 256
CONTEXT = 2048
WARM_UP = 2
"""Steps not counted: the first ones grow buffers."""


def make_model(size: str, folder: Path, seed: int) -> None:
    """Write a random Qwen3-form checkpoint of a size that both sides load."""
    hidden, layers, heads, head_size, intermediate = SIZES[size]
    printable = string.printable[:95]
    fillers = [f"<x{i}>" for i in range(VOCAB - 7 - len(printable))]
    shape = ModelShape(
        family="qwen3", vocab=VOCAB, hidden=hidden, layers=layers, query_heads=heads, key_heads=heads,
        head_size=head_size, intermediate=intermediate, context=CONTEXT, rope_base=10000.0, norm_eps=1e-6, tied=True,
        qk_norm=True, qkv_bias=False,
    )  # fmt: skip
    decoder = Decoder(shape, OPS)
    decoder.initialise(torch.Generator().manual_seed(seed))
    tokenizer = tiny_tokenizer(fillers, printable)
    assert tokenizer.vocab_size == VOCAB
    Policy(decoder, tokenizer, torch.device("cpu"), "float32").save(folder)


class Digits:
    """Asks for nothing in particular; pays the share of digits."""

    name = "digits"

    def __init__(self, prompt_characters: int) -> None:
        self._padding = "1" * prompt_characters
        self.seconds = 0.0

    def num_tasks(self, split: Split) -> int | None:
        return None

    def task(self, split: Split, index: int) -> Task:
        rng = split.rng(index)
        text = f"{self._padding}{rng.randint(10, 9999)}+{rng.randint(10, 9999)}="
        return Task("digits", (Message("user", text),))

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        reply = await policy.chat(task.prompt)
        started = time.perf_counter()
        share = sum(c.isdigit() for c in reply.text) / max(1, len(reply.text))
        self.seconds += time.perf_counter() - started
        return Outcome(Score(share))


class Biased:
    """A runner that makes the end token likelier, so that answers of a random model have ragged lengths.

    TRL's side does the same with `sequence_bias`: it changes what is sampled, not what is trained.
    """

    def __init__(self, runner: Runner, token: int, bias: float) -> None:
        self._runner, self._token, self._bias = runner, token, bias
        self.load, self.release = runner.load, runner.release

    def prefill(self, *args):  # type: ignore[no-untyped-def]
        rows, logits = self._runner.prefill(*args)
        return rows, self._with_bias(logits)

    def step(self, *args) -> Tensor:  # type: ignore[no-untyped-def]
        return self._with_bias(self._runner.step(*args))

    def _with_bias(self, logits: Tensor) -> Tensor:
        logits[:, self._token] += self._bias
        return logits


def runner_of(policy: Policy) -> Runner:
    """Return the runner that a run would use; made here because the ragged case wraps it."""
    if native.available():
        return NativeRunner(policy.shape, policy.dtype)
    return DenseRunner(policy.shape, policy.decoder.ops, policy.device)


class Bench:
    """Explorer, engine and trainer, wired as a run wires them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.loop = asyncio.new_event_loop()  # one for all steps, as in a run
        dtype: Precision = "bfloat16" if args.precision == "bf16" else "float32"
        self.policy = Policy.load(args.model, dtype=dtype)
        tokenizer = self.policy.tokenizer
        runner = runner_of(self.policy)
        self.runner = type(runner).__name__
        if args.end_bias is None:  # fixed work: nothing ends an answer
            tokenizer = Tokenizer(tokenizer.backend, tokenizer.settings, ())
        else:
            runner = Biased(runner, tokenizer.end_tokens[0], args.end_bias)
        self.engine = LocalEngine(runner, tokenizer, context=CONTEXT, max_rows=args.max_rows, device=self.policy.device)
        self.environment = Digits(args.prompt_chars)
        self.explorer = Explorer(
            self.environment, self.engine, tokenizer, Split("train", args.seed), Sampling(max_tokens=args.new_tokens),
            ExploreLimits(context=CONTEXT, rollout_timeout_s=3600.0),
        )  # fmt: skip
        method, train = AlgorithmSection(name="grpo", lr=1e-4), TrainSection(micro_batch_tokens=args.micro)
        self.trainer = Trainer(self.policy, build_algorithm("grpo", {}), method, train, seed=args.seed)

    async def groups(self, step: int) -> list[Group]:
        first = step * self.args.groups
        return [g async for g in self.explorer.groups(step, first, self.args.groups, self.args.samples)]

    def step(self, step: int) -> dict[str, float]:
        """Do one whole step and return the seconds of its parts and its counts."""
        engine, environment = self.engine, self.environment
        started, cpu = time.perf_counter(), time.process_time()
        before = dict(engine.seconds), environment.seconds
        weights = self.policy.weights()
        engine.load(weights, step, self.policy.fingerprint())
        loaded = time.perf_counter()
        groups = self.loop.run_until_complete(self.groups(step))
        sampled = time.perf_counter()
        failed = [r.error for g in groups for r in g.rollouts if r.status is not Status.OK]
        assert not failed, failed[0]
        report = self.trainer.step(groups, step).metrics
        done = time.perf_counter()
        parts = {name: engine.seconds[name] - before[0][name] for name in engine.seconds}
        parts |= {"reward": environment.seconds - before[1], "score": 0.0}
        parts |= {name: report[f"time/{name}"] for name in ("forward", "backward", "optimiser")}
        parts["sync"] = loaded - started
        total = done - started
        outputs = [t.turns[0] for g in groups for r in g.rollouts for t in r.trajectories]
        return parts | {
            "other": total - sum(parts.values()),
            "step": total,
            "cpu": time.process_time() - cpu,
            "generate": sampled - loaded,
            "train": done - sampled,
            "sampled_tokens": sum(len(t.output) for t in outputs),
            "prompt_tokens": sum(len(g.rollouts[0].trajectories[0].turns[0].prompt) for g in groups),
            "input_tokens": report["tokens/forward"],
            "trained_tokens": report["tokens/trained"],
            "logp_diff": report.get("sampler/logp_diff_max", 0.0),
        }


def main() -> None:
    """Run the steps and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--make", choices=SIZES, help="write a model of this size to --model and stop")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--prompt-chars", type=int, default=0)
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--end-bias", type=float)
    parser.add_argument("--micro", type=int, default=TrainSection().micro_batch_tokens)
    parser.add_argument("--max-rows", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.make:
        return make_model(args.make, args.model, args.seed)
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    steps = [bench.step(k) for k in range(WARM_UP + args.steps)][WARM_UP:]
    result = {name: statistics.median(s[name] for s in steps) for name in steps[0]}
    result["step_min"], result["step_max"] = min(s["step"] for s in steps), max(s["step"] for s in steps)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result | {"runner": bench.runner, "pid": os.getpid()}))


if __name__ == "__main__":
    main()
