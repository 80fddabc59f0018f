"""What charts and reports draw from: a run of ours or a log of anybody's, as series over steps, and what happened.

The one place that knows both. Figures, analysis and reports ask a `Source` and do not care who wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.charts.axes import Axis, Places, places
from ratchet.charts.labels import PUBLISHED, method_label
from ratchet.charts.series import Series, metric_names, metric_series, refreshes, resumes
from ratchet.core.errors import ConfigError
from ratchet.logs.log import Log, StepAxis
from ratchet.logs.names import STAND_INS
from ratchet.logs.read import AUTO, read_log
from ratchet.store.run_store import Row, RunStore

SYNC, RESUMED, CHECKPOINT, CURRICULUM, ROLLBACK, CHANGED, FINDING = (
    "sampler refreshed",
    "resumed",
    "checkpoint",
    "curriculum",
    "rolled back",
    "config changed",
    "finding",
)
"""Kinds of happenings, in the words of a legend."""
MOST_LABEL = 48
"""Characters of a legend's entry; a longer name loses its middle."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened at a step."""

    kind: str
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A run, whoever trained it."""

    label: str
    """What it is called in legends; sources of one label and setting are seeds of one curve."""
    path: Path
    happenings: tuple[Happening, ...]
    names: tuple[str, ...]
    """Of all its series."""
    setting: str = ""
    """The row of a grid it belongs to; empty for the only one."""
    store: RunStore | None = None
    """Of a run of ours."""
    rows: Sequence[Row] = ()
    """Its steps."""
    log: Log | None = None
    """Of anybody else's, and of single files."""

    @property
    def step_label(self) -> str:
        """Return what the x axis is called over steps."""
        if self.log is None or self.log.axis is StepAxis.UNSAID:
            return "Step"
        return self.log.axis.value.title()

    @property
    def study(self) -> str:
        """Return the study's name, or the environment's where the run names none; empty for a foreign log."""
        return study_of(self.store) if self.store is not None else ""

    @property
    def algorithm(self) -> str:
        """Return the algorithm's key in the table of algorithms, or empty."""
        if self.store is not None:
            return str(self.store.config_tree().get("algorithm", {}).get("name", ""))
        plain = self.label.lower()
        fitting = [
            (len(name), key)
            for key, known in PUBLISHED.items()
            for name in (key, known.title.lower())
            if plain == name or plain.startswith((f"{name}-", f"{name} ", f"{name},"))
        ]
        return max(fitting, default=(0, ""))[1]

    def get(self, name: str) -> Series | None:
        """Return a series without its values that are not finite, which may leave none; None if never recorded."""
        if self.store is not None:
            found = metric_series(self.store, self.rows, name)
            return found if found.values or any(name in row for row in self.rows) else None
        assert self.log is not None, "a source has a store or a log"
        read = self.log.get(name)
        if read is None:
            return None
        steps, values = read.finite()
        return Series(read.name, tuple(steps.tolist()), tuple(values.tolist()), read.num_non_finite)

    def nearest(self, name: str) -> Series | None:
        """Return the series of that name or, if there is none, what may stand in for it, under its own name."""
        names = (name, *STAND_INS.get(name, ()))
        return next((found for n in names if (found := self.get(n)) is not None), None)

    def meaning(self, name: str) -> str:
        """Return the log's own key, what it means there and what was done to it, where that is worth saying."""
        read = self.log.get(name) if self.log is not None else None
        if read is None:
            return ""
        facts = [f"key {read.key}" if read.key != read.name else "", read.meaning, read.change]
        return "; ".join(fact for fact in facts if fact)

    def places(self, axis: Axis) -> Places | None:
        """Return where steps lie on an axis, or None if what it counts was not recorded."""
        return places(axis, self.get, self.step_label)

    def place(self, axis: Places, series: Series) -> list[float]:
        """Return where a series lies. An evaluation of ours after k steps stands where step k - 1 ended."""
        if axis.is_step:
            return [float(step) for step in series.steps]
        late = 1 if self.store is not None and series.name.startswith("eval/") else 0
        return [axis.of(step - late) for step in series.steps]

    @property
    def span(self) -> tuple[int, int] | None:
        """Return the first and the last step of the run, or None if it has none."""
        if self.store is not None:
            steps = [int(row["step"]) for row in self.rows]
            return (steps[0], steps[-1]) if steps else None
        assert self.log is not None, "a source has a store or a log"
        ends = [(int(s.steps[0]), int(s.steps[-1])) for s in self.log.series.values() if len(s.steps)]
        return (min(a for a, _ in ends), max(b for _, b in ends)) if ends else None


def study_of(store: RunStore) -> str:
    """Return the study's name, or the environment's where the run names none."""
    config = store.config_tree()
    return str(config.get("run", {}).get("study") or config["environment"]["name"].rpartition(":")[2])


