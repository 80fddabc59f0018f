"""Which files a path means, and in which form they are.

A file's form is told by its content; its name only decides where the content allows several. A folder is searched in
this order, and the first kind that is there is read:

1. a run folder of ours (``config.toml`` beside ``metrics.jsonl``)
2. ``trainer_state.json``, of the folder or of its newest checkpoint
3. ``metrics.jsonl``, ``history.jsonl``, ``logging.jsonl``; then any other ``.jsonl`` that holds metrics
4. TensorBoard's event files, of the folder and of those below it
5. an offline run of W&B (``*.wandb``)
6. a run of MLflow, or a folder of them
7. ``.db`` and ``.sqlite`` (trackio, MLflow)
8. ``.csv`` and ``.tsv``
9. ``.log``, ``.out``, ``.txt``, ``.ipynb``
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.core.errors import ConfigError
from ratchet.logs.cells import number
from ratchet.logs.formats.databases import MAGIC, is_mlflow_run, mlflow_runs, one_run
from ratchet.logs.formats.delimited import delimiter_of
from ratchet.logs.formats.events import WANDB_MAGIC
from ratchet.logs.formats.own import is_run_folder
from ratchet.logs.lines import head, is_binary
from ratchet.logs.log import Found

MAX_DEPTH = 4
MANY_FOLDERS = 16
"""Folders whose files might still be those of one run."""
MAX_ENTRIES = 20_000
"""Entries looked at below a folder."""
METRIC_FILES = ("metrics.jsonl", "history.jsonl", "logging.jsonl")
NOT_METRICS = re.compile(r"rollout|trace|sample|completion|generation|checkpoint|logtree|event|trajector|dataset", re.I)
"""Names of files that hold something else than metrics."""


@dataclass(frozen=True, slots=True)
class Place:
    """Files to read as one log."""

    files: tuple[Path, ...]
    format: Found
    unread: tuple[Path, ...] = ()
    """What else of the run is there, in a form that comes later in the order."""


def place(path: Path, run: str | None, asked: str) -> Place:
    """Return what to read for a path. Raises `ConfigError` if there is nothing that can be read."""
    try:
        return _placed(path, run, asked)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}. May you read it?") from None


def _placed(path: Path, run: str | None, asked: str) -> Place:
    if not path.exists():
        raise ConfigError(f"There is no {path}.")
    if path.is_dir():
        return _in_folder(path, run, asked)
    if path.name == "metrics.jsonl" and is_run_folder(path.parent) and asked in ("auto", "ratchet"):
        return Place((path.parent,), Found("ratchet", "config.toml lies beside metrics.jsonl"))
    return Place((path,), Found(asked, "as asked for") if asked != "auto" else format_of(path))


def format_of(path: Path) -> Found:
    """Return the form of a file. Raises `ConfigError` if it is empty, binary, or no log."""
    with path.open("rb") as raw:
        begin = raw.read(16)
    if not begin:
        raise ConfigError(f"{path} is empty.")
    if begin.startswith(MAGIC):
        return Found("sqlite", "a SQLite database")
    if begin.startswith(WANDB_MAGIC):
        return Found("wandb", "the file of an offline run of W&B")
    if "tfevents" in path.name:
        return Found("tensorboard", "its name")
    if is_binary(path):
        raise ConfigError(f"{path} is binary, and no log that is known here. Name the log beside it, or its folder.")
    text = head(path).lstrip("\ufeff")
    if not text.strip():
        raise ConfigError(f"{path} is empty but for white space.")
    return _text_format(path, text)


def _text_format(path: Path, text: str) -> Found:
    begin = text.lstrip()
    if path.suffix == ".ipynb" or (begin.startswith("{") and '"nbformat"' in text and '"cells"' in text):
        return Found("notebook", "a Jupyter notebook")
    if begin.startswith(("[", "{")) and '"stream_name"' in begin[:4096]:
        return Found("kaggle", "records of a Kaggle log (stream_name)")
    if re.match(r"\[\s*\{", begin):
        return Found("json", "an array of rows")
    lines = [line for line in begin.split("\n")[:400] if line.strip()]
    if len(lines) > 1 and len(text) >= 1 << 16:
        lines.pop()  # cut off in the middle
    rows = sum(_is_json_row(line) for line in lines)
    document = begin.startswith("{") and (rows == 0 or len(lines) == 1)
    if document and '"log_history"' in text:
        return Found("trainer_state", "log_history, as transformers writes it")
    if rows and rows >= 0.5 * len(lines):
        return Found("jsonl", "a JSON object on each line")
    if document and re.search(r'"(?:history|logs|rows)"\s*:\s*\[', text):
        return Found("json", "a document with an array of rows")
    if _is_delimited(path, lines):
        return Found("csv", "a header and columns of numbers")
    return Found("console", "printed lines")


def _is_json_row(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_delimited(path: Path, lines: Sequence[str]) -> bool:
    """Return whether the first line names columns and the others hold numbers in them."""
    if len(lines) < 2 or "{" in lines[0]:
        return False
    sign = delimiter_of(lines[0])
    num_fields = lines[0].count(sign)
    if num_fields == 0:
        return False
    if path.suffix.lower() in (".csv", ".tsv"):
        return True
    if any(number(name) is not None for name in lines[0].split(sign)):
        return False
    rows = [line.split(sign) for line in lines[1:20]]
    return sum(_is_numeric(row, num_fields + 1) for row in rows) >= 0.9 * len(rows)


def _is_numeric(row: Sequence[str], num_fields: int) -> bool:
    numbers = sum(number(cell) is not None for cell in row)
    return len(row) == num_fields and numbers > 0 and numbers >= 0.5 * sum(bool(cell.strip()) for cell in row)


def _in_folder(path: Path, run: str | None, asked: str) -> Place:
    """Return what a folder holds, by the order that stands at the top."""
    if is_run_folder(path) and asked in ("auto", "ratchet"):
        return Place((path,), Found("ratchet", "a run folder: config.toml beside metrics.jsonl"))
    found: list[Place] = []
    files = list(_files(path))
    for name, place_ in (
        ("trainer_state", _trainer_states(files)),
        ("jsonl", _json_lines(files)),
        ("tensorboard", _one_kind(files, lambda p: "tfevents" in p.name, "tensorboard", "event files")),
        ("wandb", _one_kind(files, lambda p: p.suffix == ".wandb", "wandb", "an offline run of W&B")),
        ("mlflow", _mlflow(path, run)),
        ("sqlite", _one_kind(files, lambda p: p.suffix in (".db", ".sqlite"), "sqlite", "a database")),
        ("csv", _one_kind(files, lambda p: p.suffix.lower() in (".csv", ".tsv"), "csv", "columns")),
        ("printed", _printed(files)),
    ):
        if place_ is not None and asked in ("auto", name, place_.format.name):
            found.append(place_)
    if not found:
        raise ConfigError(
            f"{path} holds no log that is known here{'' if asked == 'auto' else f' in the form {asked}'}. "
            "Name the file itself."
        )
    chosen = found[0]
    _refuse_several(path, chosen)
    return Place(chosen.files, chosen.format, tuple(file for other in found[1:] for file in other.files))


def _files(path: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those below it, nearest and first names first; hidden ones left out."""
    folders, looked = [(path, 0)], 0
    while folders:
        folder, depth = folders.pop(0)
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        for entry in entries:
            looked += 1
            if looked > MAX_ENTRIES:
                return
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and not entry.is_symlink():
                if depth < MAX_DEPTH:
                    folders.append((entry, depth + 1))
            elif entry.is_file():
                yield entry


