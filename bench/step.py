"""Whole GRPO steps beside TRL's `GRPOTrainer`: same random weights, same work, rounds interleaved.

    python bench/step.py --out step.json                    # all cases, 3 rounds, one thread
    python bench/step.py --cases 1M/32 --rounds 5 --threads 2
    python bench/step.py --scale --out scale.json           # how cost grows with samples and tokens, this project only

Prints Markdown and writes JSON. Ratios compare the CPU time of a step where one thread is used (other load stretches
wall time most, CPU time less), wall time otherwise; both are in the JSON. The baseline of a case is the better of
TRL's fp32 and bf16.

The floor is the time the matrix products alone would take at the rate this machine reaches on large ones, measured
between the rounds: (2 P per sampled or prompt token + 6 P per token trained on) / rate, P parameters.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PARTS = ("sync", "prefill", "decode", "sample", "reward", "score", "forward", "backward", "optimiser", "other")
PARAMETERS = {"1M": 836_992, "10M": 10_720_896}
"""Weights of the two models; checked against the checkpoint when it is made."""
RATE = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
def rate(dtype):
    a, b = torch.randn(2048, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    f = (lambda: onednn(a, b, None, "none", [], "")) if onednn else (lambda: torch.nn.functional.linear(a, b))
    times = []
    for _ in range(12):
        start = time.perf_counter(); f(); times.append(time.perf_counter() - start)
    return 2 * 2048 * 1024 * 1024 / min(times) / 1e9
print(rate(torch.float32), rate(torch.bfloat16))
"""
"""Prints the best fp32 and bf16 matrix rates of torch in GFLOP/s."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of step."""

    name: str
    size: str
    new_tokens: int
    steps: int
    prompt_chars: int = 0
    end_bias: float | None = None
    """Added to the logit of the end token; None: no answer ends before the limit."""

    def arguments(self) -> list[str]:
        words = ["--new-tokens", self.new_tokens, "--prompt-chars", self.prompt_chars, "--steps", self.steps]
        if self.end_bias is not None:
            words += ["--end-bias", self.end_bias]
        return [str(w) for w in words]


