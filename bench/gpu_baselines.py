"""What stands beside this project in `gpu.py`, where it is installed: transformers' `generate`, and TRL's GRPO step."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ratchet.policy.policy import Policy
from ratchet.policy.shape import shape_to_hf


def transformers_generate(policy: Policy, rows: int, prompt: int, new: int) -> dict[str, Any]:
    """Return the speed of plain `generate` on a model of the same size, its own random weights."""
    if importlib.util.find_spec("transformers") is None:
        return {"failed": "transformers is not installed"}
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer, device = policy.tokenizer, policy.device
    given = shape_to_hf(policy.shape, end_tokens=list(tokenizer.end_tokens), pad_token=tokenizer.pad_token)
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    dtype = torch.bfloat16 if policy.dtype == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).to(device).eval()
    ids = torch.randint(7, policy.shape.vocab, (rows, prompt), device=device)
    seconds = []
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=new,
                min_new_tokens=new, pad_token_id=tokenizer.pad_token,
            )  # fmt: skip
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {"rows": rows, "tokens_per_s": rows * new / seconds[-1], "seconds": seconds[-1]}


def trl_step(policy: Policy, step: tuple[int, int, int], prompt: int) -> dict[str, Any]:
    """Return the seconds of TRL's GRPO step on the same weights, in a process of its own."""
    missing = [n for n in ("trl", "datasets", "transformers") if importlib.util.find_spec(n) is None]
    if missing:
        return {"failed": f"{', '.join(missing)} not installed"}
    prompts, samples, new = step
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder))
        words = {
            "--model": folder, "--precision": "bf16" if policy.dtype == "bfloat16" else "fp32", "--new-tokens": new,
            "--prompt-chars": prompt, "--groups": prompts, "--samples": samples, "--steps": 1,
            "--device": policy.device.type, "--micro": min(8, prompts * samples),
        }  # fmt: skip
        command = [sys.executable, str(Path(__file__).resolve().parent / "trl_step.py")]
        command += [str(word) for pair in words.items() for word in pair]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip()[-300:]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {"seconds": found["step"], "generate_s": found["generate"], "train_s": found["train"]}
