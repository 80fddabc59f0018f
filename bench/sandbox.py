"""What running strangers' code costs: cold boxes, warm checks, and how both grow with concurrency.

    python bench/sandbox.py [OUT]        writes OUT.md and OUT.json (default bench/results/sandbox); two minutes

"read" is a test that is nothing but assertions on plain values, which is judged by reading it; "run" is the same test,
executed like any other. "pytest" is pytest's own run of the file.

A number is the median over the repetitions named beside it; "best tenth" is the tenth percentile, which says what a
check costs when nobody else wants the cores. A rate is the median of five, with their range. "bare fork" is what this
machine asks for a fresh process at all: a Python that has imported nothing forks a child that ends at once. A check
cannot be cheaper than one of those, and machines differ in it by more than in anything else here, so compare machines
by the ratio.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from ratchet.config.schema import SandboxSection
from ratchet.sandbox import bubblewrap, linux
from ratchet.sandbox.box import Limits
from ratchet.sandbox.bubblewrap import BubblewrapBox
from ratchet.sandbox.linux import LinuxBox
from ratchet.sandbox.pool import CheckPool
from ratchet.sandbox.program import How, Outcome, Program

ROUNDS = 5
"""How often a rate is measured."""

MODULE = "def f(x):\n    return x + 1\n"
TEST = "from solution import f\n\ndef test_f():\n    assert f(1) == 2\n"

BARE_FORK = """
import os, time
spans = []
for _ in range(300):
    start = time.perf_counter()
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    spans.append(1000 * (time.perf_counter() - start))
print(sorted(spans)[150])
"""


def bare_fork_ms() -> float:
    """Return the median milliseconds of a fork, an exit and a wait, in an interpreter that has imported nothing."""
    told = subprocess.run([sys.executable, "-I", "-S", "-c", BARE_FORK], capture_output=True, text=True, check=True)
    return float(told.stdout)


async def times(work: Callable[[], Awaitable[object]], repeat: int) -> dict[str, float]:
    """Return milliseconds of one call after the other."""
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        await work()
        found.append(1000 * (time.perf_counter() - start))
    found.sort()
    return {"median_ms": statistics.median(found), "best_tenth_ms": found[repeat // 10], "repeat": repeat}


async def together(work: Callable[[], Awaitable[object]], at_once: int, count: int) -> dict[str, float]:
    """Return calls per second with so many at once: the median of ROUNDS and their range."""
    found = []
    for _ in range(ROUNDS):
        left = iter(range(count))

        async def one(left: Iterator[int] = left) -> None:
            for _ in left:
                await work()

        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(at_once)))
        found.append(count / (time.perf_counter() - start))
    rate = statistics.median(found)
    return {"at_once": at_once, "per_second": rate, "least": min(found), "most": max(found), "count": count}


async def measure(box: BubblewrapBox | LinuxBox) -> dict[str, object]:
    python = ["python3", "-I", "-S", "-c", "pass"]

    async def command() -> None:
        assert (await box.run({}, python, Limits())).exit_code == 0

    found: dict[str, object] = {"layers": list(box.layers), "bare_fork_ms": bare_fork_ms()}
    found["box"] = await times(command, 20)
    found["boxes at once"] = [await together(command, n, 20) for n in (1, 2, 4)]
    async with CheckPool(SandboxSection(), box) as pool:

        def check(how: How, *, may_read: bool) -> Callable[[], Awaitable[object]]:
            async def run() -> None:
                result = await pool.check(Program(MODULE, TEST, how, may_read=may_read))
                assert result.outcome is Outcome.PASSED, result

            return run

        for name, work, repeat in (
            ("read", check(How.FUNCTIONS, may_read=True), 300),
            ("run", check(How.FUNCTIONS, may_read=False), 300),
            ("pytest", check(How.PYTEST, may_read=False), 30),
        ):
            found[f"{name} cold"] = await times(work, 1)
            await pool.warm("pytest" if name == "pytest" else "plain")
            found[f"{name} warm"] = await times(work, repeat)
            found[f"{name} at once"] = [await together(work, n, repeat) for n in (1, 2, 4, 16)]
    return found


def table(found: dict[str, object], machine: dict[str, object]) -> str:
    lines = ["# Sandbox", "", f"`python bench/sandbox.py`, {machine}", ""]
    for name, numbers in found.items():
        assert isinstance(numbers, dict)
        lines += [f"## {name}", "", f"Layers: {', '.join(numbers['layers'])}.", ""]
        lines += [f"Bare fork: {numbers['bare_fork_ms']:.2f} ms.", ""]
        lines += ["| what | median ms | best tenth ms | repeated |", "|---|---:|---:|---:|"]
        for what, n in numbers.items():
            if isinstance(n, dict):
                lines.append(f"| {what} | {n['median_ms']:.1f} | {n['best_tenth_ms']:.1f} | {n['repeat']} |")
        lines += ["", "| what | at once | per second | least .. most |", "|---|---:|---:|---:|"]
        for what, rows in numbers.items():
            if what.endswith("at once"):
                lines += [
                    f"| {what} | {r['at_once']} | {r['per_second']:.0f} | {r['least']:.0f} .. {r['most']:.0f} |"
                    for r in rows
                ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "bench/results/sandbox")
    machine: dict[str, object] = {
        "cores": len(os.sched_getaffinity(0)),
        "load before": os.getloadavg(),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    makers = [] if bubblewrap.why_not() else [BubblewrapBox]
    boxes = [*(make() for make in makers), *([] if linux.why_not() else [LinuxBox()])]
    found = {}
    for box in boxes:
        found[box.name] = asyncio.run(measure(box))
        box.close()
    machine["load after"] = os.getloadavg()
    out.with_suffix(".json").write_text(json.dumps({"machine": machine, "measured": found}, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(found, machine))
    print(out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
