"""A function and all it needs, as the source of one file; or why that cannot be.

What is taken along: functions, classes and constants of the package, to any depth and out of several of its modules,
and imports of the standard library. Code keeps its text: comments and layout stay. Left out are the docstring of the
function asked for (it becomes the specification) and names that annotations alone need, which nothing evaluates then.
"""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from ratchet.bugs.allowed import Reason, Refused, is_standard, screen, screen_builtin
from ratchet.bugs.bindings import Bindings, Imported, bindings_of
from ratchet.bugs.needs import has_annotations, needs_of
from ratchet.bugs.sources import Library, Module, parsed

_FUTURE = "from __future__ import annotations"
_LONGEST_SUMMARY = 100
"""Characters that are left of the docstring of a helper."""
_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__doc__"}


@dataclass(frozen=True, slots=True)
class OneFile:
    """The source of one file."""

    text: str
    entry: str


@dataclass
class _Collected:
    library: Library
    pieces: dict[str, dict[int, ast.stmt]] = field(default_factory=dict)
    """Statements by module and by line."""
    origins: dict[str, str] = field(default_factory=dict)
    """The module that each name of the file comes from."""
    begun: set[tuple[str, int]] = field(default_factory=set)
    """Statements that are taken or being taken: (module, line)."""
    imports: dict[str, Imported] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Names that a module of the package gives to things of another one."""
    after: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The modules that have to come before each."""
    notes: set[tuple[str, str]] = field(default_factory=set)
    """(module, name) that annotations alone read."""


def one_file(library: Library, module: Module, name: str, most_lines: int) -> OneFile:
    """Return the file of the function `name` of a module. **Raises**: `Refused` if there can be none."""
    collected = _Collected(library)
    _take(collected, module, name)
    _refuse_changes(collected, module, name)
    for there, note in sorted(collected.notes):
        _take_note(collected, library.by_name[there], note)
    text = _written(collected, module, name)
    try:
        parsed(text)
    except SyntaxError as error:
        raise Refused(Reason.BROKEN, str(error)) from None
    length = text.count("\n")
    if length > most_lines:
        raise Refused(Reason.LONG, f"{length} lines")
    return OneFile(text, name)


@cache
def _bindings(module: Module) -> Bindings:
    return bindings_of(module)


def _find(
    library: Library, module: Module, name: str, seen: frozenset[tuple[str, str]] = frozenset()
) -> tuple[Module, str] | Imported | None:
    """Return where a name of a module comes from: a module and its name there, the standard library, or a builtin
    (None).

    **Raises**: `Refused` if it comes from elsewhere.
    """
    bindings = _bindings(module)
    if name in bindings.made:
        return module, name
    if (module.name, name) in seen:  # modules that import it from each other
        raise Refused(Reason.UNKNOWN, name)
    seen |= {(module.name, name)}
    imported = bindings.imports.get(name)
    if imported is None:
        if name in _BUILTINS:
            return None
        for star in bindings.stars:
            there = library.by_name.get(star)
            if (
                there is not None
                and not name.startswith("_")
                and name in {*_bindings(there).made, *_bindings(there).imports}
            ):
                return _find(library, there, name, seen)
        raise Refused(Reason.THIRD_PARTY if bindings.stars else Reason.UNKNOWN, name)
    if is_standard(imported.module):
        return imported
    there = library.by_name.get(imported.module)
    if there is None:
        is_own = any(known.partition(".")[0] == imported.module.partition(".")[0] for known in library.by_name)
        raise Refused(Reason.PACKAGE if is_own else Reason.THIRD_PARTY, imported.path)
    if not imported.attribute or (imported.path in library.by_name and imported.attribute not in _bindings(there).made):
        raise Refused(Reason.PACKAGE, f"{imported.path} as a whole")
    return _find(library, there, imported.attribute, seen)


