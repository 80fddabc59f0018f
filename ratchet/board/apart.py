"""A diagnosis in a process of its own, so that minutes of arithmetic keep no page waiting. Owns that process.

Spawned, not forked: a fork would copy the locks of the server's threads in whatever state they are.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from ratchet.board.finding import Diagnose, Finding
from ratchet.core.errors import RatchetError

LONGEST_S = 600.0
"""A diagnosis that takes longer is given up."""
NICE = 10
"""Added to the process's niceness: what people wait for goes first."""

Looked = tuple[Sequence[Finding], str]
"""What was found, and why nothing could be; one of them is empty."""


class Lost(RatchetError):
    """The process that diagnoses ended, or was ended."""


def looked(diagnose: Diagnose, path: Path) -> Looked:
    """Return what a diagnosis finds in a run, or the sentence why it finds nothing."""
    try:
        return list(diagnose(path)), ""
    except (RatchetError, OSError) as error:
        return [], str(error)
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        return [], f"damaged data: {error}"  # rows or rollouts that are damaged, or half written


class Apart:
    """Asks another process for diagnoses, one at a time.

    It starts with the first question and is asked from one thread; `close` may be called from any. It ends with this
    process, also if this one is killed.
    """

    def __init__(self, diagnose: Diagnose, *, longest_s: float = LONGEST_S) -> None:
        """`diagnose` is a function of a module, which the other process imports."""
        self._diagnose, self._longest_s = diagnose, longest_s
        self._held: tuple[BaseProcess, Connection] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def look(self, path: Path) -> Looked:
        """Return what the other process answers. Raises `Lost` if it does not."""
        process, line = self._open()
        try:
            line.send(path)
            if not line.poll(self._longest_s):
                self._end()
                raise Lost(
                    f"The diagnosis took longer than {self._longest_s:g} s and was given up. Look at the run with "
                    "`ratchet doctor`, which waits as long as it takes."
                )
            found: Looked = line.recv()
        except (EOFError, OSError):
            process.join(5)
            self._end()
            raise Lost(
                f"The process that diagnoses runs ended without an answer (exit code {process.exitcode}); for the next "
                "question a new one is started. Was it killed, or is memory short?"
            ) from None
        return found

    def close(self) -> None:
        """End the process at once; what it was asked is lost, and nothing more can be asked."""
        with self._lock:
            self._closed = True
        self._end()

    def _open(self) -> tuple[BaseProcess, Connection]:
        with self._lock:
            if self._closed:
                raise Lost("The board is ending.")
            if self._held is None or not self._held[0].is_alive():
                self._held = _started(self._diagnose)
            return self._held

    def _end(self) -> None:
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            held[0].kill()
            held[0].join()


def _started(diagnose: Diagnose) -> tuple[BaseProcess, Connection]:
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_answer, args=(there, diagnose), name="diagnosis", daemon=True)
    _without_interrupts(process.start)
    there.close()
    return process, here


def _without_interrupts(start: Callable[[], None]) -> None:
    """Start a process that Ctrl-C in the terminal does not reach: whoever started it ends it."""
    if sys.platform == "win32":
        return start()
    resource_tracker.ensure_running()  # its own start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(line: Connection, diagnose: Diagnose) -> None:
    """Answer questions until nobody is there to put them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if sys.platform != "win32":
        os.nice(NICE)
    while True:
        try:
            path = line.recv()
        except EOFError:
            return
        line.send(looked(diagnose, path))


def _leave_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "this runs in a spawned process"
    connection.wait([parent.sentinel])
    os._exit(0)  # it may be in the middle of a diagnosis that nobody waits for
