"""What a package, a module or a folder holds, read as text. Imports and runs nothing of it."""

from __future__ import annotations

import ast
import gc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ratchet.bugs.allowed import words
from ratchet.core.errors import ConfigError

_NOT_SOURCES = words(
    "__pycache__ benchmarks build dist doc docs examples node_modules site-packages vendor _vendor venv"
)
"""Folders whose functions are nobody's own; hidden ones are passed over too."""
_NOT_MODULES = frozenset({"setup.py", "conf.py", "__main__.py", "noxfile.py"})
_TEST_FOLDERS = frozenset({"test", "tests", "testing"})
MOST_FILES = 5000
"""More than this is a whole disk, not a package."""


@dataclass(frozen=True, eq=False)
class Module:
    """One source file; equal to itself alone."""

    name: str
    """Dotted, as it is imported."""
    path: Path
    source: str
    tree: ast.Module
    is_package: bool = False
    """Whether it is the ``__init__.py`` of a package."""

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The source's lines as Python counts them."""
        return tuple(self.source.split("\n"))

    def absolute(self, module: str | None, level: int) -> str:
        """Return the dotted name of what ``from <level dots><module> import`` means here."""
        if level == 0:
            return module or ""
        parts = self.name.split(".")
        kept = parts[: len(parts) - level + (1 if self.is_package else 0)]
        return ".".join([*kept, *([module] if module else [])])


@dataclass(frozen=True)
class Library:
    """Everything that was read."""

    what: str
    """As the user named it."""
    modules: tuple[Module, ...]
    """Sources, by path; tests are not among them."""
    tests: tuple[str, ...]
    """Sources of test files, not parsed yet."""
    chosen: frozenset[Path]
    """Files whose functions are asked for; the other modules only lend what these need."""
    version: str = ""
    """Distribution and version, where known."""
    unread: tuple[str, ...] = ()
    """A sentence on each file that is not Python."""
    installed: bool = False
    """Whether it lies among the packages that the sandbox can read."""

    @cached_property
    def by_name(self) -> dict[str, Module]:
        """Modules by dotted name."""
        return {module.name: module for module in self.modules}


def read_library(what: str, tests: Sequence[Path] = ()) -> Library:
    """Return what `what` holds: a path to a folder or a .py file, else the name of an installed package or module.

    `tests` are further files or folders with tests.

    **Raises**: `ConfigError` if there is no such thing, or nothing of it can be read.
    """
    path = Path(what)
    chosen = path if path.exists() else _installed(what)
    for given in tests:
        if not given.exists():
            raise ConfigError(f"{given}: no such file or folder. --tests names files or folders with tests.")
    root = _root_of(chosen)
    files = [root] if root.is_file() else _python_files(root)
    unread: list[str] = []
    with _without_collections():
        named = [(file, _is_test(file.relative_to(root) if root != file else Path(file.name))) for file in files]
        modules = [m for file, is_test in named if not is_test and (m := _module(file, unread)) is not None]
    of_tests = dict.fromkeys([*(file for file, is_test in named if is_test), *_files_in(tests)])
    found_tests = [text for file in of_tests if (text := _text(file, unread)) is not None]
    modules = _told_apart(modules)
    asked = frozenset(m.path for m in modules if m.path.is_relative_to(chosen.resolve()))
    if not asked:
        raise ConfigError(
            unread[0] if unread else f"{what}: no Python source there. Name a package or a folder of .py files."
        )
    return Library(
        what,
        tuple(modules),
        tuple(found_tests),
        asked,
        _version(root),
        tuple(unread),
        any(root.is_relative_to(os.path.realpath(sysconfig.get_path(name))) for name in ("purelib", "platlib")),
    )


def _told_apart(modules: Sequence[Module]) -> list[Module]:
    """Return modules of which no two have the same name: of files that no package holds, a later one gets a number."""
    seen: Counter[str] = Counter()
    out = []
    for module in modules:
        seen[module.name] += 1
        count = seen[module.name]
        out.append(module if count == 1 else replace(module, name=f"{module.name}{count}"))
    return out


