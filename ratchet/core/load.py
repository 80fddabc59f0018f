"""Loading an object the user named: ``file.py:name`` or ``package.module:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ratchet.core.errors import ConfigError, nearest
from ratchet.core.seeds import derive


def load_object(reference: str, *, what: str) -> Any:
    """Return the object `reference` names. `what` is the setting it was given for, quoted in errors.

    Raises `ConfigError` when the file, the module or the name is missing, or when importing it raises.
    """
    source, _, name = reference.rpartition(":")
    if not source or not name:
        raise ConfigError(f'{what} = "{reference}" must read "file.py:name" or "package.module:name".')
    if source.endswith(".py"):
        path = Path(source).expanduser().resolve()
        if not path.is_file():
            raise ConfigError(f'{what} = "{reference}": there is no file {path}.')
        module_name = f"ratchet_user_{path.stem}_{derive(str(path)):x}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        load = lambda: spec.loader.exec_module(module)  # noqa: E731
    else:
        load = lambda: importlib.import_module(source)  # noqa: E731
    try:
        loaded = load()
    except Exception as error:  # the user's own code may raise anything; it is named and handed back
        raise ConfigError(f'{what} = "{reference}": importing {source} raised {type(error).__name__}: {error}.') from error
    module = module if source.endswith(".py") else loaded
    if name not in vars(module):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f'{what} = "{reference}": {source} defines no "{name}".{nearest(name, public)}')
    return vars(module)[name]
