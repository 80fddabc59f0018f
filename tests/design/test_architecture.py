"""The rules of the house, held by reading the source: who imports whom, how long things are, who catches what.

Each exception stands here in the open with its reason; a new one fails until it is argued for.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ratchet

PACKAGE = Path(ratchet.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

SHELF = {
    "core": 0,
    "config": 1, "algorithms": 1, "cluster": 1, "kernels": 1, "rewards": 1, "sandbox": 1, "store": 1,
    "policy": 2, "engines": 2, "environments": 2, "logs": 2, "loggers": 2,
    "buffer": 3, "bugs": 3, "charts": 3, "doctor": 3, "explore": 3, "serve": 3, "train": 3,
    "run": 4, "board": 4,
    "cli": 5,
}  # fmt: skip

NEIGHBOURS = {
    ("engines", "policy"): "an engine generates with the policy's own decoder and decodes with its tokenizer",
}
"""Neighbours on a shelf that may import each other, from -> to, and why."""

LONG_FILES: dict[str, str] = {}
MAX_FILE, MAX_FUNCTION = 400, 60
LONG_FUNCTIONS: dict[str, str] = {}

BROAD_HANDLERS = {
    ("bugs/inside.py", "report"): "a stranger's function may raise anything, in the sandbox",
    ("buffer/priority.py", "_ask"): "a user's own priority may raise anything",
    ("core/load.py", "load_object"): "a user's module may raise anything while it is imported",
    ("core/load.py", "_import_file"): "a module half imported is forgotten, and the error handed on",
    ("environments/foreign/verifiers_game.py", "serving"): "an environment may raise anything while it begins",
    ("environments/foreign/verifiers_game.py", "_imported"): "an environment may raise anything while it is imported",
    ("environments/foreign/verifiers_game.py", "_Classic.load"): "an environment may raise anything while it is made",
    ("environments/foreign/verifiers_game.py", "_TaskSets.load"): "an environment may raise anything while it is made",
    ("environments/foreign/verifiers_player.py", "Player._played"): "an attempt may raise anything; the others go on",
    ("environments/sources.py", "_rows_of"): "another library may raise anything while it reads or fetches data",
    ("environments/stepping.py", "Stepping.model_post_init"): "an environment may raise anything while it is made",
    ("explore/attempt.py", "attempt_task"): "the one place where a failed attempt becomes a status",
    (
        "loggers/follower.py",
        "Follower._try",
    ): "another library may raise anything while it sends; a run must not notice",
    ("policy/tokenizer.py", "load_tokenizer"): "the tokenizers library raises plain Exception",
    ("rewards/pool.py", "_score_in_child"): "a user's reward may raise anything, in its own process",
    ("rewards/probe.py", "_score"): "what an environment raises is what the probe is there to find",
    ("rewards/value.py", "_shown"): "a repr is the user's code",
    ("run/launch.py", "_drive"): "how a run ended is recorded, and the error handed on",
    ("sandbox/inside/remote.py", "Server.answer"): "a stranger's module may raise anything, in its own process",
    ("sandbox/inside/remote.py", "Server._answer"): "a stranger's function may raise anything, in its own process",
    ("sandbox/inside/roles.py", "_module"): "a module half loaded is forgotten, and the error handed on",
    ("sandbox/inside/roles.py", "_loaded_here"): "a stranger's module may raise anything, in its own process",
    ("sandbox/inside/verdict.py", "Judge.run"): "whatever a test raises is what the verdict is about",
    ("sandbox/inside/verdict.py", "_detail"): "the text of an exception is a stranger's code",
    ("sandbox/inside/worker.py", "_Worker._judge"): "what a module raises through a test is what the verdict is about",
    ("sandbox/inside/zygote.py", "_Nursery._live"): "a forked child says what failed and ends, and never returns",
    ("serve/driver.py", "_played"): "a user's agent may raise anything, and the others go on",
    ("rewards/gym.py", "Gym.open"): "another library may raise anything while it makes a data set",
}
"""(file, function) -> why it may catch everything."""


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Yield the modules a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}: imports name the whole path"
            yield str(node.module)


def at_run_time(path: Path) -> Iterator[str]:
    """Yield what a file imports but for type checkers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            name = f"{prefix}{child.name}" if inside else prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, child
            yield from walk(child, f"{name}." if inside else prefix)

    yield from walk(ast.parse(path.read_text()), "")


def test_every_room_has_a_shelf() -> None:
    rooms = {room(p) for p in FILES if p.parent != PACKAGE}
    assert rooms == set(SHELF)


def test_imports_point_down_the_shelves_and_never_sideways() -> None:
    wrong = []
    for path in FILES:
        if path.parent == PACKAGE:
            continue
        here = room(path)
        for module in imports(path):
            parts = module.split(".")
            if parts[0] != "ratchet" or len(parts) < 2:
                continue
            there = parts[1]
            if there == here or (here, there) in NEIGHBOURS:
                continue
            if SHELF[there] >= SHELF[here]:
                wrong.append(f"{named(path)} imports {module}")
    assert not wrong


