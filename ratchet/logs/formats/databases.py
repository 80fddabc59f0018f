"""Readers of trackers' stores: trackio's and MLflow's SQLite files, and MLflow's folders of plain text."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from math import nan
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ratchet.core.errors import ConfigError, nearest
from ratchet.logs.cells import number, parsed, row_of
from ratchet.logs.collect import Table
from ratchet.logs.lines import Lines

MAGIC = b"SQLite format 3\x00"


def read_sqlite(path: Path, table: Table, run: str | None = None) -> None:
    """Add the rows of one run of a trackio project or of an MLflow store.

    Raises `ConfigError` if the file is neither, or holds several runs and `run` names none of them.
    """
    try:
        with closing(_connected(path)) as database:
            columns = {str(row[1]) for row in database.execute("PRAGMA table_info(metrics)")}
            if {"run_name", "step", "metrics"} <= columns:
                _read_trackio(path, database, table, run)
            elif {"run_uuid", "key", "value", "step"} <= columns:
                _read_mlflow(path, database, table, run, columns)
            else:
                raise ConfigError(
                    f"{path} is a database, but neither trackio's nor MLflow's: it has no table of metrics as they "
                    "write it. Export its metrics as CSV."
                )
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is a database that cannot be read: {error}. Is it whole?") from None


def _connected(path: Path) -> sqlite3.Connection:
    """Return a connection that writes nothing, not even the files beside a database that is being written."""
    base = f"file:{quote(str(path.absolute()))}?mode=ro"
    database = sqlite3.connect(base, uri=True)
    database.text_factory = _text
    try:
        database.execute("SELECT name FROM sqlite_master").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter is an error whose text is damaged
        database.close()
        if not isinstance(error, sqlite3.OperationalError):
            raise
        # A folder that may not be written: the log beside the file is left unread.
        database = sqlite3.connect(f"{base}&immutable=1", uri=True)
        database.text_factory = _text
    return database


def _text(raw: bytes) -> str:
    """Return a text of a database that may be damaged."""
    return raw.decode("utf-8", errors="replace")


def _read_trackio(path: Path, database: sqlite3.Connection, table: Table, run: str | None) -> None:
    runs = [
        str(name) for (name,) in database.execute("SELECT run_name FROM metrics GROUP BY run_name ORDER BY min(rowid)")
    ]
    chosen = one_run(path, runs, run)
    query = "SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY rowid"
    for step, text in database.execute(query, (chosen,)):
        tree = parsed(text) if isinstance(text, str | bytes) else None
        table.num_odd += tree is None
        if isinstance(tree, dict):
            keys, values, _ = row_of(tree)
            if keys:
                table.add(keys, values, float(step) if isinstance(step, int | float) else nan, "trackio")


def _read_mlflow(path: Path, database: sqlite3.Connection, table: Table, run: str | None, columns: set[str]) -> None:
    names = {str(uuid): str(uuid) for (uuid,) in database.execute("SELECT DISTINCT run_uuid FROM metrics")}
    known = {str(row[1]) for row in database.execute("PRAGMA table_info(runs)")}
    if {"run_uuid", "name"} <= known:
        names.update(
            {str(u): str(n) for u, n in database.execute("SELECT run_uuid, name FROM runs") if n and u in names}
        )
    chosen = one_run(path, list(names.values()), run if run not in names else names[str(run)])
    uuid = next(u for u, n in names.items() if n == chosen)
    is_nan = "is_nan" if "is_nan" in columns else "0"
    query = f"SELECT key, value, step, {is_nan} FROM metrics WHERE run_uuid = ? ORDER BY rowid"
    for key, value, step, missing in database.execute(query, (uuid,)):
        if isinstance(value, int | float) and isinstance(step, int | float):
            table.add((mlflow_key(str(key)),), (nan if missing else float(value),), float(step), "mlflow")


def one_run(path: Path, runs: Sequence[str], run: str | None) -> str:
    """Return the run to read. Raises `ConfigError` if it is not there, or none is named and there are several."""
    if not runs:
        raise ConfigError(f"{path} holds no metrics. Did the run log any?")
    if run is None and len(runs) > 1:
        raise ConfigError(
            f"{path} holds {len(runs)} runs: {', '.join(runs[:8])}{', ...' if len(runs) > 8 else ''}. "
            "Say which one to read (run)."
        )
    if run is not None and run not in runs:
        raise ConfigError(f'{path} has no run "{run}".{nearest(run, runs)}')
    return run or runs[0]


def mlflow_key(name: str) -> str:
    """Return a key as it was before MLflow, which allows no ``@``."""
    return name.replace("_at_", "@")


def read_mlflow_folder(path: Path, table: Table) -> None:
    """Add the rows of one run's folder: a file per key, ``timestamp value step`` on each line."""
    for file in sorted(p for p in (path / "metrics").rglob("*") if p.is_file()):
        key = (mlflow_key(file.relative_to(path / "metrics").as_posix()),)
        for step, value in _mlflow_lines(file, table):
            table.add(key, (value,), step, "mlflow")


def _mlflow_lines(file: Path, table: Table) -> Iterator[tuple[float, float]]:
    for line in Lines(file):
        words = line.split()
        value = number(words[1]) if len(words) > 1 else None
        step = number(words[2]) if len(words) > 2 else nan
        if value is None or step is None:
            table.num_odd += bool(words)
        else:
            yield step, value


def is_mlflow_run(path: Path) -> bool:
    """Return whether a folder is that of a run of MLflow."""
    return (path / "metrics").is_dir() and (path / "meta.yaml").is_file()


def mlflow_runs(path: Path) -> Mapping[str, Path]:
    """Return the runs below a folder of MLflow by name: ``mlruns``, an experiment, or a run itself."""
    if is_mlflow_run(path):
        return {path.name: path}
    metas = [*path.glob("*/meta.yaml"), *path.glob("*/*/meta.yaml")]
    folders = sorted(meta.parent for meta in metas if is_mlflow_run(meta.parent))
    return {_run_name(folder): folder for folder in folders}


def _run_name(folder: Path) -> str:
    """Return the name of a run: its tag if that is there and readable, else its id."""
    try:
        tag: Any = (folder / "tags" / "mlflow.runName").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return folder.name
    return str(tag) or folder.name
