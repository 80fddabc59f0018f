"""What the parts between explorers and trainer cost per group, with 1 to 256 explorers, and where they saturate.

    python bench/scale.py

Explorers are fakes that return ready-made groups (8 answers of 200 tokens) at once, so that only these parts work:
``hand-out`` (`run.far.FarGroups`), ``status`` (`status.json`
told twice per group), ``buffer`` (`buffer.buffer.Buffer.put` into SQLite, groups of all explorers at once),
``hand-out and buffer`` together as in the explore loop, and ``synchroniser`` (fingerprint, `run.sync.MemorySync`
and the copy for the hosts, once per step). A call of a real Ray actor with such a group is timed beside them. Writes
``bench/results/cluster-scale.md`` and ``.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from buffer import template

from ratchet.buffer.buffer import Buffer
from ratchet.buffer.groups import GroupTable
from ratchet.cluster.cluster import Cluster
from ratchet.cluster.crew import Crew, Member
from ratchet.config.schema import BufferSection
from ratchet.core.rollout import Group
from ratchet.engines.scripted import ScriptedEngine
from ratchet.policy.policy import fingerprint
from ratchet.run.far import FarGroups
from ratchet.run.machine import describe_environment
from ratchet.run.sync import MemorySync, Weights
from ratchet.store.run_store import RunStore

OUT = Path(__file__).parent / "results"
GROUP = template("8x200")[0]
HELD = Weights({"w": torch.zeros(1)}, 0, "0123456789ab")
PARAMETERS = 10_000_000


class Fakes:
    """Hosts of explorers that have every group ready."""

    def hire(self, name: str) -> Member:
        return Member(name, None)

    def dismiss(self, member: Member) -> None: ...

    async def lacks(self, member: Member) -> str:
        return ""

    async def sign(self, member: Member) -> dict[str, Any]:
        return {"pid": 1, "node": "here"}

    def share(self, value: Any) -> Any:
        return value

    async def call(self, member: Member, method: str, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return replace(GROUP, index=arguments[0].index, step=arguments[0].step)

    def pool(self) -> list[dict[str, Any]]:
        return []

    def close(self) -> None: ...


class Ready:
    """What lives in the real actor."""

    async def close(self) -> None: ...

    async def play(self) -> Group:
        return GROUP


def far(explorers: int) -> FarGroups:
    return FarGroups(
        Fakes, explorers, held=lambda: HELD, task_at=lambda i: i, lost=lambda *told: None, tell=lambda: None
    )


async def hand_out(explorers: int, groups: int) -> tuple[float, float]:
    """Return the seconds that dealing out and taking back a step's groups take, and those of telling the status once.

    The status was told twice per group before `run.far.TOLD_EVERY_S`, and is told that seldom since.
    """
    with tempfile.TemporaryDirectory() as folder:
        store, source = RunStore.create(Path(folder) / "run", {}, {}, {}), far(explorers)
        started = time.perf_counter()
        await asyncio.gather(*(source.group(0, index, 8) for index in range(groups)))
        took, tellings = time.perf_counter() - started, 16
        started = time.perf_counter()
        for _ in range(tellings):
            store.write_status({"actors": source.doing()})
        told = (time.perf_counter() - started) / tellings
        await source.close()
    return took, told


async def into_buffer(explorers: int, groups: int, *, dealt: bool) -> float:
    """Return the seconds that storing a step's groups takes, `dealt` out before or there already."""
    with tempfile.TemporaryDirectory() as folder:
        table = GroupTable.open(f"sqlite:///{folder}/b.sqlite", "bench", tokenizer="bench", create=True)
        buffer = Buffer(table, BufferSection(), prompts_per_step=groups, train_prompts=groups, ahead=0, done=0)
        source, started = far(explorers), time.perf_counter()
        if dealt:

            async def play(index: int) -> None:
                await buffer.put(await source.group(0, index, 8))

            await asyncio.gather(*(play(index) for index in range(groups)))
        else:

            async def explorer(number: int) -> None:
                for index in range(number, groups, explorers):
                    await buffer.put(replace(GROUP, index=index, step=0))

            await asyncio.gather(*(explorer(number) for number in range(explorers)))
        took = time.perf_counter() - started
        assert len((await buffer.take(0)).fresh) == groups
        await source.close()
        buffer.close()
    return took


