"""Sweeps: a base recipe and axes of named settings. One label from every axis makes a cell, a run of its own.

    base = "config.toml"              # a file beside this one, or a recipe's name
    seeds = [0, 1, 2]                 # short for a last axis "seed" that sets run.seed

    [axes.method]                     # label = settings laid over the base
    grpo = { algorithm.name = "grpo" }
    reinforce = { algorithm.name = "reinforce" }

    [axes.setting]                    # a later axis is laid over an earlier one
    interval-20 = { sync.interval = 20 }
    offline = { sync.offline = true }

The cell of the first labels is called ``grpo-interval-20-seed0``: a label that is a number carries its axis's name.
Reads files and nothing else; ``run/sweep.py`` runs the cells.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet.config import read
from ratchet.config.read import config_from_tree, find_recipe, merge, parse_override, read_tree
from ratchet.config.schema import RunConfig
from ratchet.config.section import Section
from ratchet.core.errors import ConfigError, nearest

KEYS = ("base", "seeds", "axes")
SEED = "seed"
"""The axis that `seeds` is short for."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
"""Axes and labels: they become names of folders."""

NUMBER = re.compile(r"[0-9][0-9.eE+-]*")
"""A label that says nothing without its axis's name."""

RESERVED = ("logs", "discarded", "sweep.json", "sweep.lock", "cells.lock")
"""What lies in a sweep's folder beside its cells."""

PLACES = ("folder", "name")
"""Settings of the run section that the sweep decides itself."""

Tree = dict[str, Any]


class Axis(Section):
    """One thing that varies, and the settings it takes."""

    name: str
    labels: dict[str, Tree]
    """Label -> settings laid over the base, in the file's order."""


class Sweep(Section):
    """A sweep file, read."""

    name: str
    file: Path
    base: Tree
    """The base recipe, not validated: an axis may give what it lacks."""
    axes: tuple[Axis, ...]


class Cell(Section):
    """One combination of labels."""

    name: str
    labels: dict[str, str]
    """Axis -> label."""
    config: RunConfig


def read_sweep(word: str) -> Sweep:
    """Return the sweep a word names: a study's (``stale``, ``stale/other``) or a path to a TOML file.

    Raises `ConfigError` for a missing or broken file, an unknown key, an axis or a label that cannot be.
    """
    file = find_sweep(word)
    tree = read_tree(file)
    for key in tree:
        if key not in KEYS:
            raise ConfigError(f"{file}: {key} is no key of a sweep.{nearest(key, KEYS)}")
    base = tree.get("base")
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"{file}: base{'' if base is None else f' = {base!r}'} must name the recipe that the axes vary, such as "
            'base = "config.toml" or base = "judge".'
        )
    axes = _axes(file, tree)
    _refuse_shared_names(file, axes)
    return Sweep(name=_sweep_name(word, file), file=file, base=_base_tree(file, base), axes=axes)


def find_sweep(word: str) -> Path:
    """Return the file of a sweep's name or of a path to a TOML file."""
    if word.endswith(".toml"):
        return find_recipe(word)
    for path in (read.RECIPES / word / "sweep.toml", read.RECIPES / f"{word}.toml"):
        if path.is_file():
            return path
    known = sweep_names()
    hint = nearest(word, known) or " No recipe ships one."
    raise ConfigError(f'There is no sweep "{word}".{hint} A path must end in .toml.')


def sweep_names() -> list[str]:
    """Return the names of the shipped recipes that have a sweep."""
    return sorted(path.parent.name for path in read.RECIPES.glob("*/sweep.toml"))


def make_cells(sweep: Sweep, *, folder: Path, words: Sequence[str] = (), only: Sequence[str] = ()) -> tuple[Cell, ...]:
    """Return the cells that `only` (``axis=label`` words) leaves, the last axis changing fastest.

    `words` (``key=value``) are laid over every cell. Raises `ConfigError` for the first cell whose config cannot be,
    and for two cells that are the same run.
    """
    allowed = _allowed(sweep, only)
    over: Tree = {}
    for word in words:
        if "=" not in word:
            raise ConfigError(f'"{word}" must read section.key=value: a sweep takes one file, and settings after it.')
        setting = parse_override(word)
        _refuse_places(setting, f'"{word}"')
        over = merge(over, setting)
    cells = []
    for labels in _combinations(sweep.axes):
        if all(label in allowed.get(axis, (label,)) for axis, label in labels.items()):
            cells.append(_cell(sweep, labels, over, folder))
    _refuse_twins(cells)
    return tuple(cells)


def cell_name(labels: Mapping[str, str]) -> str:
    """Return the name of a cell's folder."""
    return "-".join(f"{axis}{label}" if NUMBER.fullmatch(label) else label for axis, label in labels.items())


def facts(sweep: Sweep, words: Sequence[str]) -> Tree:
    """Return what to write down of a sweep for whoever compares its runs: the axes, and the labels of every cell."""
    return {
        "name": sweep.name,
        "file": str(sweep.file),
        "settings": list(words),
        "axes": {axis.name: list(axis.labels) for axis in sweep.axes},
        "cells": {cell_name(labels): labels for labels in _combinations(sweep.axes)},
    }


def as_tree(config: RunConfig) -> Tree:
    """Return a config as nested mappings that TOML can hold; what is not set is left out."""
    return config.model_dump(mode="json", exclude_none=True)


