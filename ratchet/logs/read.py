"""`read_log`: any training log in, one record out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from ratchet.core.errors import ConfigError, nearest
from ratchet.logs.build import BOOKKEEPING, Built, build
from ratchet.logs.collect import Table
from ratchet.logs.find import Place, place
from ratchet.logs.formats.databases import read_mlflow_folder, read_sqlite
from ratchet.logs.formats.delimited import read_delimited
from ratchet.logs.formats.documents import read_json, read_json_lines, read_trainer_state
from ratchet.logs.formats.events import read_tensorboard, read_wandb
from ratchet.logs.formats.own import read_run_folder
from ratchet.logs.formats.text import read_console, read_kaggle, read_notebook
from ratchet.logs.frameworks.entry import Framework, match
from ratchet.logs.frameworks.plain import RATCHET
from ratchet.logs.identify import identify, kind_of_training
from ratchet.logs.log import Found, Log
from ratchet.logs.names import STAND_INS
from ratchet.logs.notes import notes

FORMATS = {
    "ratchet": read_run_folder,
    "trainer_state": read_trainer_state,
    "jsonl": read_json_lines,
    "json": read_json,
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow_folder,
    "console": read_console,
    "notebook": read_notebook,
    "kaggle": read_kaggle,
}
"""Name of a form -> what reads it."""
FORMATS_OF_RUNS = {"sqlite": read_sqlite, "csv": read_delimited}
"""Forms that may hold several runs side by side."""
AUTO = "auto"
SAME_RUN = 0.5
"""Share of a folder's keys that another folder may have too if both hold parts of one run."""
FEW_KEYS = 3
"""Known keys a printed dict needs to be a row, where other dicts of the log have as many."""


def read_log(
    path: Path | str | Sequence[Path | str],
    *,
    format: str = AUTO,
    framework: str = AUTO,
    run: str | None = None,
    need_reward: bool = True,
) -> Log:
    """Return what a training log holds, whoever wrote it.

    `path` is a file, a folder to search (see `find`), or several that are one run. Format and framework are found out
    unless they are named. `run` chooses among the runs of a store that holds several.

    Raises `ConfigError` if there is nothing to read, if the evidence contradicts itself, and, unless `need_reward` is
    false, if it is no log of reinforcement learning: supervised training, or no reward.
    """
    paths = [Path(path)] if isinstance(path, Path | str) else [Path(p) for p in path]
    if not paths:
        raise ConfigError("No log was named.")
    asked = _format_named(format)
    places = [place(p, run, asked) for p in paths]
    table = Table()
    for chosen in places:
        _read(chosen, table, run)
    found = places[0].format
    sources = tuple(file for chosen in places for file in chosen.files)
    _refuse_what_is_no_log(table, sources, found)
    _refuse_several_runs(table, places)
    if found.name == "ratchet" and framework == AUTO:
        whose, claim = RATCHET, Found(RATCHET.name, "its run folder")
    else:
        whose, claim = _identified(table, framework)
    num_dropped = _drop_other_dicts(table, whose)
    _refuse_what_is_no_log(table, sources, found)
    if num_dropped:
        _, claim = _identified(table, whose.name if framework != AUTO else AUTO)  # the keys that are left
    log = _log(table, whose, claim, build(table, whose), (sources, found, places), num_dropped)
    if need_reward and (objection := log.objection()) is not None:
        raise objection
    return log


def _log(
    table: Table,
    whose: Framework,
    claim: Found,
    built: Built,
    origin: tuple[tuple[Path, ...], Found, Sequence[Place]],
    num_dropped: int,
) -> Log:
    sources, found, places = origin
    has_reward = any(name in built.series for name in ("reward/mean", *STAND_INS["reward/mean"]))
    return Log(
        sources=sources,
        format=found,
        framework=claim,
        axis=built.axis,
        num_rows=table.num_rows - num_dropped,
        series=built.series,
        evals=built.evals,
        also=built.also,
        unrecognised=built.unrecognised,
        joins=built.joins,
        notes=notes(table, whose, built, num_dropped),
        training=kind_of_training(table.keys, has_reward),
        unread=tuple(file for chosen in places for file in chosen.unread),
    )


def _read(chosen: Place, table: Table, run: str | None) -> None:
    name = chosen.format.name
    for file in chosen.files:
        table.begin(file)
        try:
            if name in FORMATS_OF_RUNS:
                FORMATS_OF_RUNS[name](file, table, run)
            else:
                FORMATS[name](file, table)
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror or error}.") from None


def _identified(table: Table, framework: str) -> tuple[Framework, Found]:
    return identify({shape: table.keys_of(shape) for shape in table.shapes()}, framework)


def _drop_other_dicts(table: Table, whose: Framework) -> int:
    """Drop printed dicts that are no rows of metrics, such as configs and what rewards print; return how many."""

    def known(keys: Sequence[str]) -> int:
        return sum(match(whose, key) is not None for key in keys)

    most = max((known(keys) for shape, keys in table.layouts() if shape == "dicts"), default=0)
    return table.keep(lambda shape, keys: shape != "dicts" or known(keys) >= max(1, min(FEW_KEYS, most)))


def _refuse_several_runs(table: Table, places: Sequence[Place]) -> None:
    """Raise if files found in different folders hold mostly the same keys: they are not parts of one run."""
    folders = sorted({file.parent for chosen in places for file in chosen.files})
    if len(places) > 1 or len(folders) < 2:  # who names several paths says that they are one run
        return
    starts = [first for first, _ in table.sources]
    whose = np.array([folders.index(file.parent) for _, file in table.sources])
    keys: dict[int, set[str]] = {}
    for group in table.groups():
        for folder in np.unique(whose[np.searchsorted(starts, group.rows, side="right") - 1]).tolist():
            keys.setdefault(folder, set()).update(group.columns.keys() - BOOKKEEPING)
    for one, other in combinations(keys, 2):
        both = keys[one] & keys[other]
        if len(both) > SAME_RUN * min(len(keys[one]), len(keys[other])):
            raise ConfigError(
                f"{folders[one]} and {folders[other]} hold the same series ({', '.join(sorted(both)[:3])}), so they "
                "are two runs. Name one of them, or the files of one run."
            )


def _format_named(name: str) -> str:
    plain = {"tsv": "csv", "trackio": "sqlite", "tfevents": "tensorboard", "tb": "tensorboard"}.get(name, name)
    if plain != AUTO and plain not in FORMATS and plain not in FORMATS_OF_RUNS:
        raise ConfigError(f'There is no format "{name}" here.{nearest(plain, [*FORMATS, *FORMATS_OF_RUNS])}')
    return plain


def _refuse_what_is_no_log(table: Table, sources: Sequence[Path], found: Found) -> None:
    """Raise if there are no rows, or if they are texts of rollouts."""
    where = sources[0]
    if table.num_rows and table.num_samples > 0.5 * table.num_rows:
        raise ConfigError(
            f"{where} holds rollouts (prompts and answers), one a row, not the metrics of steps. Name the file of "
            "metrics; often it is called metrics.jsonl or lies in the folder above."
        )
    if not table.keys:
        raise ConfigError(
            f"{where} holds no metrics: it was read as {found.name} ({found.evidence}), and no row of numbers was "
            "found. Is it the log of training? If it is, say in which form (format)."
        )
