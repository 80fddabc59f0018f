"""Real Rays on this machine, made of nodes that can be removed, frozen and cut off, and runs that join them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from ratchet.config.schema import RunConfig
from ratchet.store.run_store import RunStore

BIN = Path(sys.executable).parent
STORE_BYTES = 100_000_000


class Node:
    """One node: a raylet, what belongs to it, and the actors it hosts."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def kill(self) -> None:
        """End all its processes at once, as a power cut does."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to each of its processes."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def has_ended(self) -> bool:
        """Whether it ended by itself: Ray took it for dead, and it found out."""
        return self._process.poll() is not None

    def processes(self) -> list[int]:
        """Return its processes: those of the session that began with it."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if session == self._process.pid:
                    found.append(int(entry.name))
        return sorted(found)


class Rays:
    """A Ray of several nodes, each a raylet of its own; use as a context, for nothing must stay behind."""

    def __init__(self, folder: Path, *, namespaces: dict[str, list[str]] | None = None, ip: str = "") -> None:
        """`namespaces` are the words that start a node where its address is; `ip` is the head's."""
        self._folder, self._namespaces, self._nodes = folder, namespaces or {}, list[Node]()
        with socket.socket() as free:
            free.bind(("", 0))
            self._port = int(free.getsockname()[1])
        self._ip = ip
        folder.mkdir()
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_worker_niceness": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
        }

    @property
    def address(self) -> str:
        return f"{self._ip or '127.0.0.1'}:{self._port}"

    def __enter__(self) -> Rays:
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self._nodes):
            node.signal(signal.SIGCONT)
            node.kill()

    def add(self, cpus: int, *, ip: str = "") -> Node:
        """Start a node; the first is the head."""
        number, words = len(self._nodes), [f"--num-cpus={cpus}", f"--object-store-memory={STORE_BYTES}"]
        if number:
            words.append(f"--address={self.address}")
        else:
            words += ["--head", f"--port={self._port}", "--include-dashboard=false"]
        if ip or self._ip:
            words.append(f"--node-ip-address={ip or self._ip}")
        before = self._namespaces.get(ip, [])
        log = (self._folder / f"node-{number}.txt").open("wb")
        command = [*before, BIN / "ray", "start", "--block", "--disable-usage-stats", *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, start_new_session=True)
        log.close()
        node = Node(process)
        self._nodes.append(node)
        until(lambda: b"--block" in (self._folder / f"node-{number}.txt").read_bytes(), 60, f"node {number}")
        return node


