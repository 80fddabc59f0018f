"""A server that this run starts, restarts and ends itself: the one that `engine.command` names."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from ratchet.core.errors import ConfigError
from ratchet.engines.elsewhere import EngineGone

END_S = 20.0
"""How long a server may take to end when asked, before it is killed."""
TOLD = 2000
"""Characters of its log shown when it ended by itself."""


class StartedServer:
    """One process with all its children, its output in a log."""

    def __init__(self, command: str, model: Path, log: Path) -> None:
        """`{model}` in the command stands for the folder of the model it begins with.

        **Raises**: `ConfigError` if there is no such program.
        """
        self._words = [word.replace("{model}", str(model)) for word in shlex.split(command)]
        if not self._words or shutil.which(self._words[0]) is None:
            raise ConfigError(
                f'engine.command = "{command}": there is no program "{self._words[0] if self._words else ""}". Install '
                "it, or start the server yourself and leave engine.command out."
            )
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None
        """The server while it lives, and after it died by itself."""

    def start(self) -> None:
        """Start it, ending an older one first."""
        self.end()
        atexit.register(self.end)  # whatever ends this process must not leave a server behind
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def check(self) -> None:
        """Raise `EngineGone`, with the end of its log, if it has ended by itself."""
        if self.process is not None and (code := self.process.poll()) is not None:
            said = self._log.read_text(errors="replace")[-TOLD:].strip() if self._log.is_file() else ""
            raise EngineGone(f"{shlex.join(self._words)} ended with exit code {code}. Its last words: {said or 'none'}")

    def end(self) -> None:
        """End it and its children: asked first, then killed."""
        atexit.unregister(self.end)
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            os.killpg(self.process.pid, number)  # it leads its own group, so this is it and its children alone
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                continue
        self.process = None
