"""Data as records, whatever its form: JSONL, JSON, CSV and Parquet files, folders of them, data sets of Hugging Face.

It says where each record stands, so that a message can name the place. It knows nothing of questions or answers: `rows`
asks for fields. Everything is read at once; pyarrow and datasets are imported where such data is named.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.core.errors import ConfigError
from ratchet.core.load import describe, require_library

_ID = re.compile(r"[\w.-]+/[\w.-]+")
"""A data set on the hub: owner and name."""
_SAVED = ("dataset_info.json", "dataset_dict.json")
"""What ``save_to_disk`` of the library datasets leaves in a folder."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where data comes from."""

    path: str
    """A file, a folder, or a data set of Hugging Face."""
    subset: str = ""
    """Configuration of the data set, or a folder within the folder; empty for none."""
    split: str = ""
    """Part of the data set or of the folder; empty for ``train``, or all there is in a folder without parts."""

    def __str__(self) -> str:
        inside = ", ".join(part for part in (self.subset, self.split) if part)
        return f"{self.path} ({inside})" if inside else self.path


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a file, or one row of a table."""

    number: int
    """Counted from 1; of a text file the line."""
    place: str
    """For messages."""
    content: Mapping[str, Any]


def read_records(source: Source, *, wanted: str) -> Iterator[Record]:
    """Yield the records of a source in their order; `wanted` says what each should hold, for messages.

    **Raises**: `ConfigError` saying what is wrong, and where.
    """
    path = Path(source.path).expanduser()
    if path.is_dir():
        yield from _read_folder(source, path, wanted)
    elif _ID.fullmatch(source.path) and not path.exists() and path.suffix not in _READERS:
        yield from _read_hub(source)
    elif source.subset or source.split:
        raise ConfigError(
            f"{source.path} is a file: it has no subset and no split. Leave both out, or name a folder or a data set "
            "of Hugging Face."
        )
    else:
        yield from _read_file(path, source.path, wanted)


def _read_file(path: Path, shown: str, wanted: str) -> Iterator[Record]:
    try:
        yield from _READERS.get(path.suffix.lower(), _read_jsonl)(path, shown, wanted)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"{shown}: {reason}. Give the path of a JSONL, CSV or Parquet file or of a folder, relative to here or "
            "absolute, or owner/name of a data set of Hugging Face."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: not UTF-8 at byte {error.start}. Save the file as UTF-8.") from error


def _read_jsonl(path: Path, shown: str, wanted: str) -> Iterator[Record]:
    # Not splitlines(): that also breaks at U+2028 and its like, which JSON strings may hold.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{shown}:{number}"
        try:
            content = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(f"{place}: not JSON ({error}). Each line should be one JSON object.") from error
        yield _record(number, place, content, wanted)


def _read_json(path: Path, shown: str, wanted: str) -> Iterator[Record]:
    """Read one list of objects; a file that only calls itself JSON and has one object per line is read as such."""
    text = path.read_text(encoding="utf-8")
    if not text.lstrip().startswith("["):
        yield from _read_jsonl(path, shown, wanted)
        return
    try:
        rows = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{shown}: not JSON ({error}). It should be one list of objects.") from error
    for number, content in enumerate(rows, start=1):
        yield _record(number, f"{shown}, entry {number}", content, wanted)


def _record(number: int, place: str, content: object, wanted: str) -> Record:
    if not isinstance(content, dict):
        raise ConfigError(f"{place}: a JSON {type(content).__name__}, not an object with {wanted}.")
    return Record(number, place, content)


def _read_csv(path: Path, shown: str, wanted: str) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            for content in reader:
                place = f"{shown}:{reader.line_num}"
                if None in content or None in content.values():
                    raise ConfigError(f"{place}: the line has another number of fields than the first line. Mend it.")
                yield Record(reader.line_num, place, content)
        except csv.Error as error:
            raise ConfigError(f"{shown}:{reader.line_num}: not CSV ({error}). Mend the line.") from error


def _read_parquet(path: Path, shown: str, wanted: str) -> Iterator[Record]:
    require_library("pyarrow", extra="data", purpose=f"Reading {shown}")
    arrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        rows = parquet.read_table(path).to_pylist()
    except arrow.ArrowException as error:
        raise ConfigError(f"{shown}: not a Parquet file ({describe(error)}). Make or fetch it again.") from error
    for number, content in enumerate(rows, start=1):
        yield Record(number, f"{shown}, row {number}", content)


_READERS: Mapping[str, Callable[[Path, str, str], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
"""Ending of a file's name -> who reads it; any other file is taken for JSONL."""


def _read_folder(source: Source, path: Path, wanted: str) -> Iterator[Record]:
    if any((path / name).is_file() for name in _SAVED):
        yield from _read_saved(source, path)
        return
    folder = path / source.subset if source.subset else path
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _READERS and not p.name.startswith((".", "_")))
    if not files:
        raise ConfigError(f"{folder} holds no data: no file ends in {', '.join(_READERS)}. Name another folder.")
    for file in _of_split(files, source, folder):
        yield from _read_file(file, str(file), wanted)


def _of_split(files: Sequence[Path], source: Source, folder: Path) -> Sequence[Path]:
    """Return the files that belong to a split, by name: ``train.jsonl``, ``train-00000-of-00002.parquet``, ``train/x``.

    Where no file's name tells of a split, all are training data.
    """
    split = source.split or "train"

    def parts(file: Path) -> set[str]:
        inside = file.relative_to(folder)
        return {*inside.parts[:-1], *re.split(r"[-_.]", inside.name)}

    mine = [file for file in files if split in parts(file)]
    told = any(parts(file) & {"train", "test", "validation", "valid", "dev", "eval"} for file in files)
    if mine or (not told and not source.split):
        return mine or files
    names = ", ".join(sorted({str(file.relative_to(folder)) for file in files})[:6])
    raise ConfigError(f'{folder} has no split "{split}" among its files: {names}. Set environment.split, or subset.')


def _read_saved(source: Source, path: Path) -> Iterator[Record]:
    require_library("datasets", extra="data", purpose=f"Reading {source.path}, which that library saved,")
    datasets: Any = importlib.import_module("datasets")
    yield from _rows_of(source, lambda: datasets.load_from_disk(str(path)))


def _read_hub(source: Source) -> Iterator[Record]:
    require_library("datasets", extra="data", purpose=f'There is no file "{source.path}"; a data set of Hugging Face')
    datasets: Any = importlib.import_module("datasets")
    yield from _rows_of(source, lambda: datasets.load_dataset(source.path, source.subset or None))


def _rows_of(source: Source, load: Callable[[], Any]) -> Iterator[Record]:
    """Yield the rows of a data set, or of the split asked for where it has some."""
    try:
        loaded = load()
    except ConnectionError as error:
        raise ConfigError(
            f"{source}: the hub of Hugging Face cannot be reached ({describe(error)}). Try again, or fetch the data "
            "where there is a network and name its folder."
        ) from error
    # The library lets through whatever its readers and its network raise.
    except Exception as error:
        raise ConfigError(
            f"{source}: the library datasets cannot load it: {describe(error)}. Check the name and environment.subset; "
            "a private data set needs HF_TOKEN."
        ) from error
    if isinstance(loaded, Mapping):
        split = source.split or "train"
        if split not in loaded:
            raise ConfigError(f'{source.path} has no split "{split}". It has: {", ".join(map(str, loaded))}.')
        loaded = loaded[split]
    elif source.split:
        raise ConfigError(f"{source.path} has no splits. Leave environment.split out.")
    for number, content in enumerate(loaded, start=1):
        yield Record(number, f"{source}, row {number}", content)