def source_of_run(store: RunStore, label: str = "", setting: str = "") -> Source:
    """Return a run of ours. Works while it goes on."""
    rows = store.metrics()
    found = [Happening(SYNC, step) for step in refreshes(rows)]
    found += [Happening(RESUMED, step) for step in resumes(store)]
    kinds = {
        "checkpoint": CHECKPOINT,
        "curriculum": CURRICULUM,
        "rollback": ROLLBACK,
        "config_changed": CHANGED,
    }
    found += [Happening(kinds[e["kind"]], int(e["step"])) for e in store.events() if e["kind"] in kinds]
    name = label or shown(store.folder.resolve().name)
    names = tuple(sorted(metric_names(store, rows)))
    return Source(name, store.folder, tuple(dict.fromkeys(found)), names, setting, store, rows)


def source_of_log(log: Log, label: str = "", setting: str = "") -> Source:
    """Return a log that was read. Where it was joined, a run was resumed."""
    path = log.sources[0]
    resumed = tuple(Happening(RESUMED, join.entered) for join in log.joins)
    names = tuple(sorted({*log.series, *log.evals, *log.unrecognised, *log.also}))
    return Source(label or shown(path.stem), path, resumed, names, setting, log=log)


def read_sources(
    words: Sequence[str], *, format: str = AUTO, framework: str = AUTO, run: str | None = None
) -> list[Source]:
    """Return the runs that words name: ``PATH``, ``LABEL=PATH`` or ``SETTING/LABEL=PATH``.

    A path is a run folder, a folder that holds some, or a log of any framework (`logs.read_log`). Paths of one label
    are seeds of one curve; a setting is a row of the figure. Labels of the same name are told apart by their folders.
    Raises `ConfigError` for what cannot be read, and for a log that is not of reinforcement learning.
    """
    found: list[Source] = []
    for word in words:
        setting, label, path = _parsed(word)
        folders = _run_folders(path)
        found += [source_of_run(RunStore.open(folder), label, setting) for folder in folders]
        if not folders:
            log = read_log(path, format=format, framework=framework, run=run)
            found.append(source_of_log(log, label, setting))
    if not found:
        raise ConfigError("No run and no log was named.")
    return _apart(found, {i for i, s in enumerate(found) if s.label in {_parsed(w)[1] for w in words}})


def by_config(sources: Sequence[Source]) -> list[Source]:
    """Return runs of ours labelled by method and setting, as their configs say, so that seeds are pooled."""
    from ratchet.charts.grouping import algorithm_options, flat_settings, setting_label

    labelled = []
    for source in sources:
        if source.store is None:
            labelled.append(source)
            continue
        settings = flat_settings(source.store.config_tree())
        method = method_label(str(settings["algorithm.name"]), algorithm_options(settings))
        labelled.append(replace(source, label=method, setting=setting_label(settings)))
    return labelled


def shown(text: str) -> str:
    """Return a text that a figure can show: on one line, printable, and with its middle left out if it is long."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = MOST_LABEL // 2 - 2
    return plain if len(plain) <= MOST_LABEL else f"{plain[:half]}...{plain[-half:]}"


def _parsed(word: str) -> tuple[str, str, Path]:
    """Return setting, label and path of a word.

    Labels and paths may hold ``=`` too (``sync_interval = 20/GRPO=lr=0.1/seed0``): the path begins behind the first one
    behind which something exists. A path that exists as it stands has no label.
    """
    cuts = [i for i, c in enumerate(word) if c == "=" and 0 < i < len(word) - 1]
    if not cuts or Path(word).exists():
        return "", "", Path(word)
    cut = next((i for i in cuts if Path(word[i + 1 :]).exists()), cuts[0])
    setting, _, name = word[:cut].rpartition("/")
    return shown(setting), shown(name), Path(word[cut + 1 :])


def _run_folders(path: Path) -> list[Path]:
    """Return the run folders that a path is or holds; none if it is a log."""
    if (path / "config.toml").is_file():
        return [path]
    if not path.is_dir() or not any("config.toml" in files for _, _, files in os.walk(path)):
        return []
    from ratchet.charts.grouping import find_runs  # it loads the schema of configs, which no log needs

    try:
        return find_runs([path])
    except ConfigError:  # other frameworks have files of that name too
        return []


def _apart(sources: Sequence[Source], named: set[int]) -> list[Source]:
    """Return sources whose labels differ, but for those that were named alike on purpose."""
    labels = [s.label for s in sources]
    result = []
    for i, source in enumerate(sources):
        if i in named or labels.count(source.label) == 1:
            result.append(source)
            continue
        near = shown(f"{source.path.resolve().parent.name}/{source.label}")
        alike = [s for j, s in enumerate(sources) if s.label == source.label and j != i]
        if any(s.path.resolve().parent.name == source.path.resolve().parent.name for s in alike):
            near = shown(source.path.name)
        result.append(replace(source, label=near))
    again = [s.label for s in result]
    for i, source in enumerate(result):
        if i not in named and again.count(source.label) > 1:
            result[i] = replace(source, label=f"{source.label} ({again[:i].count(source.label) + 1})")
    return result
