"""The two processes of a check, from their first trusted instruction to their last.

The test's process holds the test, the module's process holds the module, and neither ever held the other's source: each
is told its own over its own channel, after it was locked.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any, NoReturn

from ratchet.sandbox.inside import frame, remote
from ratchet.sandbox.inside.verdict import Judge, Verdict, run_source

Header = dict[str, object]

OUT, LINK, REPORT = 5, 6, 7
"""The file descriptors of a role: what it prints, the way to the other role, and for a test the way to the worker. Each
is told its source by the first message: the module's process over the link, the test's over the way it reports."""


def told(fd: int) -> Any:
    """Return what a role is told first: its source, its limits, and what else it needs to know."""
    message = frame.read(fd)
    assert isinstance(message, dict)
    return message


def play_module(header: Header) -> NoReturn:
    """Load the module and answer the test's calls until killed."""
    source, name, names = str(header["module"]), str(header["name"]), header["entry_points"]
    assert isinstance(names, list)

    def load() -> dict[str, object]:
        return _module(source, name).__dict__

    remote.Server(LINK, names).serve(load)


def play_test(header: Header) -> None:
    """Run the test and report; the caller ends the process."""
    name, nonce, expected = str(header["name"]), header.pop("nonce"), header["expected"]
    assert isinstance(expected, list)

    def lost(how: str) -> NoReturn:
        frame.write(REPORT, {"nonce": nonce, "outcome": "module_gone", "detail": how})
        os._exit(0)

    client = None
    if "module" not in header:
        client = remote.Client(LINK, lost)
        remote.connect(client)
    judge = Judge(expected, f"{name}.py", client)
    frame.write(REPORT, {"nonce": nonce, **_judged(header, judge, client)})


def _judged(header: Header, judge: Judge, client: remote.Client | None) -> Verdict:
    source, how = str(header.pop("test")), str(header["how"])
    finder = _Finder(str(header["name"]), str(header.get("module")), client)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    if how == "pytest":
        from ratchet.sandbox.inside import suite

        verdicts: list[Verdict] = []

        def work() -> int:
            verdicts.append(suite.run(source, judge))
            return 1

        failed = judge.run(work)
        return verdicts[0] if verdicts else failed
    return judge.run(lambda: run_source(source, how))


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

    def __init__(self, name: str, module: str, client: remote.Client | None) -> None:
        self._name, self._module, self._client = name, module, client

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self) if name == self._name else None  # type: ignore[arg-type]

    def create_module(self, spec: object) -> ModuleType:
        if self._client is not None:
            return self._client.load(self._name)
        return _loaded_here(self._module, self._name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do."""


def _loaded_here(source: str, name: str) -> ModuleType:
    try:
        return _module(source, name)
    except BaseException as error:
        failed = remote.ModuleFailed(f"{name} could not be loaded: {type(error).__name__}")
        failed.bases = tuple(base.__name__ for base in type(error).__mro__)
        raise failed from None
