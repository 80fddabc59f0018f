"""The Markdown of `gpu.py`: one table per question."""

from __future__ import annotations

from typing import Any

NOT_A_GPU = (
    "**A check on a CPU, not a measurement.** This is what `python bench/gpu.py --small` writes: the same code on tiny "
    "models, to show that it runs and that its numbers agree with float64. No number below says anything about a GPU; "
    "nothing of this project has been measured on one."
)


def written(report: dict[str, Any]) -> str:
    """Return a report as Markdown."""
    machine, limits = report["machine"], report["ceilings"]
    lines = ["# Sampling and training on a GPU" if not report["small"] else "# bench/gpu.py on a CPU", ""]
    if report["small"]:
        lines += [NOT_A_GPU, ""]
    lines += [
        f"Device: {machine['cuda'] or machine['processor']}; torch {machine['packages'].get('torch')}. Measured "
        f"ceilings: {limits['bytes_per_s'] / 1e9:,.0f} GB/s copied (read and written), "
        f"{limits['bf16_flops'] / 1e12:,.2f} TFLOP/s of bfloat16 products.",
        "",
        "## Against CPU float64",
        "",
        "| precision | sampler, largest | sampler, mean | trainer, largest | gradient, relative | within tolerance |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, row in report["check"].items():
        lines.append(
            f"| {name} | {row['sampler_max']:.1e} | {row['sampler_mean']:.1e} | {row['trainer_max']:.1e} | "
            f"{row['gradient']:.1e} | {'yes' if row['holds'] else 'NO'} |"
        )
    return "\n".join([*lines, *_decoding(report), *_training(report), *_steps(report)]) + "\n"


def _share(report: dict[str, Any], share: float) -> str:
    """Return a share of a ceiling; a busy CPU's is none."""
    return "n/a" if report["small"] else f"{share:.0%}"


def _decoding(report: dict[str, Any]) -> list[str]:
    lines = [
        "", "## Decoding", "",
        "| model | rows | tokens/s | ms a step | of floor | without sampling, ms | of floor | memory, GiB | graphs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]  # fmt: skip
    for name, model in report["models"].items():
        for row in model.get("decode", ()):
            if "failed" in row:
                lines.append(f"| {name} | {row['failed']} |")
                continue
            lines.append(
                f"| {name} | {row['rows']} | {row['tokens_per_s']:,.0f} | {row['step_ms']:.2f} | "
                f"{_share(report, row['of_floor'])} | {row['runner_step_ms']:.2f} | "
                f"{_share(report, row['runner_of_floor'])} | {row['peak_bytes'] / 2**30:.1f} | {row['graphs']} |"
            )
        if beside := model.get("transformers"):
            said = beside.get("failed") or f"{beside['rows']} | {beside['tokens_per_s']:,.0f}"
            lines.append(f"| {name}, transformers `generate` | {said} |")
    return lines


def _training(report: dict[str, Any]) -> list[str]:
    lines = [
        "", "## Training", "", "| model | answers x tokens | tokens/s | s | of matrix rate | memory, GiB |",
        "|---|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, model in report["models"].items():
        if not (row := model.get("train")):
            continue
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} |")
            continue
        lines.append(
            f"| {name} | {row['answers']} x {row['tokens_each']:,} | {row['tokens_per_s']:,.0f} | "
            f"{row['seconds']:.2f} | {_share(report, row['of_matrix_rate'])} | {row['peak_bytes'] / 2**30:.1f} |"
        )
    return lines


def _steps(report: dict[str, Any]) -> list[str]:
    lines = [
        "", "## A whole GRPO step", "", "| model | prompts x answers x tokens | s | load, sample, train | TRL, s |",
        "|---|---|---:|---|---|",
    ]  # fmt: skip
    for name, model in report["models"].items():
        if not (row := model.get("step")):
            continue
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} |")
            continue
        trl, parts = model["trl"], ", ".join(f"{s:.2f}" for s in row["parts_s"].values())
        beside = trl.get("failed") or f"{trl['seconds']:.2f} ({trl['seconds'] / row['seconds']:.1f} times as long)"
        lines.append(
            f"| {name} | {row['prompts']} x {row['answers_each']} x {row['tokens_each']:,} | "
            f"{row['seconds']:.2f} | {parts} | {beside} |"
        )
    return lines
