"""The configuration page says what the schema says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_configuration_page_is_the_schemas() -> None:
    page = subprocess.run(
        [sys.executable, "docs/make_config.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / "configuration.md").read_text() == page, (
        "write it again: python docs/make_config.py > docs/configuration.md"
    )
