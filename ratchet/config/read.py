"""Reading recipes: TOML files, composed left to right, then ``key=value`` overrides; errors name key, value and fix."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ratchet.config.curve import KINDS, is_curve
from ratchet.config.learning import AlgorithmSection
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError, nearest

PACKAGE = Path(__file__).resolve().parent.parent
RECIPES = next((p for p in (PACKAGE / "recipes", PACKAGE.parent / "recipes") if p.is_dir()), PACKAGE / "recipes")
"""Shipped recipes: inside the package when installed, beside it in a checkout."""


def read_config(words: Sequence[str]) -> RunConfig:
    """Return the config of a command line: recipe names or TOML files and ``key=value`` words, in order.

    Raises `ConfigError` for a missing file, broken TOML, an unknown key, a wrong type, a value out of bounds or an
    impossible combination.
    """
    tree: dict[str, Any] = {}
    if not any("=" not in w for w in words):
        raise ConfigError(f"Name a recipe or a TOML file first. Recipes: {', '.join(recipe_names())}.")
    for word in words:
        tree = merge(tree, parse_override(word) if "=" in word else read_tree(find_recipe(word)))
    return config_from_tree(tree)


def config_from_tree(tree: Mapping[str, Any]) -> RunConfig:
    """Return the config of a nested mapping, or raise `ConfigError` for its first mistake."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(" ".join(_sentence(e) for e in error.errors()[:3])) from None


def find_recipe(word: str) -> Path:
    """Return the file of a recipe name (``judge``, ``judge/collapse``) or of a path to a TOML file."""
    if word.endswith(".toml"):
        path = Path(word).expanduser()
        if path.is_file():
            return path
        raise ConfigError(f'There is no file "{word}" (looked in {path.resolve().parent}).')
    for path in (RECIPES / word / "config.toml", RECIPES / f"{word}.toml"):
        if path.is_file():
            return path
    raise ConfigError(f'There is no recipe "{word}".{nearest(word, recipe_names())} A path must end in .toml.')


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    files = (p for p in RECIPES.glob("*/*.toml") if p.name != "sweep.toml")
    found = [p.relative_to(RECIPES).with_suffix("").as_posix() for p in files]
    return sorted(name.removesuffix("/config") for name in found)


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a TOML file as a nested mapping, laid over the files its ``extends`` names (relative to itself)."""
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path} extends itself, by way of {' -> '.join(p.name for p in seen)}.")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    parents = tree.pop("extends", [])
    base: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        base = merge(base, read_tree(path.parent / parent, (*seen, path)))
    return merge(base, tree)


SHARED = {"algorithm": frozenset(AlgorithmSection.model_fields), "environment": frozenset({"name"})}
"""Keys of a section that keep their meaning when its ``name`` changes; all others are options of the old name."""


def merge(under: Mapping[str, Any], over: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return `over` laid on `under`: tables merge key by key, everything else is replaced."""
    out = dict(under)
    if section in SHARED and over.get("name", under.get("name")) != under.get("name"):
        out = {k: v for k, v in out.items() if k in SHARED[section]}
    for key, value in over.items():
        below = out.get(key)
        # A table that names its kind is one value (a curve), not a set of keys to be merged.
        both = isinstance(below, dict) and isinstance(value, dict) and not is_curve(value)
        out[key] = merge(below, value, key) if both and isinstance(below, dict) else value
    return out


def parse_override(word: str) -> dict[str, Any]:
    """Return ``a.b=value`` as nested mappings. The value is read as TOML; what is not TOML is text."""
    key, _, text = word.partition("=")
    parts = [p.strip() for p in key.split(".")]
    if not all(parts):
        raise ConfigError(f'"{word}" must read section.key=value.')
    value: Any = text
    with suppress(tomllib.TOMLDecodeError):
        read = tomllib.loads(f"value = {text}")
        if len(read) == 1:  # otherwise the text held a line break and a second setting
            value = read["value"]
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def _sentence(error: Any) -> str:
    """Turn one pydantic error into a sentence with key, value and what would be right."""
    # A curve's kind stands in the location after the key it was given for; people never typed it.
    kinds = ("number", *KINDS)
    path = [str(p) for i, p in enumerate(error["loc"]) if i != 2 or p not in kinds]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"{key} is not a setting.{nearest(path[-1], _known(path[:-1]))}"
    if error["type"] == "missing":
        return f"{key} is missing: set it in the recipe or as {key}=... on the command line."
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not path:
        return f"{message}."
    value = error["input"]
    shown = "" if isinstance(value, Mapping | BaseModel) else f" = {value!r}"
    return f"{key}{shown}: {message}."


def _known(path: Sequence[str]) -> list[str]:
    """Return the keys allowed at a place of the schema."""
    model: Any = RunConfig
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