def _axes(file: Path, tree: Tree) -> tuple[Axis, ...]:
    """Return a sweep file's axes in its order, the seeds last."""
    found = tree.get("axes", {})
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: axes = {found!r} must be tables, such as [axes.method].")
    axes = [_axis(file, name, labels) for name, labels in found.items()]
    if "seeds" in tree:
        if SEED in found:
            raise ConfigError(f"{file}: seeds and [axes.{SEED}] say the same thing twice: keep one of them.")
        axes.append(_seeds(file, tree["seeds"]))
    if not axes:
        raise ConfigError(f"{file} has no axes, so there is nothing to sweep: add seeds = [0, 1] or [axes.method].")
    return tuple(axes)


def _axis(file: Path, name: str, labels: object) -> Axis:
    where = f"axes.{name}"
    if not NAME.fullmatch(name):
        raise ConfigError(f"{file}: {where}: an axis's name takes letters, digits and _ . + - only.")
    if not isinstance(labels, dict) or not labels:
        raise ConfigError(
            f'{file}: {where} = {labels!r} needs at least one label, such as grpo = {{ algorithm.name = "grpo" }}.'
        )
    for label, settings in labels.items():
        if not NAME.fullmatch(label):
            raise ConfigError(
                f'{file}: {where}: the label "{label}" names folders, so it takes letters, digits and _ . + - only, '
                "a letter or digit first."
            )
        if not isinstance(settings, dict):
            raise ConfigError(
                f"{file}: {where}.{label} = {settings!r} must be a table of settings, such as "
                f"{label} = {{ sync.interval = 20 }}."
            )
        _refuse_places(settings, f"{file}: {where}.{label}")
    return Axis(name=name, labels=labels)


def _seeds(file: Path, seeds: object) -> Axis:
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        raise ConfigError(f"{file}: seeds = {seeds!r} must list whole numbers of 0 or more, such as seeds = [0, 1, 2].")
    twice = sorted({s for s in seeds if seeds.count(s) > 1})
    if twice:
        raise ConfigError(f"{file}: seeds = {seeds!r} names {twice[0]} twice: leave one out.")
    return Axis(name=SEED, labels={str(s): {"run": {"seed": s}} for s in seeds})


def _base_tree(file: Path, base: str) -> Tree:
    try:
        return read_tree(file.parent / base if base.endswith(".toml") else find_recipe(base))
    except ConfigError as error:
        raise ConfigError(f'{file}: base = "{base}": {error}') from None


def _sweep_name(word: str, file: Path) -> str:
    """Return what the sweep is called: ``stale``, ``stale-other``, or after the file."""
    if not word.endswith(".toml"):
        return word.replace("/", "-")
    path = file.resolve()
    return path.parent.name if path.stem == "sweep" else path.stem


def _combinations(axes: Sequence[Axis]) -> list[dict[str, str]]:
    names = [axis.name for axis in axes]
    return [dict(zip(names, labels, strict=True)) for labels in itertools.product(*(axis.labels for axis in axes))]


def _cell(sweep: Sweep, labels: dict[str, str], over: Tree, folder: Path) -> Cell:
    name, tree = cell_name(labels), sweep.base
    for axis in sweep.axes:
        tree = merge(tree, axis.labels[labels[axis.name]])
    tree = merge(merge(tree, over), {"run": {"folder": str(folder), "name": name}})
    try:
        return Cell(name=name, labels=labels, config=config_from_tree(tree))
    except ConfigError as error:
        raise ConfigError(f"{sweep.file}, cell {name}: {error}") from None


def _allowed(sweep: Sweep, only: Sequence[str]) -> dict[str, set[str]]:
    """Return axis -> labels that may stay; an axis nobody named keeps all."""
    axes = {axis.name: axis.labels for axis in sweep.axes}
    allowed: dict[str, set[str]] = {}
    for word in only:
        axis, equals, label = word.partition("=")
        if not equals:
            raise ConfigError(f'--only "{word}" must read axis=label. Axes: {", ".join(axes)}.')
        if axis not in axes:
            raise ConfigError(f'--only "{word}": {axis} is no axis of {sweep.file}.{nearest(axis, axes)}')
        if label not in axes[axis]:
            raise ConfigError(f'--only "{word}": {label} is no label of {axis}.{nearest(label, axes[axis])}')
        allowed.setdefault(axis, set()).add(label)
    return allowed


def _refuse_places(settings: Tree, where: str) -> None:
    run = settings.get("run", {})
    for key in PLACES:
        if isinstance(run, dict) and key in run:
            raise ConfigError(
                f"{where} sets run.{key}, but a sweep names the folders of its cells itself: leave it out, and give "
                "the sweep's folder with --folder."
            )


def _refuse_shared_names(file: Path, axes: Sequence[Axis]) -> None:
    """Two cells must not share a folder, and none may lie where the sweep keeps its own files."""
    seen: dict[str, dict[str, str]] = {}
    for labels in _combinations(axes):
        name = cell_name(labels)
        if name in seen:
            raise ConfigError(
                f'{file}: two cells would be called "{name}": {_told(seen[name])}, and {_told(labels)}. Rename a label.'
            )
        if name in RESERVED:
            raise ConfigError(f'{file}: a cell cannot be called "{name}", the sweep keeps its own files there.')
        seen[name] = labels


def _refuse_twins(cells: Sequence[Cell]) -> None:
    """Two cells with the same settings would be one run under two names, a comparison of nothing."""
    seen: dict[str, str] = {}
    for cell in cells:
        settings = cell.config.model_dump_json(exclude={"run": {"name"}})
        if settings in seen:
            raise ConfigError(
                f"The cells {seen[settings]} and {cell.name} are the same run, setting for setting. Remove a label, "
                "or the key=value word that overrides what tells them apart, or leave one out with --only."
            )
        seen[settings] = cell.name


def _told(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{axis} = {label}" for axis, label in labels.items())
