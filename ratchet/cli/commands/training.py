"""Commands that train, and those that say what training would do."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ratchet.cli.exits import EXIT_FAILED


@click.command()
@click.argument("config", nargs=-1, required=True)
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def train(config: tuple[str, ...], plain: bool) -> None:
    """Train a recipe: CONFIG [KEY=VALUE ...]

    CONFIG is a recipe (judge, judge/collapse) or a .toml file; section.key=value words override it.
    """
    from ratchet.cli.view import watching
    from ratchet.config.read import read_config

    chosen = read_config(config)
    if chosen.cluster.ranks > 1 and chosen.cluster.name == "local":
        from ratchet.cli.ranks import ran_on_ranks

        if ran_on_ranks(chosen.cluster.ranks, ["train", *config], {"--plain": plain}):
            return
    from ratchet.run.launch import train as start

    with watching(plain=plain) as observer:
        start(chosen, observer)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1)
@click.option("--accept-changes", is_flag=True, help="Go on although the config has changed; recorded as an event.")
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def resume(run: Path, settings: tuple[str, ...], plain: bool, accept_changes: bool) -> None:
    """Go on with a stopped or killed RUN exactly where it was.

    section.key=value words change its config from here on; --accept-changes agrees to that, and it is recorded.
    """
    from ratchet.cli.view import watching
    from ratchet.config.read import config_from_tree, merge, parse_override
    from ratchet.store.run_store import RunStore

    tree = RunStore.open(run).config_tree()
    for word in settings:
        tree = merge(tree, parse_override(word))
    cluster = config_from_tree(tree).cluster
    if cluster.ranks > 1 and cluster.name == "local":
        from ratchet.cli.ranks import ran_on_ranks

        options = {"--plain": plain, "--accept-changes": accept_changes}
        if ran_on_ranks(cluster.ranks, ["resume", str(run), *settings], options):
            return
    from ratchet.run.launch import resume as go_on

    with watching(plain=plain) as observer:
        go_on(run, observer, words=settings, accept_changes=accept_changes)


@click.command()
@click.argument("sweep", nargs=-1, required=True)
@click.option(
    "--only", multiple=True, metavar="AXIS=LABEL", help="Only these cells; an axis again adds, another narrows."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the cells; runs/SWEEP-sweep unless given.",
)
@click.option(
    "--jobs",
    default=0,
    type=click.IntRange(min=0),
    help="Cells at once; unless given, as many as the cores hold (one if run.threads = 0).",
)
@click.option("--dry", is_flag=True, help="List the cells and what is there of each; run nothing.")
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def sweep(
    sweep: tuple[str, ...], only: tuple[str, ...], folder: Path | None, jobs: int, dry: bool, plain: bool
) -> None:
    """Train every cell of a sweep: SWEEP [KEY=VALUE ...]

    SWEEP is a study (stale) or a .toml file with a base recipe and axes; KEY=VALUE words are laid over every cell.
    Ctrl-C stops cleanly. Repeat the command to go on: finished cells are skipped, begun ones resumed. The exit code is
    1 while cells are missing.
    """
    from ratchet.cli.sweep import Asked
    from ratchet.cli.sweep import sweep as run_sweep

    if not run_sweep(Asked(sweep, only, folder, jobs, dry, plain)):
        sys.exit(EXIT_FAILED)


@click.command()
@click.argument("config", nargs=-1, required=True)
def explain(config: tuple[str, ...]) -> None:
    """Say what CONFIG would do.

    Batches, tokens, memory, FLOPs, staleness, waits, without starting it.
    """
    from ratchet.config.read import read_config

    chosen = read_config(config)
    from ratchet.cli.explain import explanation

    click.echo(explanation(chosen))


@click.command("check-reward")
@click.argument("config", nargs=-1, required=True)
@click.option("--tasks", default=8, show_default=True, type=click.IntRange(min=1), help="Tasks to ask about.")
def check_reward(config: tuple[str, ...], tasks: int) -> None:
    """Ask CONFIG's reward about right and junk answers.

    Gold, empty, echoed, refused and long junk answers go through it, task by task.
    """
    from ratchet.config.read import read_config

    chosen = read_config(config)
    from ratchet.cli.check_reward import check

    click.echo(check(chosen, tasks))


@click.command()
@click.argument("name", required=False)
def algorithms(name: str | None) -> None:
    """List the algorithms, or describe NAME.

    Equation, source, options, defaults and bounds.
    """
    from ratchet.cli.algorithms import list_text, row_text

    click.echo(list_text() if name is None else row_text(name))
