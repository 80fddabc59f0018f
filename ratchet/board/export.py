"""The board as a folder of files: the same page over recorded answers. Opens from the disk or from any static host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratchet.board.board import Board
from ratchet.board.bundle import bundle
from ratchet.board.compare import MOST_RUNS
from ratchet.board.curve import plain
from ratchet.board.page import MOST_SERIES
from ratchet.board.run import OwnRun
from ratchet.board.server import read_assets
from ratchet.core.errors import ConfigError

POINTS = 1500
"""Of a curve: zooming shows these and no more."""
LAST_STEPS = 3
"""Steps whose rollouts go into an export, beside the first."""
MOST_GROUPS = 12
"""Groups of such a step, widest spread first."""
COMPARED = ("reward/mean", "len/response/mean", "entropy", "kl/ref")
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file:; base-uri 'none'; "
    "form-action 'none'"
)
Files = Iterator[tuple[str, Any]]


def write_export(board: Board, out: Path) -> int:
    """Write the folder and return how many runs are in it.

    Raises `ConfigError` if it cannot be written, or holds something that is no export.
    """
    if out.exists() and any(out.iterdir()) and not (out / "static" / "board.js").is_file():
        raise ConfigError(f"{out} is not empty and no export of the board. Choose another folder.")
    board.library.refresh(force=True)
    if board.diagnoses:
        for id_, record in board.library.records().items():
            board.diagnosis.wait(id_, record)
    assets = dict(read_assets())
    modules = {name: data.decode() for name, data in assets.items() if name.endswith(".js") and "/" not in name}
    page = assets.pop("index.html").decode()
    page = page.replace('<html lang="en">', '<html lang="en" data-export="yes">')
    page = page.replace('src="static/app.js" type="module"', 'src="static/board.js" defer')
    # The modules are not in the export, and a browser that looks for them on the disk complains about each.
    page = "\n".join(line for line in page.splitlines() if 'rel="modulepreload"' not in line) + "\n"
    page = page.replace("<title>", f'<meta http-equiv="content-security-policy" content="{POLICY}">\n<title>')
    static = {n: d for n, d in assets.items() if n not in modules} | {"board.js": bundle(modules, "app.js").encode()}
    try:
        for name, data in static.items():
            path = out / "static" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (out / "index.html").write_text(page, encoding="utf-8")
        (out / "data").mkdir(exist_ok=True)
        for key, value in _answers(board):
            text = json.dumps(plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
            body = f"(globalThis.ratchetHanded ||= {{}})[{json.dumps(key)}] = {text};\n"
            (out / "data" / f"{key}.js").write_text(body, encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}. Choose another folder.") from None
    return len(board.library.records())


def _answers(board: Board) -> Files:
    listed = board.runs()
    yield "runs", listed
    ids = [run["id"] for run in listed["runs"]][:MOST_RUNS]
    if ids:
        for key, by_seed in (("compare", False), ("compare-mean", True)):
            how = {"axis": "step", "points": 700, "window": "auto", "by_seed": by_seed}
            yield key, board.compare(ids, COMPARED, **how)
    for run in listed["runs"]:
        yield from _run(board, run["id"])


def _run(board: Board, id_: str) -> Files:
    page = board.run(id_)
    page["acts"] = []
    yield f"runs-{id_}", page
    record = board.library.get(id_)
    names = record.names()
    for axis in record.axes():
        found: dict[str, Any] = {}
        for i in range(0, len(names), MOST_SERIES):
            some = board.series(id_, names[i : i + MOST_SERIES], axis=axis, points=POINTS)
            found |= {series["name"]: series for series in some}
        yield f"runs-{id_}-series-{axis}", found
    if isinstance(record, OwnRun):
        yield f"runs-{id_}-ledger", board.ledger(id_)
        yield from _rollouts(board, id_)


def _rollouts(board: Board, id_: str) -> Files:
    answer = board.steps(id_)
    kept = answer["steps"]
    chosen = sorted({*kept[:1], *kept[-LAST_STEPS:]})
    yield f"runs-{id_}-steps", {**answer, "steps": chosen}
    for step in chosen:
        try:
            groups = board.groups(id_, step)[:MOST_GROUPS]
        except ConfigError:  # a damaged file: the page says that the step is not in the export
            continue
        yield f"runs-{id_}-steps-{step}", groups
        for row in groups:
            group = board.group(id_, step, row["index"])
            yield f"runs-{id_}-steps-{step}-{row['index']}", group
            for one in [*group["attempts"], *([group["greedy"]] if group["greedy"] else [])]:
                name = "greedy" if one["attempt"] < 0 else one["attempt"]
                yield (
                    f"runs-{id_}-steps-{step}-{row['index']}-{name}",
                    board.attempt(id_, step, row["index"], one["attempt"]),
                )