def test_the_exceptions_for_neighbours_are_still_needed() -> None:
    used = {
        (room(p), m.split(".")[1]) for p in FILES if p.parent != PACKAGE for m in imports(p) if m.startswith("ratchet.")
    }
    assert set(NEIGHBOURS) <= used


def test_torch_stays_out_of_core_but_for_the_batch_and_out_of_config_and_the_store() -> None:
    offenders = [
        named(path)
        for path in FILES
        if room(path) in ("core", "config", "store") and any(m.split(".")[0] == "torch" for m in at_run_time(path))
    ]
    assert offenders == ["core/batch.py"]


@pytest.mark.parametrize(
    "module",
    [
        "ratchet",
        "ratchet.config.read",
        "ratchet.store.run_store",
        "ratchet.cli.main",
        "ratchet.logs.read",
        "ratchet.doctor.diagnose",
        "ratchet.board.board",
    ],
)  # fmt: skip
def test_importing_it_loads_no_torch(module: str) -> None:
    code = f"import {module}, sys; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import ratchet; print(sorted(set(sys.modules) - before))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "['ratchet']"


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("transformers", {"policy", "engines"}),
        ("peft", {"policy"}),
        ("bitsandbytes", {"policy", "train"}),
        ("huggingface_hub", {"policy"}),
        ("ray", {"cluster"}),
        ("matplotlib", {"charts"}),
        ("scipy", {"charts", "doctor"}),
        ("ruptures", {"doctor"}),
        ("sqlalchemy", {"buffer"}),
        ("rich", {"cli"}),
        ("click", {"cli"}),
        ("pebble", {"rewards"}),
        ("tokenizers", {"policy"}),
        ("jinja2", {"policy", "charts"}),
        ("pyseccomp", {"sandbox"}),
        ("tensorboard", {"logs", "loggers"}),
        ("google", {"logs"}),
        ("httpx", {"engines", "environments", "explore", "serve"}),
        ("vllm", {"engines"}),
        ("wandb", {"loggers"}),
        ("starlette", {"serve", "board"}),
        ("uvicorn", {"cli", "serve"}),
        ("pyarrow", set()),
        ("datasets", set()),
        ("mlflow", {"loggers"}),
        ("trackio", {"loggers"}),
    ],
)
def test_a_library_is_imported_only_in_the_room_that_owns_it(library: str, rooms: set[str]) -> None:
    assert {room(p) for p in FILES for m in imports(p) if m.split(".")[0] == library} <= rooms


def test_one_file_alone_imports_vllm() -> None:
    here = [named(p) for p in FILES if any(m.split(".")[0] == "vllm" for m in imports(p))]
    assert here == ["engines/vllm_inside.py"]


def test_no_file_is_longer_than_a_person_reads() -> None:
    long = {
        named(p): n for p in FILES if (n := len(p.read_text().splitlines())) > MAX_FILE and named(p) not in LONG_FILES
    }
    assert not long


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{named(p)}:{name}": length
        for p in FILES
        for name, node in functions(p)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
        and f"{named(p)}:{name}" not in LONG_FUNCTIONS
    }
    assert not long


def broad(node: ast.ExceptHandler) -> bool:
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(c is None or (isinstance(c, ast.Name) and c.id in ("Exception", "BaseException")) for c in caught)


def broad_handlers() -> set[tuple[str, str]]:
    found = set()
    for path in FILES:
        for name, node in functions(path):
            if any(isinstance(inner, ast.ExceptHandler) and broad(inner) for inner in ast.walk(node)):
                found.add((named(path), name))
    # The function that holds the handler, not those around it.
    return {(f, n) for f, n in found if not any(f == g and m.startswith(f"{n}.") for g, m in found)}


def test_everything_is_caught_only_where_it_is_argued_for() -> None:
    unargued = {
        (f, n)
        for f, n in broad_handlers()
        if (f, n) not in BROAD_HANDLERS and (f, n.rpartition(".")[2]) not in BROAD_HANDLERS
    }
    assert not unargued


def test_every_file_says_what_it_is() -> None:
    assert [named(p) for p in FILES if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_inheritance_is_one_level_deep() -> None:
    """Errors and protocols aside, a class of ours never extends a class of ours that extends one of ours."""
    bases: dict[str, set[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {b.id for b in node.bases if isinstance(b, ast.Name)}
    deep = {
        name
        for name, above in bases.items()
        if any(grand in bases for parent in above if parent in bases for grand in bases[parent])
    }
    errors = {n for n in deep if n.endswith(("Error", "Timeout", "Failed", "Invalid", "InvalidReward"))}
    assert deep - errors == set()
