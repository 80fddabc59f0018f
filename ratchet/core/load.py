"""User code by path: ``file.py:name`` or ``package.module:name``. Used in the run and in reward processes alike."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ratchet.core.errors import ConfigError, nearest


class LoadError(ConfigError):
    """A path does not lead to an object; the message says why."""


def is_path(text: str) -> bool:
    """Return whether the text has the form ``file.py:name`` or ``package.module:name``."""
    module, colon, name = text.rpartition(":")
    return bool(colon and module and name.isidentifier())


def load_object(path: str) -> object:
    """Return what a path names, importing its file or module on first use.

    The folder of a file is put at the end of `sys.path`, so that it may import its neighbours.

    **Raises**: `LoadError` if the file does not exist, raises on import, or does not define the name.
    """
    if not is_path(path):
        raise LoadError(f'"{path}" is no path to code. Write file.py:name or package.module:name.')
    place, _, name = path.rpartition(":")
    try:
        module = _import_file(place) if place.endswith(".py") else importlib.import_module(place)
    # The user's module may raise anything at all while it is imported; whatever it is, they must read it.
    except Exception as error:
        if isinstance(error, LoadError):
            raise
        raise LoadError(f'"{place}" cannot be imported: {describe(error)}. Fix it, or the path.') from error
    names = vars(module)
    if name not in names:
        public = [known for known in names if not known.startswith("_")]
        raise LoadError(f'"{place}" does not define "{name}".{nearest(name, public)}')
    return names[name]


def load_function(path: str, *, where: str) -> Callable[..., Any]:
    """Return the function that a path names; `where` is the setting that named it.

    **Raises**: `ConfigError` naming the setting if it cannot be loaded or called.
    """
    try:
        found = load_object(path)
    except LoadError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not callable(found):
        raise ConfigError(f'{where} = "{path}" is a {type(found).__name__}; name a function instead.')
    return found


def require_library(module: str, *, extra: str, purpose: str) -> None:
    """Check that an optional library is installed, without importing it.

    **Raises**: `ConfigError` naming the extra that brings it.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"{purpose} needs the library {module}, which is not installed. "
            f"Install it with: pip install 'ratchet[{extra}]'"
        )


def describe(error: BaseException) -> str:
    """Return one line about an exception: its type, its message, and the line of code it comes from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    message = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {message}{at}" if message else f"{type(error).__name__}{at}"


def _import_file(place: str) -> ModuleType:
    file = Path(place).expanduser().resolve()
    if not file.is_file():
        raise LoadError(f'"{place}" does not exist (looked for {file}). Give a path relative to here, or absolute.')
    digest = hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()
    module_name = f"ratchet_user_{file.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    # Dataclasses and pickling look the module up while it is still being executed.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
