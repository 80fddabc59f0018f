"""PostgreSQL restarted under a run that goes on: nothing is lost, or the run stops and says what was."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import rows, weights

from ratchet.buffer.groups import GroupTable
from ratchet.config.schema import RunConfig
from ratchet.core.errors import RunError
from ratchet.run.launch import resume, train
from ratchet.run.observer import Silent

Config = Callable[..., RunConfig]
pytestmark = pytest.mark.slow


class Server:
    """A PostgreSQL server of its own, on a socket in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._data, self._log = folder / "data", folder / "log.txt"
        self._user: dict[str, str] = {}
        if not os.geteuid():  # it refuses to run as root
            shutil.chown(folder, "postgres")
            self._user = {"user": "postgres"}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._run("initdb", "-D", self._data, "-U", "trainer", "-A", "trust", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c wal_writer_delay=10s"
        self._words = ("-D", self._data, "-l", self._log, "-w", "-o", options)
        self._run("pg_ctl", *self._words, "start")
        self.url = f"postgresql+psycopg://trainer@127.0.0.1:{port}/postgres"

    def restart(self, mode: str = "fast") -> None:
        """Restart it, ``fast``, or ``immediate``: as after a crash."""
        self._run("pg_ctl", *self._words, "-m", mode, "restart")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def start(self) -> None:
        self._run("pg_ctl", *self._words, "start")

    def _run(self, *words: str | Path) -> None:
        done = subprocess.run(words, capture_output=False, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
                              cwd="/", **self._user)  # type: ignore[call-overload]  # fmt: skip
        assert done.returncode == 0, words


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("initdb and pg_ctl of PostgreSQL are not on the PATH")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        Path(folder).chmod(0o755)
        made = Server(Path(folder))
        yield made
        made.stop("immediate")


class Does(Silent):
    """Does something after step 3; the checkpoint before it, up to which all is on the disk, was of 3 steps."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def step(self, row: dict[str, float], total: int) -> None:
        if row["step"] == 3:
            self._act()


def test_a_server_restarted_between_two_steps_is_waited_for(config: Config, server: Server, tmp_path: Path) -> None:
    straight = train(config(folder=tmp_path / "straight")).folder
    chosen = config(f"buffer.url={server.url}", folder=tmp_path / "pg")

    def away() -> None:
        server.stop()
        threading.Timer(3, server.start).start()

    assert train(chosen, Does(away)).finished
    assert rows(tmp_path / "pg" / "run") == rows(straight)
    assert weights(tmp_path / "pg" / "run") == weights(straight)


def test_a_server_that_comes_back_without_the_last_commits_stops_the_run_and_resume_goes_on(
    config: Config, server: Server, tmp_path: Path
) -> None:
    """Commits do not wait for the disk, and this server writes its log every ten seconds only."""
    straight = train(config(folder=tmp_path / "straight")).folder
    chosen = config(f"buffer.url={server.url}", folder=tmp_path / "pg")
    with pytest.raises(RunError, match=r"came back without the last of what was written .*ratchet resume"):
        train(chosen, Does(lambda: server.restart("immediate")))
    assert resume(tmp_path / "pg" / "run").finished
    assert rows(tmp_path / "pg" / "run") == rows(straight)
    assert weights(tmp_path / "pg" / "run") == weights(straight)


def test_a_server_that_goes_away_within_a_transaction_stops_the_operation_with_the_cause(server: Server) -> None:
    table = GroupTable.open(server.url, "groups", tokenizer="letters", create=True)

    def restart_within() -> None:
        with table.transaction("being tried"):
            server.restart()
            table.groups_at(0)

    with pytest.raises(RunError, match=r"The buffer at .* failed while .*Check that the database is reachable"):
        restart_within()
    assert table.groups_at(0) == [], "the next transaction finds the server again"
    table.close()
