"""Commands that follow runs while they go on: in the browser, in the terminal."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
@click.option("--port", default=7007, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; any but this machine's needs a token."
)
@click.option("--token", is_flag=True, help="Ask for a token on this machine too; RATCHET_BOARD_TOKEN sets it.")
@click.option("--export", "out", type=click.Path(path_type=Path), default=None, help="Write a folder of files instead.")
def board(folder: Path, port: int, host: str, token: bool, out: Path | None) -> None:
    """Open the runs and logs below FOLDER in the browser.

    One local page over our runs and logs of other frameworks: curves, rollouts, ledger, comparisons, live. With
    --export, the same page as a folder that opens from the disk or from any static host.
    """
    from ratchet.cli.board import export, serve

    if out is not None:
        click.echo(export(folder, out))
    else:
        serve(folder, host, port, token)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print it once.")
def watch(run: Path, once: bool) -> None:
    """Follow RUN in the terminal: state, waits, curves, findings, ledger."""
    from ratchet.cli.board import diagnosis
    from ratchet.cli.watch import watch as follow

    follow(run, diagnosis(), once=once)
