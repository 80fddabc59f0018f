"""Which runs belong together: finds run folders, and sorts them into settings, methods and seeds.

Two runs are seeds of one method if their configs differ in nothing that changes what is learned but the seed. Reads
the store, computes and draws nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ratchet.charts.labels import PUBLISHED, Published, method_label, method_order, told_value
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError, nearest
from ratchet.store.run_store import Row, RunStore

SILENT = (
    "run.",
    "record.",
    "log.",
    "cluster.",
    "eval.",
    "warm_start.cache",
    "buffer.url",
    "buffer.name",
    "data.from_run",
    "engine.max_rows",
    "train.steps",
    "train.micro_batch_tokens",
    "train.max_logits",
    "train.reference_kl",
    "train.overlap",
)
"""Settings (a dot at the end: whole sections) in which seeds of one method may differ: places, records, sizes that
change no number but by rounding, and how long a run lasts. `data.from_run` counts as part of the setting."""

SCHEDULES = ("constant", "linear", "cosine", "steps")
"""Kinds of a coefficient that changes over steps (`config.curve`)."""

PASSED_OVER = ("discarded", "logs")
"""Folders of a sweep that hold no cells."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is compared."""

    folder: Path
    rows: Sequence[Row]
    """Its steps in order, at least one."""
    settings: Mapping[str, Any]
    """Dotted key -> value, defaults filled in, schedules as tables."""
    done: bool = True
    """Whether all the steps it was asked for are there."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def algorithm(self) -> str:
        return str(self.settings["algorithm.name"])

    @property
    def seed(self) -> int:
        return int(self.settings["run.seed"])

    @property
    def study(self) -> str:
        return str(self.settings["run.study"])


@dataclass(frozen=True, slots=True)
class Method:
    """The seeds of one method in one setting."""

    label: str
    algorithm: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the figure: methods that got their data the same way."""

    label: str
    methods: tuple[Method, ...]

    @property
    def is_offline(self) -> bool:
        """Whether what is trained was never sampled from, so that the training reward says nothing about it."""
        return all(is_offline(run.settings) for method in self.methods for run in method.runs)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the run folders that `paths` are or contain, each once.

    Raises `ConfigError` for a path that is neither a run folder nor holds one.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        below = list(_run_folders(path))
        if not below:
            what = "there is no such folder" if not path.is_dir() else "it has no config.toml, and no folder below has"
            raise ConfigError(f"{path} is not a run folder: {what}.")
        found |= {p.resolve(): p for p in below}
    return list(found.values())


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Return the runs of some folders, and a sentence for each that was left out.

    Raises `ConfigError` if none is left.
    """
    runs, sentences = [], []
    for folder in folders:
        store = RunStore(folder)
        try:
            rows, tree = store.metrics(), store.config_tree()
        except (ConfigError, json.JSONDecodeError, OSError) as error:
            sentences.append(f"{folder} was left out: its files cannot be read ({error}).")
            continue
        if not rows:
            sentences.append(f"{folder} was left out: it has no finished step.")
            continue
        settings = flat_settings(tree)
        runs.append(Run(folder, rows, settings, done=len(rows) >= int(settings["train.steps"])))
    if not runs:
        raise ConfigError(f"There is nothing to compare. {' '.join(sentences)}")
    return runs, sentences


def flat_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as dotted key -> value. What it leaves out, because it is older, has today's default."""
    settings = {**_defaults(), **dict(_flat(tree))}
    known = PUBLISHED.get(str(settings["algorithm.name"]), Published(""))
    return {f"algorithm.{key}": value for key, value in known.defaults.items()} | settings


def algorithm_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run's algorithm: keys of its section that not every algorithm has."""
    return {k.removeprefix("algorithm."): v for k, v in settings.items() if is_algorithm_option(k)}


def is_algorithm_option(key: str) -> bool:
    """Return whether a setting is an option of one algorithm, not of all."""
    return key.startswith("algorithm.") and key not in _defaults()


def setting_label(settings: Mapping[str, Any]) -> str:
    """Return what a figure's row is called: how stale the data is that the run trains on."""
    if is_offline(settings):
        return "offline"
    parts = [f"sync_interval = {told_value(settings['sync.interval'])}"]
    if settings["sync.offset"]:
        parts.append(f"sync_offset = {settings['sync.offset']}")
    if settings["sync.partial_rollouts"]:
        parts.append("partial rollouts")
    return ", ".join(parts)


def is_offline(settings: Mapping[str, Any]) -> bool:
    """Return whether a run learned from the starting policy's samples or from another run's."""
    return bool(settings["sync.offline"] or settings["data.from_run"])


