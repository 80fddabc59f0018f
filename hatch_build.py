"""Compile the C++ kernels when the package is built: one plain shared library per instruction set.

Called by hatchling (``[tool.hatch.build.hooks.custom]``), or by hand: ``python hatch_build.py`` builds in place.
Without a compiler the package is complete all the same; plain torch then does the arithmetic, and one line says so.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand in an environment without hatchling
    BuildHookInterface = object  # type: ignore[assignment,misc]

SOURCES = Path("ratchet/kernels/native")
FLAGS = ["-std=gnu++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
"""No -ffast-math: it would let the compiler reorder sums, and older GCCs then also switch the process to
flush-to-zero when the library is loaded."""
TARGETS: dict[str, dict[str, list[str]]] = {
    "x86_64": {
        "x86_64_v3": ["-march=x86-64-v3"],
        "x86_64_v4": ["-march=x86-64-v4"],
        "x86_64_v4_bf16": ["-march=x86-64-v4", "-mavx512bf16"],
    }
}
"""Per machine, the libraries to build and their flags; `ratchet.kernels.native` picks one by the CPU's flags.
Machines not listed get one library for the compiler's default CPU."""
ALIASES = {"amd64": "x86_64", "x64": "x86_64"}


def compile_libraries(root: Path) -> list[Path]:
    """Compile every library that this machine's compiler can make and return their paths; none is not an error."""
    if not sys.platform.startswith("linux"):
        _say(f"C++ kernels are not built on {sys.platform}; plain torch will be used.")
        return []
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        _say("no C++ compiler found; plain torch will be used.")
        return []
    machine = platform.machine().lower()
    machine = ALIASES.get(machine, machine)
    built, complaint = [], ""
    for name, flags in TARGETS.get(machine, {"generic": []}).items():
        target = root / SOURCES / f"ratchet_{name}.so"
        complaint = _compile([*compiler.split(), *FLAGS, *flags], root, target) or complaint
        if target.exists():
            built.append(target)
    if built:
        _say(f"built {', '.join(path.name for path in built)}.")
    else:
        _say(f"the C++ kernels did not compile; plain torch will be used. ({complaint})")
    return built


def _compile(command: list[str], root: Path, target: Path) -> str:
    """Compile all sources into `target`; return what went wrong in one line, or "". A stale library never stays."""
    sources = sorted(str(path) for path in (root / SOURCES).glob("*.cpp"))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        try:
            done = subprocess.run([*command, "-shared", *sources, "-o", str(made)], capture_output=True, text=True)
        except OSError as problem:
            target.unlink(missing_ok=True)
            return str(problem)
        if done.returncode == 0:
            made.replace(target)  # at once: a process that starts meanwhile finds the old one
            return ""
        target.unlink(missing_ok=True)
        lines = done.stderr.strip().splitlines()
        return next((line for line in lines if "error" in line), f"exit status {done.returncode}")


def _say(what: str) -> None:
    print(f"ratchet: {what}", file=sys.stderr)


class NativeKernels(BuildHookInterface):  # type: ignore[misc,valid-type]
    """Puts the libraries into the wheel, and the machine's name into the wheel's tag when there are any."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before hatchling collects files; an editable install uses them where they lie."""
        if self.target_name != "wheel":
            return
        built = compile_libraries(Path(self.root))
        if not built:
            return
        for path in built:
            inside = path.relative_to(self.root).as_posix()
            if version != "editable":
                build_data["force_include"][str(path)] = inside
        build_data["pure_python"] = False
        # Loaded by ctypes: no Python ABI, so one wheel serves every Python of this platform.
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def clean(self, versions: list[str]) -> None:
        """Remove the libraries."""
        for path in (Path(self.root) / SOURCES).glob("ratchet_*.so"):
            path.unlink()


if __name__ == "__main__":
    compile_libraries(Path(__file__).resolve().parent)
