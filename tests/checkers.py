"""A checker that runs tests in this process: for trusted programs, where no sandbox is needed."""

from __future__ import annotations

import types
from collections.abc import Sequence

from ratchet.environments.reproduce_checks import MODULE, Ran
from ratchet.rewards.execution import RunOutcome


class InProcess:
    """Runs the family's own code here, where nobody else wrote it: never do this with a policy's."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.closed = 0

    async def check(self, source: str, test: str, raises: Sequence[str] = ()) -> Ran:
        self.asked.append((source, test))
        first, _, body = test.partition("\n")
        name = first.removeprefix(f"from {MODULE} import ")
        module = types.ModuleType(MODULE)
        try:
            exec(compile(source, "solution", "exec"), vars(module))
            exec(compile(body, "test", "exec"), {name: vars(module)[name]})
        except AssertionError:
            return Ran(RunOutcome.ASSERTION)
        except (SyntaxError, ValueError):
            return Ran(RunOutcome.SYNTAX_ERROR)
        except Exception as error:
            if type(error).__name__ in raises:
                return Ran(RunOutcome.EXPECTED)
            return Ran(RunOutcome.OTHER_EXCEPTION)
        return Ran(RunOutcome.PASSED)

    def close(self) -> None:
        self.closed += 1
