"""A program in a Python of its own, asked by lines of JSON: for libraries that cannot live beside ours."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

END_S = 5.0
"""Seconds that the program has to end by itself, once it is told nothing more."""
_TOLD = 600
"""Most characters of its last line that are shown."""


class GuestEnded(Exception):
    """The program is not there any more; the message holds its exit code and last words."""


class Guest:
    """The program, until it is closed. `ask` may be called from several threads."""

    def __init__(self, command: Sequence[str]) -> None:
        """**Raises**: `OSError` if it cannot be started."""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the guest)
        self._lock, self._closed = threading.Lock(), False
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                start_new_session=True,  # a Ctrl-C is the run's: it finishes its step, and needs the program for that
            )
        except OSError:
            self._errors.close()
            raise

    def hear(self) -> Any:
        """Return what it says next. **Raises**: `GuestEnded`."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise GuestEnded(self.last_words())
        return json.loads(line)

    def tell(self, what: Mapping[str, Any]) -> None:
        """Say something that is not answered. **Raises**: `GuestEnded`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise GuestEnded(self.last_words()) from None

    def ask(self, what: Mapping[str, Any]) -> Any:
        """Return its answer. **Raises**: `GuestEnded`."""
        with self._lock:
            self.tell(what)
            return self.hear()

    def watch(self, ended: Callable[[], None]) -> None:
        """Call `ended`, in a thread, when it ends without being closed."""

        def wait() -> None:
            self._process.wait()
            if not self._closed:
                ended()

        threading.Thread(target=wait, name="guest", daemon=True).start()

    def last_words(self) -> str:
        """Return how it ended, and the last line of its error output."""
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            code = None
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - _TOLD))
        said = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2].strip()
        return f"exit code {code}" + (f" ({said})" if said else "")

    def close(self) -> None:
        """End it; may be called twice."""
        if self._closed:
            return
        self._closed = True
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):  # it ended before it read everything
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
