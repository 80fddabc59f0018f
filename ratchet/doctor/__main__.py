"""Prints the table of rules: ``python -m ratchet.doctor``."""

from __future__ import annotations

from ratchet.doctor.table import table_markdown

if __name__ == "__main__":
    print(table_markdown())
