"""The training loop in the README is the one that runs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_line_of_the_loop_in_the_readme_stands_in_the_program() -> None:
    shown = re.search(r"```python\n(async def explore_loop.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert shown
    real = {line.strip() for line in (ROOT / "ratchet/run/loops.py").read_text().splitlines()}
    lines = [line.split("  #")[0].strip() for line in shown[1].splitlines()]
    lines = [line for line in lines if line and not line.startswith(("async def", '"""'))]
    assert len(lines) > 15
    assert [line for line in lines if line not in real] == []