def grouped(runs: Sequence[Run], keys: Sequence[str] = ()) -> tuple[list[Setting], list[str]]:
    """Return the settings with their methods, freshest data first, and sentences about what was pooled.

    Methods are told apart by algorithm and options, and by every other setting in which the runs differ; one that
    differs between the rows only is named in their titles. `keys` replaces all this by the values of these settings.
    Raises `ConfigError` for a key that no run has.
    """
    for key in keys:
        known = set[str]().union(*(run.settings for run in runs))
        if key not in known:
            raise ConfigError(f'--label "{key}": there is no such setting.{nearest(key, known)}')
    varied = [key for key in _varied(runs) if not _tells_method(key)]
    by_row = [key for key in varied if _is_fixed_by(setting_label, key, runs)] if not keys else []
    sorted_runs: dict[str, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=_staleness):
        row = _joined([setting_label(run.settings), *_said(run, by_row)])
        label = _label(run, keys) if keys else _default_label(run, [key for key in varied if key not in by_row])
        sorted_runs.setdefault(row, {}).setdefault(label, []).append(run)
    settings = [
        Setting(
            row,
            tuple(
                Method(label, found[0].algorithm, tuple(sorted(found, key=lambda r: (r.seed, r.name))))
                for label, found in sorted(methods.items(), key=lambda m: (method_order(m[1][0].algorithm), m[0]))
            ),
        )
        for row, methods in sorted_runs.items()
    ]
    return settings, list(_pooled(settings))


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the settings in which two runs differ, those aside in which seeds of one method may."""
    return sorted(k for k in a.keys() | b.keys() if not _is_silent(k) and a.get(k) != b.get(k))


def _run_folders(path: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(path):
        if "config.toml" in files and ("metrics.jsonl" in files or Path(folder) == path):
            below.clear()
            yield Path(folder)
        below[:] = sorted(name for name in below if name not in PASSED_OVER)


@cache
def _defaults() -> Mapping[str, Any]:
    return dict(_flat(RunConfig.model_validate({"environment": {"name": "none"}}).model_dump(mode="json")))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; schedules and lists stay whole, null is left out."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value.get("kind") not in SCHEDULES:
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _is_silent(key: str) -> bool:
    return any(key == s or (s.endswith(".") and key.startswith(s)) for s in SILENT)


def _tells_method(key: str) -> bool:
    """Return whether a setting is an algorithm's name or option, or part of the row's label."""
    return is_algorithm_option(key) or key == "algorithm.name" or key.startswith("sync.")


def _varied(runs: Sequence[Run]) -> list[str]:
    first = runs[0].settings
    return sorted({key for run in runs for key in differing(first, run.settings)})


def _is_fixed_by(label: Callable[[Mapping[str, Any]], str], key: str, runs: Sequence[Run]) -> bool:
    """Return whether runs of one row all have the same value of a setting."""
    values: dict[str, list[Any]] = {}
    for run in runs:
        values.setdefault(label(run.settings), []).append(run.settings.get(key))
    return all(all(v == found[0] for v in found) for found in values.values())


def _default_label(run: Run, extra: Sequence[str]) -> str:
    return _joined([method_label(run.algorithm, algorithm_options(run.settings)), *_said(run, extra)])


def _label(run: Run, keys: Sequence[str]) -> str:
    parts = []
    for key in keys:
        if key == "algorithm.name":
            parts.append(PUBLISHED.get(run.algorithm, Published(run.algorithm)).title)
        elif key == "run.name":
            parts.append(run.name)
        else:
            parts += _said(run, [key])
    return _joined(parts)


def _said(run: Run, keys: Sequence[str]) -> list[str]:
    """Return settings as ``lr = 0.001``; a key keeps its section unless it is the algorithm's."""
    return [
        f"{key.removeprefix('algorithm.')} = {told_value(run.settings[key]) if key in run.settings else 'not set'}"
        for key in keys
    ]


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def _staleness(run: Run) -> tuple[bool, float, int]:
    """Sort runs so that rows go from fresh data to stale."""
    interval = run.settings["sync.interval"]
    if isinstance(interval, Mapping):
        numbers = interval["values"].values() if interval.get("kind") == "steps" else [interval.get("value", 1)]
        interval = max(float(n) for n in numbers)
    return is_offline(run.settings), float(interval), int(run.settings["sync.offset"])


def _pooled(settings: Sequence[Setting]) -> Iterator[str]:
    """Say what runs of one curve differ in, and which seeds are there twice."""
    for setting in settings:
        for method in setting.methods:
            where = f"{method.label} ({setting.label})"
            if keys := [key for key in _varied(method.runs) if not key.startswith("sync.")]:
                yield f"{where} pools runs that differ in {', '.join(keys)}, as --label asks."
            seeds = [run.seed for run in method.runs]
            if twice := sorted({s for s in seeds if seeds.count(s) > 1}):
                yield (
                    f"{where} has seed {', '.join(str(s) for s in twice)} more than once: runs of one seed are not "
                    "independent, and the intervals are too narrow."
                )