def alias_of(library: Library, module: Module, name: str) -> ast.expr | None:
    """Return what a name stands for that is assigned once, as a name for a type is; None for anything else."""
    try:
        found = _find(library, module, name)
    except Refused:
        return None
    if isinstance(found, tuple):
        match _bindings(found[0]).made[found[1]]:
            case (ast.Assign(value=value),) | (ast.AnnAssign(value=ast.expr() as value),):
                return value
    return None


def _take(collected: _Collected, module: Module, name: str) -> None:
    """Take along what a name of a module is bound to, and all that needs."""
    match _find(collected.library, module, name):
        case None:
            screen_builtin(name)
        case Imported() as imported:
            if collected.imports.setdefault(name, imported) != imported or name in collected.origins:
                raise Refused(Reason.PACKAGE, f"two things are called {name}")
        case (there, original):
            if there != module:
                collected.after[module.name].add(there.name)
            if name != original and collected.aliases.setdefault(name, original) != original:
                raise Refused(Reason.PACKAGE, f"two things are called {name}")
            if collected.origins.setdefault(original, there.name) != there.name or original in collected.imports:
                raise Refused(Reason.PACKAGE, f"two things are called {original}")
            for node in _bindings(there).made[original]:
                _take_statement(collected, there, node)


def _take_statement(collected: _Collected, module: Module, node: ast.stmt) -> None:
    if (module.name, node.lineno) in collected.begun:
        return
    collected.begun.add((module.name, node.lineno))
    needs = needs_of(node)
    screen(node, _bindings(module).standard())
    for needed in sorted(needs.names):
        _take(collected, module, needed)
    if isinstance(node, ast.If | ast.Try):
        _refuse_block(node, module)
    collected.notes |= {(module.name, note) for note in needs.annotations}
    collected.pieces.setdefault(module.name, {})[node.lineno] = node