def _trainer_states(files: Sequence[Path]) -> Place | None:
    states = [file for file in files if file.name == "trainer_state.json"]
    if not states:
        return None
    # Every checkpoint's file holds all rows up to it: the newest has them all.
    newest = max(states, key=lambda file: (_checkpoint_step(file), -len(file.parts)))
    return Place((newest,), Found("trainer_state", f"{newest.name} of {newest.parent.name}"))


def _checkpoint_step(file: Path) -> int:
    """Return the step of a checkpoint's folder; of a folder that is none, the highest: it was written at the end."""
    number = file.parent.name.rpartition("checkpoint-")[2]
    return int(number) if number.isdecimal() and len(number) < 16 else 1 << 60


def _json_lines(files: Sequence[Path]) -> Place | None:
    named = [file for file in files if file.name in METRIC_FILES]
    if not named:
        named = [f for f in files if f.suffix == ".jsonl" and not NOT_METRICS.search(f.name)]
    return Place(tuple(named), Found("jsonl", ", ".join(dict.fromkeys(f.name for f in named)))) if named else None


def _one_kind(files: Sequence[Path], wanted: Callable[[Path], bool], name: str, why: str) -> Place | None:
    chosen = tuple(sorted((file for file in files if wanted(file)), key=lambda f: (str(f.parent), f.name)))
    return Place(chosen, Found(name, why)) if chosen else None


def _mlflow(path: Path, run: str | None) -> Place | None:
    if is_mlflow_run(path):
        return Place((path,), Found("mlflow", "a run of MLflow"))
    runs = mlflow_runs(path) or mlflow_runs(path / "mlruns")
    if not runs:
        return None
    return Place((runs[one_run(path, list(runs), run)],), Found("mlflow", "a run of MLflow"))


def _printed(files: Sequence[Path]) -> Place | None:
    logs = [f for f in files if f.suffix in (".log", ".out", ".txt", ".ipynb") and f.stat().st_size > 0]
    logs = [f for f in logs if not re.match(r"requirements|readme|licen[cs]e|debug", f.name, re.I)]
    if not logs:
        return None
    largest = max(logs, key=lambda f: f.stat().st_size)
    found = format_of(largest)
    return Place(
        (largest,), Found(found.name, f"{found.evidence}; {largest.name} is the largest of {len(logs)} such files")
    )


def _refuse_several(path: Path, chosen: Place) -> None:
    """Raise where files of several runs would be read as one."""
    if len({file.parent for file in chosen.files}) > MANY_FOLDERS:
        raise ConfigError(_several(path, chosen))
    if chosen.format.name in ("wandb", "sqlite", "csv") and len(chosen.files) > 1:
        raise ConfigError(_several(path, chosen))


def _several(path: Path, chosen: Place) -> str:
    names = ", ".join(str(file.relative_to(path)) for file in chosen.files[:6])
    return (
        f"{path} holds {len(chosen.files)} logs of the form {chosen.format.name}: {names}"
        f"{', ...' if len(chosen.files) > 6 else ''}. Name the one to read, or several that are one run."
    )
