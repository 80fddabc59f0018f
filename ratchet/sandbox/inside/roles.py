"""The two processes of a check, from their first trusted instruction to their last.

The test's process holds the test, the module's process holds the module, and neither ever held the other's source: each
reads its own from a file descriptor after the fork, and closes all others before it runs a line of it.
"""

from __future__ import annotations

import os
import random
import sys
from types import ModuleType
from typing import NoReturn

from ratchet.sandbox.inside import frame, remote
from ratchet.sandbox.inside.verdict import Judge, Verdict, run_source

Header = dict[str, object]

OUT, RPC, REPORT, SOURCE, MODULE = 2, 3, 4, 5, 6
"""The file descriptors of a role; whatever it does not have is closed."""


def _read(fd: int) -> str:
    size = os.fstat(fd).st_size
    text = os.pread(fd, size, 0).decode("utf-8", "surrogateescape")
    os.close(fd)
    return text


def play_module(header: Header) -> NoReturn:
    """Load the module and answer the test's calls until killed."""
    source, name = _read(SOURCE), str(header["name"])
    names = header["entry_points"]
    assert isinstance(names, list)
    random.seed(0)

    def load() -> dict[str, object]:
        return _module(source, name).__dict__

    remote.Server(RPC, names).serve(load)


def play_test(header: Header) -> None:
    """Run the test and report; the caller ends the process."""
    source, name, nonce = _read(SOURCE), str(header["name"]), header.pop("nonce")
    expected = header["expected"]
    assert isinstance(expected, list)
    random.seed(0)

    def lost(how: str) -> NoReturn:
        frame.write(REPORT, {"nonce": nonce, "outcome": "module_gone", "detail": how})
        os._exit(0)

    client = None
    if header["apart"]:
        client = remote.Client(RPC, lost)
        remote.connect(client)
    judge = Judge(expected, f"{name}.py", client)
    frame.write(REPORT, {"nonce": nonce, **_judged(header, source, name, judge, client)})


def _judged(header: Header, source: str, name: str, judge: Judge, client: remote.Client | None) -> Verdict:
    finder = _Finder(name, client)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    if str(header["how"]) == "pytest":
        from ratchet.sandbox.inside import suite

        verdicts: list[Verdict] = []

        def work() -> int:
            verdicts.append(suite.run(source, judge))
            return 1

        failed = judge.run(work)
        return verdicts[0] if verdicts else failed
    return judge.run(lambda: run_source(source, str(header["how"])))


def _module(source: str, name: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = f"{name}.py"
    sys.modules[name] = module
    try:
        code = compile(source, f"{name}.py", "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Finder:
    """Finds the module under test by its name, and nothing else."""

    def __init__(self, name: str, client: remote.Client | None) -> None:
        self._name, self._client = name, client

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self) if name == self._name else None  # type: ignore[arg-type]

    def create_module(self, spec: object) -> ModuleType:
        if self._client is not None:
            return self._client.load(self._name)
        return _loaded_here(self._name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do."""


def _loaded_here(name: str) -> ModuleType:
    try:
        return _module(_read(MODULE), name)
    except BaseException as error:
        failed = remote.ModuleFailed(f"{name} could not be loaded: {type(error).__name__}")
        failed.bases = tuple(base.__name__ for base in type(error).__mro__)
        raise failed from None
