"""``ratchet compare``: what it prints."""

from __future__ import annotations

from ratchet.charts.compare import Asked, compare


def comparison_text(asked: Asked) -> str:
    """Draw and write a comparison; return its tables, its sentences and the files."""
    written = compare(asked)
    files = "\n".join(str(path) for path in written.files)
    return f"{written.text}\n\n{files}"