def _installed(what: str) -> Path:
    """Return the file or folder of an installed package. **Raises**: `ConfigError`."""
    if os.sep in what or what.endswith(".py"):
        raise ConfigError(f"{what}: no such file or folder. Name an installed package, a folder, or a .py file.")
    top, *rest = what.split(".")
    spec = _spec(top) or _spec(_import_name(what))
    if spec is None:
        raise ConfigError(
            f"{what}: no folder and no installed package of that name. Install it where ratchet runs, or give the path "
            "of its folder."
        )
    places = list(spec.submodule_search_locations or ())
    if not places and not (spec.origin or "").endswith(".py"):
        raise ConfigError(
            f"{what}: it has no Python source ({spec.origin or 'unknown origin'}). Name a pure-Python package."
        )
    here = Path(places[0] if places else str(spec.origin))
    for part in rest if spec.name == top else ():
        here = here / part if (here / part).is_dir() else here / f"{part}.py"
    if not here.exists():
        raise ConfigError(f"{what}: {top} is installed, but holds no {'.'.join(rest)}. Name {top} or a module of it.")
    return here.resolve()


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return where a top-level name would be imported from. Finding it runs nothing of it."""
    try:
        return importlib.util.find_spec(name) if name.isidentifier() else None
    except (ValueError, ImportError):  # __main__ has none; a broken hook of an editable installation
        return None


def _import_name(distribution: str) -> str:
    """Return what a distribution such as more-itertools is imported as; empty if there is none."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
    tops = [file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py" and ".." not in file.parts]
    return max(sorted(set(tops)), key=tops.count, default="")


def _root_of(chosen: Path) -> Path:
    """Return the folder that everything `chosen` may need is read from: that of its outermost package."""
    here = chosen.resolve()
    package = here if here.is_dir() else here.parent
    if not (package / "__init__.py").is_file():
        return here
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    return package


def _python_files(root: Path) -> list[Path]:
    found: list[Path] = []
    for here, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in _NOT_SOURCES and not f.startswith((".", "_build")))
        folders[:] = [
            f for f in folders if not f.endswith((".egg-info", ".dist-info")) and not _is_environment(Path(here, f))
        ]
        found += [
            Path(here, name).resolve() for name in sorted(names) if name.endswith(".py") and name not in _NOT_MODULES
        ]
        if len(found) > MOST_FILES:
            raise ConfigError(f"{root}: more than {MOST_FILES} Python files. Name one package or a smaller folder.")
    return found


def _is_environment(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").is_file()


def _is_test(path: Path) -> bool:
    """Return whether a file holds tests, by its path below the root."""
    stem = path.stem
    if stem.startswith("test_") or stem.endswith("_test") or stem in ("test", "tests", "conftest"):
        return True
    return not _TEST_FOLDERS.isdisjoint(path.parts[:-1])


def _files_in(paths: Sequence[Path]) -> list[Path]:
    return [f for path in paths for f in ([path.resolve()] if path.is_file() else _python_files(path.resolve()))]


@contextmanager
def _without_collections() -> Iterator[None]:
    """Hold the garbage collector back: for a large package it would look through all trees again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _text(path: Path, unread: list[str]) -> str | None:
    """Return a file's text, by its declared encoding; None, and a sentence in `unread`, if that cannot be."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except OSError as error:
        unread.append(f"{path}: {error.strerror or type(error).__name__}. Make it readable.")
    except (SyntaxError, UnicodeDecodeError) as error:  # an encoding that is unknown, or not the file's
        unread.append(f"{path}: not readable as Python source ({error}). Correct it or leave it out.")
    return None


def _module(path: Path, unread: list[str]) -> Module | None:
    source = _text(path, unread)
    if source is None:
        return None
    try:
        tree = parsed(source)
    except SyntaxError as error:
        unread.append(f"{path}:{error.lineno or 1}: not Python {_python()} ({error.msg}). Correct it or leave it out.")
        return None
    except (ValueError, RecursionError) as error:
        unread.append(f"{path}: not readable as Python source ({error}). Correct it or leave it out.")
        return None
    return Module(_dotted(path), path, source, tree, path.name == "__init__.py")


def parsed(source: str) -> ast.Module:
    """Return the syntax of a stranger's source, whatever it makes Python warn about. **Raises**: as `ast.parse`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def _dotted(path: Path) -> str:
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(parts)) or path.parent.name


def _version(root: Path) -> str:
    """Return distribution and version of an installed root, as pip left them beside it; empty if unknown."""
    for distribution in importlib.metadata.distributions(path=[str(root.parent)]):
        record = f"\n{distribution.read_text('RECORD') or ''}"
        if f"\n{root.name}{'/' if root.is_dir() else ','}" in record:
            return f"{distribution.metadata['Name']} {distribution.version}"
    return ""


def functions_of(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions that stand at the top of a module, each name's last definition."""
    last = {node.name: node for node in module.tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    yield from last.values()