def _refuse_block(node: ast.stmt, module: Module) -> None:
    """A condition at the top of a module is taken as a whole, so all its imports must be the standard library's."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            name = (
                module.absolute(inner.module, inner.level) if isinstance(inner, ast.ImportFrom) else inner.names[0].name
            )
            if not is_standard(name):
                raise Refused(Reason.THIRD_PARTY, name)


def _refuse_changes(collected: _Collected, module: Module, name: str) -> None:
    """Refuse a function that, when called, changes a global; a table that is filled while a module loads is none."""
    seen: set[tuple[str, str]] = set()
    left = [(module, name)]
    while left:
        here, current = left.pop()
        found = _find(collected.library, here, current)
        if not isinstance(found, tuple) or (found[0].name, found[1]) in seen:
            continue
        there, original = found
        seen.add((there.name, original))
        bindings = _bindings(there)
        if changed := bindings.changes.get(original):
            raise Refused(Reason.GLOBAL, f"{original} changes {', '.join(sorted(changed))}")
        for node in bindings.made[original]:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                left += [(there, needed) for needed in needs_of(node).names]


def _take_note(collected: _Collected, module: Module, name: str) -> None:
    """Take the import of a name that annotations use; what is more than an import of the standard library stays
    away."""
    bindings = _bindings(module)
    imported = bindings.notes.get(name) or bindings.imports.get(name)
    if imported is not None and is_standard(imported.module) and name not in collected.origins:
        collected.imports.setdefault(name, imported)


def _written(collected: _Collected, module: Module, entry: str) -> str:
    """Return the text of the file: imports, then statements, spaced as is the custom."""
    blocks: list[tuple[bool, str]] = []
    annotated = False
    for name in _ordered(collected.after, module.name):
        pieces = collected.pieces.get(name, {})
        here = collected.library.by_name[name]
        for _, node in sorted(pieces.items()):
            annotated |= has_annotations(node)
            is_entry = name == module.name and isinstance(node, ast.FunctionDef) and node.name == entry
            is_wide = isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If | ast.Try)
            blocks.append((is_wide, _text(here, node, without_docstring=is_entry)))
        of_here = [(alias, of) for alias, of in collected.aliases.items() if collected.origins.get(of) == name]
        blocks += [(False, f"{alias} = {of}") for alias, of in of_here]
    parts = "\n\n".join(filter(None, [_FUTURE if annotated else "", "\n".join(_import_lines(collected.imports))]))
    was_wide = False
    for number, (is_wide, text) in enumerate(blocks):
        gap = "\n\n\n" if is_wide or was_wide else "\n\n" if number == 0 else "\n"
        parts, was_wide = parts + gap + text, is_wide
    return parts.strip("\n") + "\n"


def _ordered(after: Mapping[str, Collection[str]], last: str) -> list[str]:
    """Return the modules that `last` needs, each behind those that it needs itself; where these go round, in any
    order."""
    order: list[str] = []
    begun: set[str] = set()

    def visit(name: str) -> None:
        if name not in begun:
            begun.add(name)
            for needed in sorted(after.get(name, ())):
                visit(needed)
            order.append(name)

    visit(last)
    return order


def _import_lines(imports: dict[str, Imported]) -> Iterator[str]:
    whole = {name: i.module for name, i in imports.items() if not i.attribute}
    for name, path in sorted(whole.items(), key=lambda item: item[1]):
        yield f"import {path}" if name == path else f"import {path} as {name}"
    for path in sorted({i.module for i in imports.values() if i.attribute}):
        names = [(i.attribute, name) for name, i in imports.items() if i.module == path and i.attribute]
        yield f"from {path} import " + ", ".join(a if a == n else f"{a} as {n}" for a, n in sorted(names))


def _text(module: Module, node: ast.stmt, *, without_docstring: bool) -> str:
    """Return the lines of a statement, with the comments that stand right above it and its docstrings cut short."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    first = min([node.lineno, *(d.lineno for d in decorators)])
    last = node.end_lineno or first
    lines = list(module.lines[first - 1 : last])
    if lines[0].encode()[: node.col_offset].strip():  # behind a colon or a semicolon
        return ast.get_source_segment(module.source, node) or ast.unparse(node)
    inner = [
        n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(n) is not None
    ]
    for owner in sorted(inner, key=lambda n: n.lineno, reverse=True):
        lines = _cut_docstring(lines, first, owner, whole=without_docstring and owner is node)
    while first > 1 and _is_remark(module.lines[first - 2]):
        first -= 1
        lines.insert(0, module.lines[first - 1])
    return textwrap.dedent("\n".join(lines)) if node.col_offset else "\n".join(lines)


def _is_remark(line: str) -> bool:
    return line.startswith("# ") and not line.startswith(("# type:", "# noqa", "# pragma", "# ---", "# ===", "# ###"))


def _cut_docstring(lines: list[str], first: int, owner: ast.FunctionDef | ast.ClassDef, *, whole: bool) -> list[str]:
    """Return lines without a docstring, or with nothing but its first line; as they are where that cannot be."""
    statement = owner.body[0]
    start, end = statement.lineno - first, (statement.end_lineno or statement.lineno) - first
    before = lines[start].encode()[: statement.col_offset]
    behind = lines[end].encode()[statement.end_col_offset or 0 :]
    if before.strip() or behind.strip() or (whole and len(owner.body) == 1) or (not whole and start == end):
        return lines
    after = end + 1
    while whole and after < len(lines) and not lines[after].strip():
        after += 1
    return lines[:start] + ([] if whole else [f'{before.decode()}"""{_summary(owner)}"""']) + lines[after:]


def _summary(owner: ast.FunctionDef | ast.ClassDef) -> str:
    """Return the first sentence of a docstring, on one line."""
    paragraph = " ".join((ast.get_docstring(owner) or "").partition("\n\n")[0].split())
    sentence = paragraph if ". " not in paragraph else paragraph.partition(". ")[0] + "."
    return textwrap.shorten(sentence, _LONGEST_SUMMARY, placeholder=" ...").replace("\\", "").replace('"', "'")
