"""How quick the board is: search in a million rollouts, curves of 100,000 points, and, with --browser, the page itself.

    python bench/board.py                      search and curves, on this machine's processor
    python bench/board.py --browser            first paint, pan and zoom with 20 charts, in Chromium

Texts are drawn from a vocabulary with Zipf's frequencies, so that there are common and rare words, as in real ones.
Prints wall time and, beside it, the processor's own: on a machine that does other work they differ.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ratchet.board.board import Board
from ratchet.board.index import FILE, Index, Query, opened, put
from ratchet.store.run_store import RunStore

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession

VOCABULARY = 30_000
CHUNK = 5_000
"""Rollouts written at once: a step."""
CONFIG = {"environment": {"name": "judge"}, "algorithm": {"name": "grpo"}, "train": {"steps": 100_000}}
SEARCHES = (
    ("a common word", Query("w3")),
    ("two common words", Query("w3 w11")),
    ("a rare word", Query("w29000")),
    ("a phrase", Query('"w3 w11"')),
    ("the beginning of a word", Query("w290*")),
    ("no such word", Query("nowhere")),
    ("a common word, reward at least 0.999", Query("w3", low=0.999)),
)


def timed(work: Callable[[], object], times: int = 5) -> tuple[float, float]:
    """Return the median milliseconds of some calls: by the clock, and of this process on the processor."""
    wall, busy = [], []
    for _ in range(times):
        a, b = time.perf_counter(), time.process_time()
        work()
        wall.append(1000 * (time.perf_counter() - a))
        busy.append(1000 * (time.process_time() - b))
    return sorted(wall)[times // 2], sorted(busy)[times // 2]


def fill(path: Path, rollouts: int, words: int) -> float:
    """Write an index of made-up rollouts; return the seconds of the processor."""
    rng = np.random.default_rng(0)
    frequency = 1.0 / np.arange(1, VOCABULARY + 1)
    edges = np.cumsum(frequency / frequency.sum())
    names = np.array([f"w{i}" for i in range(VOCABULARY)], dtype=object)
    begun = time.process_time()
    with closing(opened(path)) as base:
        for step in range(rollouts // CHUNK):
            drawn = names[np.minimum(np.searchsorted(edges, rng.random((CHUNK, words))), VOCABULARY - 1)]
            rewards = rng.random(CHUNK)
            rows = [
                (step, i // 8, i % 8, f"t{i // 8}", float(rewards[i]), "ok", words, " ".join(drawn[i]), "")
                for i in range(CHUNK)
            ]
            with base:
                put(base, rows)
    return time.process_time() - begun


def search(folder: Path, rollouts: int, words: int) -> None:
    store = RunStore.create(folder / "run", CONFIG, {}, {})
    seconds = fill(store.folder / FILE, rollouts, words)
    size = (store.folder / FILE).stat().st_size / 1e6
    print(f"index of {rollouts:,} rollouts of {words} words: {seconds:.0f} s of the processor, {size:.0f} MB")
    index = Index(store)
    for name, query in SEARCHES:
        first = index.search(query)
        wall, busy = timed(lambda query=query: index.search(query))
        found = f"{first['count']:,}{' or more' if first['capped'] else ''}"
        print(f"  {name:<40} {wall:8.1f} ms  ({busy:.1f} ms busy), {found} found")


def long_run(folder: Path, steps: int, series: int) -> RunStore:
    """Write a run of many steps."""
    store = RunStore.create(folder / "runs" / "long", CONFIG, {}, {})
    rng = np.random.default_rng(1)
    values = np.cumsum(rng.normal(size=(steps, series)), axis=0)
    with (store.folder / "metrics.jsonl").open("w") as file:
        for k in range(steps):
            row = {f"env/m{j:02d}": round(float(values[k, j]), 5) for j in range(series)}
            file.write(json.dumps({"step": k, "reward/mean": row["env/m00"], **row}) + "\n")
    store.write_status({"state": "finished", "step": steps, "steps": steps})
    return store


def curves(folder: Path, steps: int, series: int) -> None:
    store = long_run(folder, steps, series)
    board = Board(store.folder.parent)
    a, b = time.perf_counter(), time.process_time()
    board.library.refresh(force=True)
    read = f"{time.perf_counter() - a:.2f} s ({time.process_time() - b:.2f} s busy)"
    print(f"run of {steps:,} steps with {series} series: read in {read}, once, when the board starts")
    id_ = next(iter(board.library.records()))
    names = [f"env/m{j:02d}" for j in range(series)]
    wall, busy = timed(lambda: board.series(id_, names, points=900))
    print(f"  {series} curves thinned to 900 points: {wall:.0f} ms ({busy:.0f} ms busy)")
    near = {"points": 900, "low": 0.4 * steps, "high": 0.5 * steps}
    wall, busy = timed(lambda: board.series(id_, names, **near))
    print(f"  the same, zoomed to a tenth:        {wall:.0f} ms ({busy:.0f} ms busy)")
    board.close()


FRAMES = """async ([kind, seconds]) => {
  const plot = document.querySelector('.chart .plot'), frames = [];
  plot.focus();
  const end = performance.now() + 1000 * seconds;
  let i = 0;
  await new Promise((done) => requestAnimationFrame(function frame(now) {
    frames.push(now);
    if (performance.now() > end) return done();
    const shift = kind === 'pan', key = shift ? (i % 16 < 8 ? 'ArrowRight' : 'ArrowLeft') : (i % 8 < 4 ? '+' : '-');
    plot.dispatchEvent(new KeyboardEvent('keydown', { key, shiftKey: shift }));
    i += 1;
    requestAnimationFrame(frame);
  }));
  const gaps = frames.slice(1).map((t, n) => t - frames[n]).sort((a, b) => a - b);
  return { frames: frames.length, median: gaps[gaps.length >> 1], worst: gaps[Math.floor(gaps.length * 0.95)] };
}"""


def browser(folder: Path, steps: int, series: int, chromium: str, seconds: float) -> None:
    """Measure the page: first paint of the charts, and the frames while all of them pan and zoom."""
    import uvicorn
    from playwright.sync_api import sync_playwright

    from ratchet.board.server import make_app

    store = long_run(folder, steps, series)
    board = Board(store.folder.parent)
    board.library.refresh(force=True)
    id_ = next(iter(board.library.records()))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    app = make_app(board, leaving=lambda: server.should_exit)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=chromium, args=flags)
        page = chrome.new_page(viewport={"width": 1280, "height": 2400})
        begun = time.perf_counter()
        page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}/#/run/{id_}/charts")
        while page.evaluate("document.querySelectorAll('.chart canvas').length") < 20:
            page.wait_for_timeout(20)
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        print(f"page with {page.locator('.chart canvas').count()} charts of {steps:,} points, 1280 x 2400:")
        print(f"  first contentful paint {paint:.0f} ms; all charts drawn after {time.perf_counter() - begun:.2f} s")
        counters = page.context.new_cdp_session(page)
        counters.send("Performance.enable", {"timeDomain": "threadTicks"})
        for kind in ("pan", "zoom"):
            before = busy_of(counters)
            got = page.evaluate(FRAMES, [kind, seconds])
            each = 1000 * (busy_of(counters) - before) / max(1, got["frames"])
            usual, slow = 1000 / got["median"], 1000 / got["worst"]
            print(
                f"  {kind}: {usual:.0f} frames a second (median), {slow:.0f} (slowest 5 %); "
                f"the page's thread was busy for {each:.1f} ms a frame"
            )
        chrome.close()
    server.should_exit = True
    thread.join()


def busy_of(counters: CDPSession) -> float:
    """Return the seconds of the processor that the page's main thread has used."""
    found = {row["name"]: row["value"] for row in counters.send("Performance.getMetrics")["metrics"]}
    return float(found["TaskDuration"])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rollouts", type=int, default=1_000_000)
    asked.add_argument("--words", type=int, default=40, help="words of a rollout")
    asked.add_argument("--steps", type=int, default=100_000)
    asked.add_argument("--series", type=int, default=20)
    asked.add_argument("--browser", action="store_true")
    asked.add_argument("--seconds", type=float, default=3.0, help="how long to pan, and to zoom")
    asked.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    a = asked.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if a.browser:
            browser(Path(name), a.steps, a.series, a.chromium, a.seconds)
            return
        curves(Path(name), a.steps, a.series)
        search(Path(name), a.rollouts, a.words)


if __name__ == "__main__":
    main()
