"""Commands that make tasks to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("source", metavar="PACKAGE_OR_FOLDER")
@click.argument("words", nargs=-1, metavar="[sandbox.KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File of JSONL lines to write.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option(
    "--tests",
    multiple=True,
    type=click.Path(path_type=Path),
    help="More tests to read inputs from, a file or folder; several are allowed.",
)
@click.option(
    "--per-function", default=8, show_default=True, type=click.IntRange(min=1), help="Most lines of one function."
)
@click.option("--limit", default=0, type=click.IntRange(min=0), help="Most lines in all; no limit unless given.")
@click.option(
    "--reveal-max",
    default=0.75,
    show_default=True,
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Largest share of inputs that may reveal a bug; small makes guesses fail.",
)
@click.option("--cases", default=30, show_default=True, type=click.IntRange(min=2), help="Test cases of a line, about.")
@click.option(
    "--lines",
    default=200,
    show_default=True,
    type=click.IntRange(min=5),
    help="Most lines of code of a function with all it needs.",
)
@click.option("--seed", default=0, show_default=True, help="Decides inputs, mutants and their order.")
@click.option(
    "--timeout",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="CPU seconds that a function may take for all its inputs.",
)
@click.option("--reasons", is_flag=True, help="Say of each refused function why.")
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def bugs(source: str, words: tuple[str, ...], plain: bool, reasons: bool, **options: Any) -> None:
    """Make bugs to train on from any Python package.

    PACKAGE_OR_FOLDER is an installed package or a path to one, to a .py file, or to a project with tests. Its pure
    functions are taken out one by one, tried on inputs of doctests and tests and on drawn ones, and mutated. Each line
    is a buggy and a fixed file for the environment reproduce. The package's code runs in the sandbox alone.
    """
    from ratchet.cli.bugs import asked_for
    from ratchet.cli.bugs import bugs as run_bugs

    click.echo(run_bugs(asked_for(source, words, **options), plain=plain, show_reasons=reasons))
