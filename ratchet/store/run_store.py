"""The run folder.

    config.toml        what was asked              plan.json      what was derived from it
    environment.json   versions and machine        metrics.jsonl  one row per step
    events.jsonl       what happened, with reasons status.json    what it does now, and whom it waits for
    rollouts/          every group of every step, and how far the trainer was from the sampler at each token
    checkpoints/       full states; each is a Hugging Face folder too
    figures/           drawn at the end            report.md      written at the end, and report.html
    loggers/           how far each logger has come
    control.jsonl      what a person asked of it   board.sqlite   the board's index of the texts, made when needed

Metrics and events are only ever appended. A resumed run appends again the steps it repeats; the last row of a step
counts. A run that was turned back appends ``{"rewound": k}``: what stands before it of step k and later ones counts no
longer. `RunStore.metrics` returns what counts.
"""

from __future__ import annotations

import gzip
import json
import os
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import tomli_w

from ratchet.core.errors import ConfigError, RunError
from ratchet.core.rollout import Differences, Group
from ratchet.store.codec import difference_from_json, difference_to_json, group_from_json, group_to_json

Row = dict[str, Any]


class RunStore:
    """Typed append and read of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(
        cls, folder: Path, config: Mapping[str, Any], plan: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> RunStore:
        """Make a new run folder. Raises `ConfigError` if it exists or cannot be made."""
        try:
            folder.mkdir(parents=True, exist_ok=False)
            for sub in ("rollouts", "checkpoints", "figures"):
                (folder / sub).mkdir()
        except FileExistsError:
            raise ConfigError(
                f"There is a run at {folder} already. Choose another run.name, or go on with it: "
                f"ratchet resume {folder}"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"The run folder {folder} cannot be made: {error.strerror}. Set run.folder elsewhere."
            ) from None
        store = cls(folder)
        with _writing(folder):
            (folder / "config.toml").write_text(tomli_w.dumps(_without_none(config)), encoding="utf-8")
            (folder / "plan.json").write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
            (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")
            for name in ("metrics.jsonl", "events.jsonl"):
                (folder / name).touch()
        return store

    @classmethod
    def open(cls, folder: Path | str) -> RunStore:
        """Open a run folder for reading or going on. Raises `ConfigError` if it is none."""
        folder = Path(folder)
        if not (folder / "config.toml").is_file():
            raise ConfigError(f"{folder} is not a run folder: it has no config.toml.")
        return cls(folder)

    def replace_config(self, config: Mapping[str, Any], plan: Mapping[str, Any], *, step: int) -> None:
        """Put a changed config and plan in place; the old ones stay beside them, named after the step."""
        with _writing(self.folder):
            for name, text in (
                ("config.toml", tomli_w.dumps(_without_none(config))),
                ("plan.json", json.dumps(plan, indent=2) + "\n"),
            ):
                path = self.folder / name
                path.with_name(f"{path.stem}-until-step-{step}{path.suffix}").write_bytes(path.read_bytes())
                part = path.with_suffix(".part")
                part.write_text(text, encoding="utf-8")
                part.replace(path)

    def config_tree(self) -> Row:
        """Return the run's config as nested mappings. Raises `ConfigError` if it cannot be read."""
        path = self.folder / "config.toml"
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path} is no TOML: {error}. Mend it, or start the run again elsewhere.") from None

    def plan(self) -> Row:
        """Return the run's plan as nested mappings."""
        return dict(json.loads((self.folder / "plan.json").read_text(encoding="utf-8")))

    def environment(self) -> Row:
        """Return the versions and the machine the run was started with."""
        return dict(json.loads((self.folder / "environment.json").read_text(encoding="utf-8")))

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append the row of one step; it is on disk when this returns."""
        self._append("metrics.jsonl", row)

    def append_event(self, kind: str, step: int, **facts: Any) -> None:
        """Append an event; it is on disk when this returns."""
        self._append("events.jsonl", {"time": round(time.time(), 3), "kind": kind, "step": step, **facts})

    def rewind(self, step: int) -> None:
        """Let the rows of `step` and later ones count no longer; they stay in the file."""
        self._append("metrics.jsonl", {"rewound": step})

    def metrics(self) -> list[Row]:
        """Return the rows of all steps in order; of a repeated step the last row."""
        latest: dict[int, Row] = {}
        for row in self._rows("metrics.jsonl"):
            if "rewound" in row:
                latest = {step: known for step, known in latest.items() if step < row["rewound"]}
            else:
                latest[row["step"]] = row
        return [latest[step] for step in sorted(latest)]

    def abandoned(self) -> list[list[Row]]:
        """Return the rows that no longer count, one list per time the run was turned back."""
        current: dict[int, Row] = {}
        found: list[list[Row]] = []
        for row in self._rows("metrics.jsonl"):
            if "rewound" in row:
                gone = [step for step in sorted(current) if step >= row["rewound"]]
                found += [[current.pop(step) for step in gone]] if gone else []
            else:
                current[row["step"]] = row
        return found

    def events(self) -> list[Row]:
        """Return all events in the order they happened."""
        return list(self._rows("events.jsonl"))

    def tail(self, name: Literal["metrics", "events"], at: int) -> tuple[list[Row], int]:
        """Return the whole lines behind byte `at` of ``<name>.jsonl``, as rows, and where the next one will begin.

        Unlike `metrics` it returns the rows of a repeated step each time they were written.
        """
        rows: list[Row] = []
        with (self.folder / f"{name}.jsonl").open("rb") as lines:
            lines.seek(at)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                rows.append(json.loads(line))
                at += len(line)
        return rows, at

    def write_groups(self, step: int, groups: Sequence[Group], name: str = "step") -> None:
        """Keep the groups of a step; the file appears whole or not at all."""
        with _writing(path := self.groups_path(step, name)):
            if name == "step":  # what an earlier attempt at the step made of its tokens says nothing about these
                self._differences_path(step).unlink(missing_ok=True)
            _write_packed(path, map(group_to_json, groups))

    def write_differences(self, step: int, differences: Differences) -> None:
        """Keep, of each token that a step trained on, how far the trainer was from the sampler: two bytes a token."""
        with _writing(path := self._differences_path(step)):
            _write_packed(path, (difference_to_json(key, values) for key, values in differences.items()))

    def read_differences(self, step: int) -> Differences | None:
        """Return what `write_differences` kept; None if that was nothing, as in runs of earlier versions."""
        path = self._differences_path(step)
        if not path.is_file():
            return None
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return dict(difference_from_json(json.loads(line)) for line in lines)

    def read_groups(self, step: int, name: str = "step") -> list[Group]:
        """Return the groups of a step. Raises `ConfigError` if they were not kept."""
        path = self.groups_path(step, name)
        if not path.is_file():
            kept = self.steps_with_groups()
            known = f"kept are steps {kept[0]} to {kept[-1]}" if kept else "none were kept (record.rollouts = false?)"
            raise ConfigError(f"{self.folder} holds no rollouts of step {step}: {known}.")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [group_from_json(json.loads(line)) for line in lines]

    def group_rows(self, step: int) -> Iterator[Row]:
        """Yield the groups of a step as JSON values: cheaper where tokens do not matter."""
        with gzip.open(self.groups_path(step), "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def _differences_path(self, step: int) -> Path:
        return self.groups_path(step, "differences")

    def groups_path(self, step: int, name: str = "step") -> Path:
        return self.folder / "rollouts" / f"{name}_{step:06d}.jsonl.gz"

    def steps_with_groups(self) -> list[int]:
        """Return the steps whose groups are kept."""
        return sorted(int(p.name[5:11]) for p in (self.folder / "rollouts").glob("step_*.jsonl.gz"))

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replace ``status.json``: what the run does now."""
        path = self.folder / "status.json"
        with _writing(path):
            part = path.with_suffix(".part")
            part.write_text(json.dumps(status), encoding="utf-8")
            part.replace(path)

    def status(self) -> Row:
        """Return what the run was doing when it last said so; empty if it never did."""
        path = self.folder / "status.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        path = self.folder / name
        with _writing(path), path.open("ab+") as file:
            _drop_half_line(file)
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _rows(self, name: str) -> Iterator[Row]:
        path = self.folder / name
        if not path.is_file():
            return
        with path.open("rb") as lines:  # bytes: a half-written line may end inside a character
            for line in lines:
                if not line.endswith(b"\n"):  # the row being written when the power went; its step runs again
                    return
                yield json.loads(line)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the disk says into a sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}. What was recorded before is safe; "
            "make room or mend the permissions, then: ratchet resume"
        ) from error


def _write_packed(path: Path, rows: Iterable[Row]) -> None:
    part = path.with_suffix(".part")
    # Level 1: four times smaller for a few milliseconds; mtime 0 makes equal rows equal files.
    with part.open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed:
        for row in rows:
            packed.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode())
            packed.write(b"\n")
    part.replace(path)


def _drop_half_line(file: BinaryIO) -> None:
    """Cut off the row that was being written when the process was killed, so that it does not spoil the next one."""
    end = file.seek(0, os.SEEK_END)
    whole = end
    while whole:
        file.seek(whole - 1)
        if file.read(1) == b"\n":
            break
        whole -= 1
    if whole < end:
        file.truncate(whole)
        file.seek(0, os.SEEK_END)


def _without_none(tree: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null; a missing key means the same."""
    return {
        k: _without_none(v) if isinstance(v, Mapping) else list(v) if isinstance(v, tuple) else v
        for k, v in tree.items()
        if v is not None
    }
