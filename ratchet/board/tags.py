"""Words that a person put on runs, kept in one file of the folder: ``board.json``."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from ratchet.core.errors import ConfigError

MOST, LONGEST = 20, 40


class Tags:
    """Tags by the id of their run."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "board.json"
        self._lock = threading.Lock()
        self._tags = _read(self._path)

    def of(self, id_: str) -> list[str]:
        """Return the tags of a run."""
        return list(self._tags.get(id_, ()))

    def put(self, id_: str, tags: Sequence[str]) -> list[str]:
        """Replace the tags of a run and return them as they are kept. Raises `ConfigError` if they cannot be."""
        kept = list(dict.fromkeys(" ".join(t.split()) for t in tags if t.strip()))
        if len(kept) > MOST or any(len(t) > LONGEST for t in kept):
            raise ConfigError(f"A run has at most {MOST} tags of at most {LONGEST} characters.")
        with self._lock:
            self._tags = {**self._tags, id_: kept}
            part = self._path.with_suffix(".part")
            try:
                part.write_text(json.dumps({"tags": self._tags}, indent=1, ensure_ascii=False), encoding="utf-8")
                part.replace(self._path)
            except OSError as error:
                raise ConfigError(f"{self._path} cannot be written: {error.strerror}. Mend the permissions.") from None
        return kept


def _read(path: Path) -> dict[str, list[str]]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): [str(t) for t in v] for k, v in tree["tags"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
