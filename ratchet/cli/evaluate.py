"""Evaluating a checkpoint on held-out tasks."""

from __future__ import annotations

from pathlib import Path

from ratchet.run.evaluate import evaluate_checkpoint


def evaluation_text(run: Path, step: int | None, tasks: int, samples: int, split: str) -> str:
    """Return held-out numbers of a checkpoint as text."""
    path, facts = evaluate_checkpoint(run, step, tasks, samples, split)
    lines = [f"{path.name} of {run}: {facts['tasks']:.0f} {split} tasks x {facts['samples']:.0f} samples"]
    for name, value in facts.items():
        if name.endswith(("_low", "_high")) or name in ("tasks", "samples"):
            continue
        band = f"  [{facts[f'{name}_low']:.3f}, {facts[f'{name}_high']:.3f}] 95 %" if f"{name}_low" in facts else ""
        lines.append(f"{name:>18}  {value:.3f}{band}")
    return "\n".join(lines)