async def publication() -> dict[str, float]:
    """Return the seconds of what happens to weights once per step, whatever the number of explorers."""
    weights, times = {"w": torch.randn(PARAMETERS)}, {}
    engine = ScriptedEngine(None, lambda prompt, seed: "", context=1)  # type: ignore[arg-type]  # it never speaks
    sync = MemorySync(engine, frozenset({1}))
    began = time.perf_counter()
    tag = fingerprint(weights)
    times["fingerprint"] = time.perf_counter() - began
    began = time.perf_counter()
    await sync.publish(weights, 1, tag)
    await sync.arrive(1)
    times["publish and arrive"] = time.perf_counter() - began
    return times


async def on_ray(groups: int, repeats: int) -> dict[str, list[float]]:
    """Return seconds per call of a real actor, one after another and many at once, and of sharing weights."""
    cluster = Cluster()
    crew, weights = Crew(Ready, cluster, Path(tempfile.mkdtemp())), {"w": torch.randn(PARAMETERS)}
    member, times = crew.hire("one"), dict[str, list[float]]()
    await crew.call(member, "play")  # it starts

    async def timed(name: str, number: int, do: Callable[[], Any]) -> None:
        began = time.perf_counter()
        await do()
        times.setdefault(name, []).append((time.perf_counter() - began) / number)

    async def in_turn() -> None:
        for _ in range(groups):
            await crew.call(member, "play")

    async def at_once() -> None:
        await asyncio.gather(*(crew.call(member, "play") for _ in range(groups)))

    async def share() -> None:
        crew.share(weights)

    try:
        for _ in range(repeats):
            await timed("call, one after another", groups, in_turn)
            await timed("call, all at once", groups, at_once)
            await timed("share", 1, share)
    finally:
        crew.close()
        cluster.close()
    return times


def spread(values: list[float]) -> str:
    """Return median and range in milliseconds."""
    ms = [1e3 * value for value in values]
    return f"{statistics.median(ms):.3f} ({min(ms):.3f} to {max(ms):.3f})"


def table(parts: Mapping[str, Mapping[int, list[float]]], once: Mapping[str, list[float]]) -> str:
    """Return the Markdown report."""
    lines = ["| part | explorers | ms per group: median (least to most) | groups/s |", "|---|---|---|---|"]
    for part, sizes in parts.items():
        for explorers, values in sizes.items():
            lines.append(f"| {part} | {explorers} | {spread(values)} | {1 / statistics.median(values):,.0f} |")
    lines += ["", f"Weights are {PARAMETERS:,} numbers of 32 bits; what is done to them is done once per step.", ""]
    lines += ["| operation | ms: median (least to most) |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {spread(values)} |" for name, values in once.items())])


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--explorers", default="1,4,16,64,256")
    parser.add_argument("--groups", type=int, default=256, help="groups of a step, in flight at once")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes, n = [int(word) for word in args.explorers.split(",")], args.groups
    parts: dict[str, dict[int, list[float]]] = {}
    for _ in range(args.repeats):  # interleaved: what disturbs the machine disturbs all
        for size in sizes:
            dealt, told = asyncio.run(hand_out(size, n))
            for part, took in (
                ("hand-out", dealt),
                ("status, twice per group (as it was)", 2 * n * told),
                ("buffer", asyncio.run(into_buffer(size, n, dealt=False))),
                ("hand-out and buffer", asyncio.run(into_buffer(size, n, dealt=True))),
            ):
                parts.setdefault(part, {}).setdefault(size, []).append(took / n)
                print(f"{part:36} {size:4} {1e3 * took / n:8.3f} ms per group", flush=True)
    once: dict[str, list[float]] = {}
    for _ in range(args.repeats):
        for name, took in asyncio.run(publication()).items():
            once.setdefault(name, []).append(took)
    once |= {f"Ray: {name}": values for name, values in asyncio.run(on_ray(128, args.repeats)).items()}
    facts = {"machine": describe_environment(), "load": os.getloadavg(), "groups": n, "repeats": args.repeats}
    report = table(parts, once)
    said = f"{facts['machine']['processor']}, {facts['machine']['cores']} cores, load {facts['load'][0]:.1f}; "
    said += f"{args.repeats} interleaved repeats of steps of {n} groups (8 answers of 200 tokens); wall time."
    (OUT / "cluster-scale.json").write_text(json.dumps({**facts, "parts": parts, "once": once}, indent=1) + "\n")
    (OUT / "cluster-scale.md").write_text(f"# Explorers, hand-out, buffer\n\n{said}\n\n{report}\n")
    print(report)


if __name__ == "__main__":
    main()
