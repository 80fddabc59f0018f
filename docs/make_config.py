"""The page `configuration.md`, made from the schema: every key with its type, default, bound and sentence.

python docs/make_config.py                              prints the page
python docs/make_config.py --check docs/configuration.md   exits 1 if the file is not what would be printed
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ratchet.algorithms.table import ALGORITHMS
from ratchet.config.curve import Steps, positive, whole
from ratchet.config.schema import RunConfig
from ratchet.environments.table import BUILT_IN

HEAD = """\
# Configuration

<!-- Made from the schema. After a change there: python docs/make_config.py > docs/configuration.md -->

A recipe is a TOML file. Its tables are the sections below; a key that is not listed is an error, and the message
names the nearest known key. Files and `section.key=value` words are laid on each other from left to right:

```console
$ ratchet train judge my.toml algorithm.lr=1e-4 explore.prompts_per_step=16
```

A file may begin with `extends = "other.toml"` (or a list of files), relative to its own folder. Tables merge key by
key, everything else is replaced. When `name` changes in `[algorithm]` or `[environment]`, the options of the old name
are dropped. `ratchet explain` prints what follows from a recipe without starting it.

Where the type says *curve*, a number holds at every step, and a table changes over steps:

```toml
lr = 3e-4
lr = { kind = "linear", start = 3e-4, end = 0.0, steps = 100, warmup = 10 }
lr = { kind = "cosine", start = 3e-3, end = 1.5e-4, steps = 1400, warmup = 50 }
interval = { kind = "steps", values = { 0 = 1, 40 = 20 } }
```
"""

VALIDATORS: dict[Any, str] = {positive: "> 0 at every step", whole: "whole and ≥ 1 at every step"}
"""What our own validators of curves ask for."""


def page() -> str:
    """Return the whole page as Markdown."""
    parts = [HEAD]
    for name, field in RunConfig.model_fields.items():
        parts += section(name, model_of(field))
    parts.append("## Options of the algorithms\n")
    parts.append("They stand in `[algorithm]` beside the keys above.\n")
    for name, builder in ALGORITHMS.items():
        parts.append(f'### `name = "{name}"`\n\n{first_line(builder)}\n')
        parts.append(table(builder_rows(builder)) or "No options.\n")
    parts.append("## Options of the environments\n")
    parts.append("They stand in `[environment]` beside `name`.\n")
    for name, path in BUILT_IN.items():
        module, _, cls = path.partition(":")
        model = vars(importlib.import_module(module))[cls]
        parts += [f'### `name = "{name}"`\n\n{first_line(model)}\n', table(field_rows(model))]
    return "\n".join(parts)


def section(name: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the Markdown of a section and of the sections inside it."""
    yield f"## `[{name}]`\n\n{first_line(model)}\n"
    yield table(field_rows(model))
    for key, field in model.model_fields.items():
        if is_section(field):
            yield from section(f"{name}.{key}", model_of(field))


def field_rows(model: type[BaseModel]) -> list[tuple[str, str, str, str, str]]:
    """Return (key, type, default, bound, sentence) for each field that is a value."""
    hints = get_type_hints(model, include_extras=True)
    return [
        (field.alias or key, kind(hints[key]), default(field), bounds(field.metadata), field.description or "")
        for key, field in model.model_fields.items()
        if not is_section(field)
    ]


def builder_rows(builder: Any) -> list[tuple[str, str, str, str, str]]:
    """Return (key, type, default, bound, sentence) for each keyword of an algorithm's builder."""
    rows = []
    for key, parameter in inspect.signature(builder, eval_str=True).parameters.items():
        base, *extra = get_args(parameter.annotation) if has_extras(parameter.annotation) else (parameter.annotation,)
        info = next((x for x in extra if isinstance(x, FieldInfo)), None)
        rows.append((key, kind(base), shown(parameter.default), bounds(info.metadata if info else []), said(info, key)))
    return rows


def table(rows: list[tuple[str, str, str, str, str]]) -> str:
    """Return a Markdown table, or an empty string for no rows."""
    if not rows:
        return ""
    lines = ["| key | type | default | bound | what it is |", "|---|---|---|---|---|"]
    lines += [f"| `{key}` | {kind} | {value} | {bound} | {prose(text)} |" for key, kind, value, bound, text in rows]
    return "\n".join(lines) + "\n"


def kind(annotation: Any) -> str:
    """Return a type in words."""
    if Steps in flattened(annotation):
        return "curve"
    if has_extras(annotation):
        return kind(get_args(annotation)[0])
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in inner)
    if origin is tuple:
        if get_origin(inner[0]) is Literal:
            return f"list of {kind(inner[0])}"
        plural = {str: "texts", float: "numbers", int: "whole numbers"}[inner[0]]
        return f"list of {plural}" if Ellipsis in inner else f"{len(inner)} {plural}"
    if origin in (dict, Mapping):
        return "table"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[annotation]


def bounds(metadata: list[Any]) -> str:
    """Return the limits of a value as signs."""
    said = []
    for item in metadata:
        match item:
            case Ge():
                said.append(f"≥ {item.ge}")
            case Gt():
                said.append(f"> {item.gt}")
            case Le():
                said.append(f"≤ {item.le}")
            case Lt():
                said.append(f"< {item.lt}")
            case MultipleOf():
                said.append(f"a multiple of {item.multiple_of}")
            case MinLen():
                said.append("not empty")
            case AfterValidator():
                said.append(VALIDATORS[item.func])
            case _:
                pass  # how pydantic tells curves apart
    return ", ".join(said)


def default(field: FieldInfo) -> str:
    """Return a field's default as TOML writes it; long texts are only named."""
    if field.is_required():
        return "required"
    return shown(field.get_default(call_default_factory=True))


def shown(value: Any) -> str:
    """Return a value as TOML writes it, in backticks."""
    if value is PydanticUndefined or value is inspect.Parameter.empty:
        return "required"
    if isinstance(value, str) and len(value) > 40:
        return "a built-in text"
    text = "{}" if value == {} else json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return f"`{cell(text)}`"


def cell(text: str) -> str:
    """Return a text that cannot break a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def prose(text: str) -> str:
    """Return a sentence whose angle brackets are not read as HTML."""
    return cell(text).replace("<", "&lt;")


def first_line(thing: Any) -> str:
    """Return the first sentence of a docstring as Markdown."""
    return (inspect.getdoc(thing) or "").partition("\n")[0].replace("``", "`")


def said(info: FieldInfo | None, key: str) -> str:
    """Return the sentence of a builder's option."""
    if info is not None and info.description:
        return info.description
    return {"std": "Whether advantages are divided by the standard deviation of their group."}.get(key, "")


def has_extras(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated


def flattened(annotation: Any) -> set[Any]:
    """Return every type inside an annotation."""
    inner = get_args(annotation) if get_origin(annotation) in (Annotated, Union, types.UnionType) else ()
    found = {annotation} if isinstance(annotation, type) else set()
    return found.union(*(flattened(x) for x in inner))


def is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def model_of(field: FieldInfo) -> type[BaseModel]:
    assert isinstance(field.annotation, type)
    assert issubclass(field.annotation, BaseModel)
    return field.annotation


def main(words: list[str]) -> int:
    """Print the page, or compare it with a file."""
    if words[:1] != ["--check"]:
        print(page(), end="")
        return 0
    if Path(words[1]).read_text(encoding="utf-8") == page():
        return 0
    again = f"python docs/make_config.py > {words[1]}"
    print(f"{words[1]} is not what the schema says. Make it again: {again}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
