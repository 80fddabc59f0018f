"""What a source does with inputs: one check of the sandbox runs many, and reports each.

Owns the two ways to run them: in the warm pool; and once more in an interpreter of its own, with another hash seed and
the inputs in reverse, where what is random, remembered or unordered comes out differently. Function and caller share a
process here, which makes a run 2.4 times as fast: no verdict is asked for, and nobody gains by a wrong report. What a
line says is checked with the two apart, by the environment's own check (`write.py`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.bugs import inside
from ratchet.bugs.draw import Args
from ratchet.config.schema import SandboxSection
from ratchet.sandbox.box import MEBIBYTE, LimitHit, Limits
from ratchet.sandbox.choose import JailedBox, limits_of
from ratchet.sandbox.pool import CheckPool
from ratchet.sandbox.program import How, Outcome, Program

_HASH_SEED = "20"
"""Any but the pool's."""
_WALL, _START_S = 20, 120.0
"""Wall-clock seconds of a run, by its CPU time and on top: far more than any needs, so that the machine's load decides
nothing; what waits for ever ends here."""
NOT_LOADED = ("import_error", "syntax_error")
"""How a run ends whose source could not be loaded."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one call."""

    what: str
    """value, list, lists, other, foreign, raised: see `inside`; or lost, where it never returned."""
    value: object = None
    changed: bool = False
    """Whether it changed its arguments."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a run over inputs."""

    results: tuple[Result, ...]
    """In the order of the inputs; fewer if it ended early."""
    ended: str = ""
    """Why it ended early: the outcome's name, such as timeout or import_error; empty if it did not."""
    detail: str = ""
    """What was said at its end, for a person."""
    cpu_s: float = 0.0
    """CPU seconds it took; 0 if it ended early."""


_RUNNER = Path(inside.__file__).read_text(encoding="utf-8")


class Runs:
    """Runs sources. Used from one event loop; any number of coroutines may wait."""

    def __init__(self, section: SandboxSection, box: JailedBox, pool: CheckPool, timeout_s: float) -> None:
        """`timeout_s` is the CPU time that one run over all inputs may take; a call may take a quarter of it."""
        self._limits = replace(limits_of(section), output_bytes=MEBIBYTE)
        self._box, self._pool, self._timeout_s = box, pool, timeout_s
        self.checks = 0
        """Runs so far."""

    async def run(self, source: str, entry: str, inputs: Sequence[Args], cpu_s: float = 0.0, most_lost: int = 1) -> Ran:
        """Return what a function does with `inputs`, up to the one with which `most_lost` of them took too long.

        `cpu_s` is what one call, and all, may take; 0 gives them the usual time.
        """
        mark = secrets.token_hex(8)
        self.checks += 1
        text, limits = self._program(entry, inputs, mark, cpu_s, most_lost), self._within(cpu_s)
        program = Program(source, text, How.SCRIPT, apart=False, limits=limits)
        answer = await self._pool.check(program)
        ended = "" if answer.outcome is Outcome.PASSED else answer.outcome.value
        return _ran(answer.output, mark, len(inputs), ended, answer.detail)

    async def run_apart(self, source: str, entry: str, inputs: Sequence[Args]) -> Ran:
        """Return the same from a fresh interpreter with another hash seed, called in the reverse order."""
        mark = secrets.token_hex(8)
        self.checks += 1
        files = {"solution.py": source, "program.py": self._program(entry, inputs[::-1], mark, 0.0, 1)}
        command = ["/usr/bin/env", f"PYTHONHASHSEED={_HASH_SEED}", self._box.view.python, "-S", "-B", "program.py"]
        answer = await self._box.run(files, command, self._within(0.0))
        ended = "" if answer.exit_code == 0 and answer.hit is LimitHit.NONE else answer.hit.value
        ran = _ran(answer.output, mark, len(inputs), ended, answer.output[-200:])
        return replace(ran, results=ran.results[::-1])

    async def settle(self, source: str, entry: str, inputs: Sequence[Args], most_lost: int) -> Ran:
        """Return what a function does with every input, also where it hangs or dies on fewer than `most_lost`."""
        results: list[Result] = []
        while len(results) < len(inputs):
            ran = await self.run(source, entry, inputs[len(results) :], most_lost=most_lost)
            results += ran.results
            if not ran.ended:
                break
            if sum(result.what == "lost" for result in results) >= most_lost or ran.ended in NOT_LOADED:
                return Ran(tuple(results), ran.ended, ran.detail)
            if len(results) < len(inputs):
                results.append(Result("lost", ran.ended))
        return Ran(tuple(results))

    def _within(self, cpu_s: float) -> Limits:
        cpu_s = cpu_s or self._timeout_s
        return replace(self._limits, wall_s=_WALL * cpu_s + _START_S, cpu_s=cpu_s + 1)

    def _program(self, entry: str, inputs: Sequence[Args], mark: str, cpu_s: float, most_lost: int) -> str:
        """Return the text of a script that runs a function of the module ``solution`` with inputs."""
        given = json.dumps(list(inputs))
        each, whole = (cpu_s, cpu_s) if cpu_s else (self._timeout_s / 4, self._timeout_s)
        call = f"report(solution.{entry}, json.loads({given!r}), printer({mark!r}), {each}, {whole}, {most_lost})"
        return f"{_RUNNER}\n\nimport solution\n\n{call}\n"


def _ran(output: str, mark: str, count: int, ended: str, detail: str) -> Ran:
    """Return what a report says, up to its end or what is missing of it."""
    found: list[Result] = []
    for line in output.split("\n"):
        if not line.startswith(mark):
            continue
        try:
            number, *rest = json.loads(line[len(mark) :])
            if number == "cpu" and len(found) == count:
                return Ran(tuple(found), ended, detail, float(rest[0]))
            what, value, changed = rest
        except (ValueError, TypeError):  # cut off where the output was
            break
        if number != len(found) or len(found) == count:
            break
        found.append(Result(str(what), value, bool(changed)))
    return Ran(tuple(found), ended or "timeout", detail)
