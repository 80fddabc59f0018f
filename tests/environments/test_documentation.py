"""The examples in the documentation of these rooms run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ratchet

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "own_file"),
    [("rooms/environments.md", "guess.py"), ("rooms/rewards.md", "short.py"), ("how-to/gymnasium.md", "treasure.py")],
)
def test_the_examples_of_a_page_run_as_printed(tmp_path: Path, page: str, own_file: str) -> None:
    own, trial = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / own_file).write_text(own)
    (tmp_path / "trial.py").write_text(trial)
    package = str(Path(ratchet.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "trial.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": package, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
