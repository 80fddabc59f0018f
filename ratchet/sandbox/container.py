"""Boxes made by docker or podman, for tests that need an image of their own: one container per command.

Owns the command line. The engine's own defaults hold beside it: its seccomp filter, its namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

from ratchet.core.errors import ConfigError, RunError
from ratchet.sandbox.box import BoxResult, LimitHit, Limits
from ratchet.sandbox.jailed import inside_paths
from ratchet.sandbox.lease import Leases

_START_S = 30.0
"""How long a container may take to start, on top of the command's own limit."""

_USER = 65534


def why_not(program: str) -> str:
    """Return why this engine cannot be used; empty if it can."""
    if shutil.which(program) is None:
        return f"{program} was not found: apt install {'docker.io' if program == 'docker' else program}"
    try:
        done = subprocess.run([program, "info"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not answer: {error}"
    return f"{program} does not answer: {done.stderr.strip().splitlines()[-1:]}" if done.returncode else ""


def arguments(program: str, image: str, name: str, folder: str, command: Sequence[str], limits: Limits) -> list[str]:
    """Return the whole command line of one container; `folder` holds the files and is seen read-only as /given."""
    memory = str(limits.memory_bytes)
    cpu = ceil(limits.cpu_s)
    scratch = f"rw,nosuid,nodev,size={limits.scratch_bytes},mode=0777"
    ulimits = {
        "cpu": f"{cpu}:{cpu}",
        "fsize": f"{limits.file_bytes}:{limits.file_bytes}",
        "nofile": f"{limits.open_files}:{limits.open_files}",
        "core": "0:0",
    }
    words = [program, "run", "--rm", "--name", name, "--label", "ratchet-box", "--network", "none", "--read-only",
             "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{_USER}:{_USER}", "--init",
             "--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.processes + 2), "--ipc", "private",
             "--tmpfs", f"/tmp:{scratch},exec", "--workdir", "/tmp", "--env", "HOME=/tmp", "--pull", "never",
             "--volume", f"{folder}:/given:ro"]  # fmt: skip
    for key, value in ulimits.items():
        words += ["--ulimit", f"{key}={value}"]
    return [*words, image, "sh", "-c", 'cp -R /given/. /tmp/ && exec "$@"', "sh", *command]


class ContainerBox:
    """One container per command; its files are copied into a folder in memory."""

    def __init__(self, program: str, image: str) -> None:
        """**Raises**: `ConfigError` if no image is named."""
        if not image:
            raise ConfigError(f'sandbox.backend = "{program}" needs an image: set sandbox.image.')
        self._program, self._image = program, image
        self.leases = Leases()
        self.layers: tuple[str, ...] = (program, f"image {image}", "no network", "read-only root", "no capabilities",
                                        "cgroup", "ulimits", f"{program}'s seccomp")  # fmt: skip

    async def run(self, files: Mapping[str, str | bytes], command: Sequence[str], limits: Limits) -> BoxResult:
        """Return what became of a command: see `Box.run`. `peak_bytes` is not known and 0.

        **Raises**: `RunError` if the container could not be started.
        """
        with self.leases.take(command, self._program, limits.wall_s + _START_S) as lease:
            _write(lease.folder, files)
            name = f"ratchet-box-{os.getpid()}-{lease.number}"
            words = arguments(self._program, self._image, name, str(lease.folder), command, limits)
            try:
                return await self._run(words, name, limits)
            finally:
                await asyncio.shield(self._remove(name))

    async def _run(self, words: Sequence[str], name: str, limits: Limits) -> BoxResult:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        output, hit = bytearray(), LimitHit.NONE
        try:
            async with asyncio.timeout(limits.wall_s + 1.0):
                while part := await process.stdout.read(1 << 16):
                    output += part[: limits.output_bytes + 1 - len(output)]
                    if len(output) > limits.output_bytes:
                        hit = LimitHit.OUTPUT
                        break
                else:
                    await process.wait()
        except TimeoutError:
            hit = LimitHit.WALL
        finally:
            if process.returncode is None:
                await asyncio.shield(self._remove(name))
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                while await process.stdout.read(1 << 16):
                    pass
                await process.wait()
        text = bytes(output[: limits.output_bytes]).decode("utf-8", "replace")
        code = process.returncode or 0
        if code in (125, 126) and hit is LimitHit.NONE:  # the engine's own codes
            raise RunError(f"{self._program} could not run the image {self._image}: {text.strip()}")
        return self._result(code, text, hit, time.monotonic() - started)

    def _result(self, code: int, text: str, hit: LimitHit, seconds: float) -> BoxResult:
        ended = code - 128 if code > 128 else (-code if code < 0 else 0)
        if hit is LimitHit.NONE and ended:
            known = {signal.SIGKILL: LimitHit.MEMORY, signal.SIGXCPU: LimitHit.CPU, signal.SIGXFSZ: LimitHit.FILE}
            hit = known.get(signal.Signals(ended), LimitHit.NONE) if ended in set(signal.Signals) else hit
        killed = hit in (LimitHit.WALL, LimitHit.OUTPUT)
        return BoxResult(
            exit_code=None if ended or killed else code,
            signal=int(signal.SIGKILL) if killed else ended or None,
            output=text,
            seconds=seconds,
            peak_bytes=0,
            hit=hit,
            layers=self.layers,
        )

    async def _remove(self, name: str) -> None:
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(self._program, "rm", "--force", name, stdout=quiet, stderr=quiet)
        await process.wait()

    def close(self) -> None:
        """Sweep the scratch folders; containers end with the coroutines that await them."""
        self.leases.close()


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for path, data in inside_paths(files):
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    for here, _, _ in os.walk(folder):
        os.chmod(here, 0o755)
