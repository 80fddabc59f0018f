"""The two processes of a check, from their first trusted instruction to their last.

The test's process holds the test, the module's process holds the module, and neither ever held the other's source: each
is told its own over its own channel, after it was locked.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from ratchet.sandbox.inside import frame, remote
from ratchet.sandbox.inside.verdict import Judge, Verdict, run_source

Header = dict[str, object]

OUT, LINK, REPORT = 5, 6, 7
"""The file descriptors of a role: what it prints, the way to the other role, and for a test the way to the worker. Each
is told its source by the first message: the module's process over the link, the test's over the way it reports."""

_REHEARSALS, _NAME = 64, "rehearsed"
"""Python adapts a function for good within its first few dozen calls."""


def told(fd: int) -> Any:
    """Return what a role is told first: its source, its limits, and what else it needs to know."""
    message = frame.read(fd)
    assert isinstance(message, dict)
    return message


def play_module(header: Header) -> NoReturn:
    """Load the module and answer the test's calls until killed."""
    server, load = _server(header, LINK)
    server.serve(load)


def _server(header: Header, link: int) -> tuple[remote.Server, Callable[[], dict[str, object]]]:
    source, name, names = str(header["module"]), str(header["name"]), header["entry_points"]
    assert isinstance(names, list)
    return remote.Server(link, names), lambda: _module(source, name).__dict__


def rehearse() -> None:
    """Play the module's part over and over, with a module of our own, in the process that checks descend from.

    Python adapts its code to what it runs, by writing into it. A process of a check lives too short for that to pay,
    and each page that it writes to must be copied first; what it descends from can be done with it.
    """
    asked: list[Header] = [{"do": "load"}, {"do": "get", "name": "f"}]
    asked += [{"do": "call", "name": "f", "args": args, "kwargs": {}} for args in ([1], [[1]], [])]
    for _ in range(_REHEARSALS):
        ours, theirs = socket.socketpair()
        frame.write(ours.fileno(), {"module": "def f(x):\n    return [x]\n", "name": _NAME, "entry_points": []})
        for message in asked:
            frame.write(ours.fileno(), message)
        ours.shutdown(socket.SHUT_WR)
        server, load = _server(told(theirs.fileno()), theirs.fileno())
        server.answer(load)
        ours.close()
        theirs.close()
        del sys.modules[_NAME]


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