class Run:
    """A run by the command line, in a process of its own."""

    def __init__(self, config: RunConfig, rays: Rays) -> None:
        self.folder = Path(config.run.folder) / config.run.name
        self._rays, self._file = rays, self.folder.with_suffix(".toml")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
        self.log = self.folder.with_suffix(".txt")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def train(self, script: str = "") -> Run:
        """Begin; `script` is a Python program that does what the command line does, and something else."""
        return self._start("train", self._file, script=script)

    def resume(self, *words: str) -> Run:
        return self._start("resume", self.folder, *words)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def interrupt(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def code(self, seconds: float = 300) -> int:
        """Return how it ended, once it has; killed where that takes too long."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s: {self.status()}\n{self.said()[-3000:]}") from None

    def said(self) -> str:
        return self.log.read_text()

    def status(self) -> dict[str, Any]:
        path = self.folder / "status.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def actors(self) -> list[dict[str, Any]]:
        return list(self.status().get("actors", ()))

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in RunStore.open(self.folder).events() if event["kind"] == kind]

    def until(self, met: Callable[[], Any], seconds: float = 180) -> float:
        """Wait until something is so, while the run goes on; return how long that took."""
        assert self._process is not None
        started, process = time.monotonic(), self._process

        def met_or_ended() -> bool:
            assert process.poll() is None, f"it ended with {process.returncode}: {self.said()[-3000:]}"
            return bool(met())

        until(met_or_ended, seconds, f"{self.actors()}")
        return time.monotonic() - started

    def _start(self, *words: str | Path, script: str = "") -> Run:
        with self.log.open("ab") as log:
            command = [sys.executable, *(("-c", script) if script else ("-m", "ratchet")), *words, "--plain"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._rays.environment)
        return self


def until(met: Callable[[], Any], seconds: float, what: str) -> None:
    """Look again and again until something is so."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def has_namespaces() -> bool:
    """Whether this machine lets us make network namespaces, and links between them that can be cut."""
    if os.geteuid() or shutil.which("ip") is None or shutil.which("tc") is None:
        return False
    name = f"ratchet-try-{os.getpid()}"[:15]
    tries = (f"ip netns add {name}", f"ip -n {name} link add ratchet-a type veth peer name ratchet-b")
    made = all(subprocess.run(words.split(), capture_output=True).returncode == 0 for words in tries)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made


class Wire:
    """A network of two: this machine as it is, and a namespace of it; use as a context, for nothing must stay behind.

    `here` and `there` are addresses set aside for tests of networks (RFC 2544), so they are nobody else's. `own` is the
    folder that the far end sees as /tmp/ray, where Ray keeps what belongs to a machine.
    """

    def __init__(self, own: Path) -> None:
        self.own = own

    def __enter__(self) -> Wire:
        self.own.mkdir()
        for number in range(1, 255):  # whoever else makes such networks: a link's name is taken by one only
            self._near, self._far = f"ratchet-{number}", f"ratchet-far-{number}"
            self.here, self.there = f"198.18.{number}.1", f"198.18.{number}.2"
            pair = ["ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far]
            if not subprocess.run(pair, capture_output=True).returncode:
                break
        else:
            raise AssertionError("this machine lets us make no pair of links")
        try:
            _words(f"ip netns add {self._far}")
            _words(f"ip link set {self._far} netns {self._far}")
            for (end, name, _), address in zip(self._ends(), (self.here, self.there), strict=True):
                _words(f"ip {end} address add {address}/24 dev {name}")
                _words(f"ip {end} link set {name} up")
            _words(f"ip -n {self._far} link set lo up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self._far], check=False)
        subprocess.run(["ip", "link", "del", self._near], capture_output=True, check=False)  # may be gone with its peer

    @property
    def words(self) -> list[str]:
        """Those that start a command at the far end."""
        alone = 'mkdir -p /tmp/ray && mount --bind "$0" /tmp/ray && exec "$@"'
        return ["ip", "netns", "exec", self._far, "sh", "-c", alone, str(self.own)]

    def cut(self) -> None:
        """Lose all packets, either way. Neither end is told, as where a switch between two machines is broken.

        They are sent to a card that is not there.
        """
        for end, name, to in self._ends():
            _words(f"ip {end} neigh replace {to} lladdr 02:00:00:00:00:00 dev {name} nud permanent")

    def mend(self) -> None:
        for end, name, to in self._ends():
            _words(f"ip {end} neigh del {to} dev {name}")

    def clog(self) -> None:
        """Lose all packets before they leave, either way. The kernel tells their connections, which break after 8 s of
        trying; had the packets been lost on their way, they would try for a quarter of an hour."""
        for end, name, _ in self._ends():
            _words(f"tc {end} qdisc add dev {name} root pfifo limit 0")  # a queue with room for none

    def clear(self) -> None:
        for end, name, _ in self._ends():
            _words(f"tc {end} qdisc del dev {name} root")

    def pull(self) -> None:
        """Pull the plug at the far end, which is told so."""
        _words(f"ip -n {self._far} link set {self._far} down")

    def plug(self) -> None:
        _words(f"ip -n {self._far} link set {self._far} up")

    def _ends(self) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
        """Return of each end how `ip` gets there, its link, and the address at the other end."""
        return ("", self._near, self.there), (f"-n {self._far}", self._far, self.here)


def _words(text: str) -> None:
    subprocess.run(text.split(), check=True)
