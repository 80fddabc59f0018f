"""The page's modules as one plain script: browsers load no modules from the disk, and an export must open from there.

The modules are written for it: one line per import; only functions and constants are exported, where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

IMPORT = re.compile(r'^import \{ ([^}]+) \} from "\./([\w.-]+)";$', re.M)
EXPORT = re.compile(r"^export ((?:async )?function|const) (\w+)", re.M)


def bundle(modules: Mapping[str, str], entry: str) -> str:
    """Return the modules that `entry` needs, itself last, as one script. Raises `ValueError` for unknown forms."""
    done: dict[str, str] = {}
    _add(modules, entry, done, ())
    body = "\n".join(done.values())
    return f'"use strict";\n(() => {{\nconst modules = {{}};\n{body}\n}})();\n'


def _add(modules: Mapping[str, str], name: str, done: dict[str, str], above: tuple[str, ...]) -> None:
    if name in done:
        return
    if name in above:
        raise ValueError(f"the modules import each other in a circle: {' -> '.join((*above, name))}")
    text = modules[name]
    for needed in IMPORT.findall(text):
        _add(modules, needed[1], done, (*above, name))
    names = [found[1] for found in EXPORT.findall(text)]
    text = IMPORT.sub(lambda m: f'const {{ {m[1]} }} = modules["{m[2]}"];', text)
    text = EXPORT.sub(lambda m: f"{m[1]} {m[2]}", text)
    if re.search(r"^(?:import|export)\b", text, re.M):
        raise ValueError(f"{name} has an import or export in a form that is not read here")
    done[name] = f'modules["{name}"] = (() => {{\n{text}\nreturn {{ {", ".join(names)} }};\n}})();'