CASES = (
    Case("1M/32", "1M", 32, 8),
    Case("1M/128", "1M", 128, 4),
    Case("1M/128 ragged", "1M", 128, 5, end_bias=1.8),
    Case("1M/32 prompt 200", "1M", 32, 4, prompt_chars=190),
    Case("10M/32", "10M", 32, 3),
    Case("10M/128", "10M", 128, 2),
)
SYSTEMS = ("trl fp32", "trl bf16", "ratchet fp32", "ratchet bf16")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(c.name for c in CASES), help="names, separated by commas")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--micro", type=int, default=0, help="tokens per forward pass; 0: the project's default")
    parser.add_argument("--trl-python", default=sys.executable, help="interpreter that has trl installed")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--scale", action="store_true", help="measure growth with samples and tokens instead")
    args = parser.parse_args()
    chosen = [c for c in CASES if c.name in args.cases.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        models = {size: Path(folder) / size for size in ({"1M"} if args.scale else {c.size for c in chosen})}
        for size, path in models.items():
            worker(args, "ratchet_step.py", ["--make", size, "--model", str(path)])
        result: dict[str, Any] = {"machine": machine(args)}
        if args.scale:
            result["scale"] = scale(args, models["1M"])
            print(scale_table(result["scale"]))
        else:
            result["runs"], result["rates"] = rounds(args, chosen, models)
            print(f"\n{result['machine']}\n")
            print(table(args, chosen, result["runs"], result["rates"]))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def worker(args: argparse.Namespace, script: str, words: list[str]) -> dict[str, Any]:
    """Run a worker alone in its process, on as many cores as it has threads; return its JSON line."""
    python = args.trl_python if script.startswith("trl") else sys.executable
    command = [python, str(HERE / script), *words, "--seed", str(args.seed), "--threads", str(args.threads)]
    taskset = shutil.which("taskset")
    if taskset:
        command = [taskset, "-c", f"0-{args.threads - 1}", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{script} {' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) if "--make" not in words else {}


def rates_of(args: argparse.Namespace) -> dict[str, float]:
    """Return the matrix rates of this moment, in GFLOP/s."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(
        [sys.executable, "-c", RATE, str(args.threads)], capture_output=True, text=True, check=True, env=environment
    )
    fp32, bf16 = map(float, done.stdout.split())
    return {"fp32": fp32, "bf16": bf16}


def rounds(
    args: argparse.Namespace, cases: list[Case], models: dict[str, Path]
) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    """Run every system on every case, `rounds` times over, systems next to each other."""
    runs, rates = [], []
    for number in range(args.rounds):
        rates.append(rates_of(args))
        for case in cases:
            for system in args.systems.split(","):
                name, precision = system.split()
                words = ["--model", str(models[case.size]), "--precision", precision, *case.arguments()]
                if name == "ratchet" and args.micro:
                    words += ["--micro", str(args.micro)]
                run = worker(args, f"{name}_step.py", words)
                runs.append({"case": case.name, "system": system, "round": number, **run})
                seconds = f"{run['step']:.3f} s wall, {run['cpu']:.3f} s CPU"
                print(f"round {number + 1}  {case.name:18s} {system:13s} {seconds}", file=sys.stderr, flush=True)
    return runs, rates


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the numbers depend on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), model)
    versions = {}
    for package in ("torch", "trl", "transformers", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not in this environment"
    return {
        "cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), **versions,
        "threads": args.threads, "rounds": args.rounds, "seed": args.seed, "load": os.getloadavg(),
    }  # fmt: skip


def floor_s(run: dict[str, Any], parameters: int, rate: float) -> float:
    """Return the least seconds of a step of this project's work, matrix products only."""
    once = run["sampled_tokens"] + run["prompt_tokens"]
    return (2 * parameters * once + 6 * parameters * run["input_tokens"]) / (rate * 1e9)


def table(
    args: argparse.Namespace, cases: list[Case], runs: list[dict[str, Any]], rates: list[dict[str, float]]
) -> str:
    """Return the Markdown report."""
    clock = "cpu" if args.threads == 1 else "step"
    rate = {p: max(r[p] for r in rates) for p in ("fp32", "bf16")}
    head = "| case | system | step, s [min-max] | x TRL | of the floor | tokens sampled | peak, MiB |\n"
    lines = [head + "|---|---|---|---|---|---|---|"]
    parts = ["| case | system | " + " | ".join(PARTS) + " |\n|---|---|" + "---|" * len(PARTS)]
    for case in cases:
        of = {s: [r for r in runs if (r["case"], r["system"]) == (case.name, s)] for s in args.systems.split(",")}
        middle = {s: statistics.median(r[clock] for r in mine) for s, mine in of.items()}
        base = min((v for s, v in middle.items() if s.startswith("trl")), default=0.0)
        for system, mine in of.items():
            times = [r[clock] for r in mine]
            share = ""
            if system.startswith("ratchet"):
                best = floor_s(mine[0], PARAMETERS[case.size], rate[system.split()[1]])
                share = f"{best / middle[system]:.0%} of {best:.3f} s"
                cells = " | ".join(f"{1000 * statistics.median(r[p] for r in mine):.1f}" for p in PARTS)
                parts.append(f"| {case.name} | {system} | {cells} |")
            lines.append(
                f"| {case.name} | {system} | {middle[system]:.3f} [{min(times):.3f}-{max(times):.3f}] "
                f"| {base / middle[system]:.2f} | {share} | {statistics.median(r['sampled_tokens'] for r in mine):.0f} "
                f"| {max(r['peak_mib'] for r in mine):.0f} |"
            )
    kind = "CPU" if clock == "cpu" else "wall"
    note = f"Times are {kind} seconds. Matrix rate: {rate['fp32']:.0f} (fp32), {rate['bf16']:.0f} (bf16) GFLOP/s."
    return "\n".join([*lines, "", note, "", "Parts of a step, wall milliseconds:", "", *parts])


def scale(args: argparse.Namespace, model: Path) -> list[dict[str, Any]]:
    """Measure steps of growing batches and growing answers."""
    grid = [(n, 32) for n in (64, 128, 256, 512, 1024)] + [(64, n) for n in (64, 128, 256, 512, 1024)]
    found = []
    for samples, tokens in grid:
        words = ["--model", str(model), "--new-tokens", str(tokens), "--groups", str(samples // 8), "--steps", "3"]
        words += ["--max-rows", "1024"] + (["--micro", str(args.micro)] if args.micro else [])
        run = worker(args, "ratchet_step.py", words)
        found.append({"samples": samples, "tokens": tokens, **run})
        print(f"{samples} samples x {tokens} tokens: {run['cpu']:.3f} s CPU", file=sys.stderr, flush=True)
    return found


def scale_table(found: list[dict[str, Any]]) -> str:
    """Return how the time per token grows; attention makes long answers dearer, so its share is divided out too."""
    hidden, layers = 128, 4  # of the 1M model
    lines = ["| samples | tokens | step, s | us per token | the same, attention's operations divided out | peak, MiB |"]
    lines.append("|---|---|---|---|---|---|")
    for run in found:
        each = run["cpu"] / run["sampled_tokens"] * 1e6
        # Per token: 2 P for the products, 4 x layers x width per token attended to, on average half the length.
        share = 2 * PARAMETERS["1M"] / (2 * PARAMETERS["1M"] + 4 * layers * hidden * run["tokens"] / 2)
        cells = (run["samples"], run["tokens"], f"{run['cpu']:.3f}", f"{each:.1f}", f"{each * share:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} | {run['peak_mib']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
