"""What differs between the config a run went by so far and the one it is to go on with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ratchet.config.curve import is_curve
from ratchet.core.errors import ConfigError

WITHOUT_EFFECT = ("run.folder", "run.name", "train.worst_case_first")
"""Where a run lies: folders may be moved. What is tried before it and changes nothing."""

UNFELT = ("log.", "cluster.")
"""Who is told of a run, and how many processes share its work, changes nothing in it: no agreement is asked for."""

FIXED = ("policy.model", "policy.tiny", "policy.lora", "run.seed", "buffer.kind", "explore.prompts_per_step")
"""What weights and data were made with, and what the place in the data is counted in: another value is another run."""

PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@")


class Change(NamedTuple):
    """One setting with two values; None where one side has none."""

    key: str
    before: object
    after: object

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.before)} -> {shown(self.after)}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the settings that differ, by key, those without effect on training left out."""
    old, new = dict(_flat(before)), dict(_flat(after))
    keys = sorted({*old, *new} - set(WITHOUT_EFFECT))
    return [Change(k, old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)]


def accept(found: list[Change], *, accepted: bool, resume: str) -> None:
    """Raise `ConfigError` for changes that cannot be made, or that nobody has agreed to."""
    fixed = [c for c in found if c.key.startswith(FIXED) and c.before is not None]  # None: a setting that is new
    if fixed:
        raise ConfigError(
            f"A run cannot go on with another {fixed[0].key} ({shown(fixed[0].before)} -> {shown(fixed[0].after)}): "
            "put the old value back, or start a new run."
        )
    felt = [c for c in found if not c.key.startswith(UNFELT)]
    if felt and not accepted:
        listed = "; ".join(str(c) for c in felt)
        raise ConfigError(
            f"The config differs from the one the run went by so far: {listed}. Nothing was touched. Put the old "
            f"values back, or go on with the new ones, which is recorded: {resume} --accept-changes"
        )


def settings_of(config: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return a config as dotted key -> value for others to see: without passwords, tables and lists as text."""
    return {
        key: value if isinstance(value, int | float | bool) else PASSWORD.sub(r"\1:***@", _text(value))
        for key, value in _flat(config)
    }


def shown(value: object) -> str:
    """Return a setting as a message may hold it: without the password of a URL."""
    return PASSWORD.sub(r"\1:***@", repr(value))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and not is_curve(value):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
