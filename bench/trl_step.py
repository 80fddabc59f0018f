"""The other benchmark worker: the same GRPO steps with TRL's `GRPOTrainer`; prints one JSON line.

Called by `step.py`. TRL's settings are its fastest on a CPU: gradient checkpointing off, no reference model
(beta 0, the default), the whole batch in one pass (splitting it makes TRL slower), transformers' own generation.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import tempfile
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_DISABLED", "true")

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

WARM_UP = 2


class Timed(GRPOTrainer):
    """Notes how long generation and all of scoring take."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.generate_s: list[float] = []
        self.experience_s: list[float] = []
        self.sampled: list[int] = []

    def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = super()._generate_single_turn(*args, **options)
        self.generate_s.append(time.perf_counter() - started)
        self.sampled.append(sum(len(completion) for completion in result[0]))
        return result

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        started = time.perf_counter()
        result = super()._generate_and_score_completions(inputs)
        self.experience_s.append(time.perf_counter() - started)
        return result


class Clock(TrainerCallback):
    """Notes when steps end."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_step_end(self, *args: Any, **options: Any) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))


def digits(completions: list[str], **columns: Any) -> list[float]:
    """Reward: the share of digits."""
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]


def config_of(args: argparse.Namespace, end: int, folder: str) -> GRPOConfig:
    """Return TRL's settings for the same work."""
    batch = args.groups * args.samples
    if args.end_bias is None:  # fixed work: nothing ends an answer
        generation: dict[str, Any] = {"suppress_tokens": [end]}
    else:
        generation = {"sequence_bias": {(end,): args.end_bias}}
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=args.micro or batch,
        gradient_accumulation_steps=batch // (args.micro or batch),
        num_generations=args.samples,
        max_completion_length=args.new_tokens,
        max_steps=args.steps + WARM_UP,
        learning_rate=1e-4,
        save_strategy="no",
        report_to=[],
        use_cpu=args.device == "cpu",
        disable_tqdm=True,
        logging_steps=1000,
        bf16=args.precision == "bf16",
        gradient_checkpointing=False,
        generation_kwargs=generation,
        seed=args.seed,
    )


def main() -> None:
    """Run the steps and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--prompt-chars", type=int, default=0)
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--end-bias", type=float)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--micro", type=int, default=0, help="answers per pass; 0 takes all of them")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    rng = random.Random(args.seed)
    padding = "1" * args.prompt_chars
    prompts = [
        {"prompt": f"<|user|>{padding}{rng.randint(10, 9999)}+{rng.randint(10, 9999)}=<|assistant|>"}
        for _ in range(args.groups * (args.steps + WARM_UP + 1))
    ]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Timed(
            model=model,
            processing_class=tokenizer,
            reward_funcs=digits,
            args=config_of(args, tokenizer.eos_token_id, folder),
            train_dataset=Dataset.from_list(prompts),
            callbacks=[clock],
        )
        trainer.train()
    # A step's time is from the end of the one before, so that no bookkeeping between steps is left out.
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(clock.ends, clock.ends[1:], strict=False)][WARM_UP - 1 :]
    n = len(steps)
    wall = [s[0] for s in steps]
    result = {
        "step": statistics.median(wall),
        "step_min": min(wall),
        "step_max": max(wall),
        "cpu": statistics.median(s[1] for s in steps),
        "generate": statistics.median(trainer.generate_s[-n:]),
        "train": statistics.median(w - e for w, e in zip(wall, trainer.experience_s[-n:], strict=True)),
        "sampled_tokens": statistics.median(trainer.sampled[-n:]),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result | {"pid": os.getpid()}))


if __name__ == "__main__":
    main()
