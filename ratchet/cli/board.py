"""Serving the board, and writing it as files."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path

import click

from ratchet.board.finding import Diagnose, Finding, Reason
from ratchet.core.errors import ConfigError

TOKEN = "RATCHET_BOARD_TOKEN"
"""Variable that holds a token of one's own, so that it is in no list of processes."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def diagnosis() -> Diagnose:
    """Return what finds out what is wrong with a run. The one place where a diagnosis is handed to board and watch."""
    return diagnosed


def diagnosed(path: Path) -> list[Finding]:
    """Return what the doctor finds in a run of ours or anybody's log, in the board's form.

    Raises `ConfigError` if the log cannot be read, or is too short for anything to be said.
    """
    from ratchet.cli.doctor import findings_of
    from ratchet.doctor.diagnose import unsaid
    from ratchet.doctor.evidence import evidence_of
    from ratchet.logs.read import read_log

    log = read_log(path, need_reward=False)
    found = findings_of(log)
    if not found and (why := unsaid(evidence_of(log))) is not None:
        raise ConfigError(why)
    return [
        Finding(
            f.severity.label, f.rule, f.metric, f.first, f.last, f.sentence,
            tuple(Reason(cause.text, cause.evidence) for cause in f.causes), f.check, f.change, f.rollouts, f.sources,
        )
        for f in found
    ]  # fmt: skip


def serve(folder: Path, host: str, port: int, with_token: bool) -> None:
    """Serve the board until interrupted. Raises `ConfigError` if it cannot begin."""
    try:
        import uvicorn

        from ratchet.board.server import make_app
    except ImportError as error:
        raise ConfigError(f"The board needs {error.name}: pip install 'ratchet[board]'") from None
    from ratchet.board.board import Board

    board = Board(folder, diagnosis(), apart=True)
    token = ""
    if with_token or host not in LOOPBACK:
        token = os.environ.get(TOKEN, "") or secrets.token_urlsafe(18)
    listener = _listener(host, port)

    def leaving() -> bool:
        return server.should_exit

    app = make_app(board, token=token, leaving=leaving)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/"
    click.echo(f"Board of {folder}: {address}{f'?token={token}' if token else ''}")
    if host not in LOOPBACK:
        click.echo("It is open to the network, without encryption; whoever has the address with its token may read it.")
    click.echo("Ctrl-C ends it.")
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(settings)
    try:
        with suppress(KeyboardInterrupt):  # uvicorn has ended by then, and hands the signal on
            server.run(sockets=[listener])
    finally:
        board.close()  # done by the application as it ends, unless a second Ctrl-C came before


def export(folder: Path, out: Path) -> str:
    """Write the board as files and return a sentence about it."""
    try:
        from ratchet.board.export import write_export
    except ImportError as error:
        raise ConfigError(f"The board needs {error.name}: pip install 'ratchet[board]'") from None
    from ratchet.board.board import Board

    board = Board(folder, diagnosis())
    try:
        count = write_export(board, out)
    finally:
        board.close()
    return f"{out / 'index.html'}: {count} runs. It opens from the disk, and from any host of files."


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)  # at once: a browser that is quicker than the server waits instead of giving up
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"The board cannot listen on {host}, port {port}: {error.strerror}. Choose another --port (0 takes a free "
            "one), or end what listens there."
        ) from None
    return listener
