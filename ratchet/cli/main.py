"""The command ``ratchet``. Each subcommand imports what it needs when it runs, so that help stays quick.

Exit codes: 0 fine, 1 a run failed, 2 the user's input cannot be used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ratchet import __version__
from ratchet.cli.bug_options import bug_options
from ratchet.core.errors import ConfigError, RatchetError

EXIT_FAILED, EXIT_INPUT = 1, 2

CONFIG_HELP = "CONFIG is a recipe (judge, judge/collapse) or a .toml file; section.key=value words override it."


class Commands(click.Group):
    """Prints our errors as one sentence and turns them into exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"ratchet: {error}", err=True)
            sys.exit(EXIT_INPUT)
        except RatchetError as error:
            click.echo(f"ratchet: {error}", err=True)
            sys.exit(EXIT_FAILED)
        except KeyboardInterrupt:
            click.echo("ratchet: interrupted before the first step; nothing was lost", err=True)
            sys.exit(EXIT_FAILED)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ratchet.core.errors import nearest

        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise ConfigError(f'There is no command "{args[0]}".{nearest(args[0], self.commands)}')
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order people need them, not the alphabet's


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ratchet")
def main() -> None:
    """RL post-training for language models that you can see through.

    \b
    ratchet train judge                 train a tiny judge on this machine, in minutes
    ratchet explain judge               what that will do, in words and numbers
    ratchet train judge train.steps=20  the same, changed
    """


@main.command()
@click.argument("config", nargs=-1, required=True)
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def train(config: tuple[str, ...], plain: bool) -> None:
    """Train a recipe: CONFIG [KEY=VALUE ...]

    CONFIG is a recipe (judge, judge/collapse) or a .toml file; section.key=value words override it.
    """
    from ratchet.cli.view import watching
    from ratchet.config.read import read_config

    chosen = read_config(config)
    from ratchet.run.launch import train as start

    with watching(plain=plain) as observer:
        start(chosen, observer)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1)
@click.option("--accept-changes", is_flag=True, help="Go on although the config has changed; recorded as an event.")
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def resume(run: Path, settings: tuple[str, ...], plain: bool, accept_changes: bool) -> None:
    """Go on with a stopped or killed RUN exactly where it was.

    section.key=value words change its config from here on; --accept-changes agrees to that, and it is recorded.
    """
    from ratchet.cli.view import watching
    from ratchet.store.run_store import RunStore

    RunStore.open(run)
    from ratchet.run.launch import resume as go_on

    with watching(plain=plain) as observer:
        go_on(run, observer, words=settings, accept_changes=accept_changes)


@main.command()
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


@main.command()
@click.argument("config", nargs=-1, required=True)
def explain(config: tuple[str, ...]) -> None:
    """Say what CONFIG would do.

    Batches, tokens, memory, FLOPs, staleness, waits, without starting it.
    """
    from ratchet.config.read import read_config

    chosen = read_config(config)
    from ratchet.cli.explain import explanation

    click.echo(explanation(chosen))


@main.command("check-reward")
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


@main.command()
@bug_options
def bugs(source: str, words: tuple[str, ...], plain: bool, reasons: bool, **options: Any) -> None:
    """Make bugs to train on from any Python package.

    PACKAGE_OR_FOLDER is an installed package or a path to one, to a .py file, or to a project with tests. Its pure
    functions are taken out one by one, tried on inputs of doctests and tests and on drawn ones, and mutated. Each line
    is a buggy and a fixed file for the environment reproduce. The package's code runs in the sandbox alone.
    """
    from ratchet.cli.bugs import asked_for
    from ratchet.cli.bugs import bugs as run_bugs

    click.echo(run_bugs(asked_for(source, words, **options), plain=plain, show_reasons=reasons))


@main.command()
@click.argument("name", required=False)
def algorithms(name: str | None) -> None:
    """List the algorithms, or describe NAME.

    Equation, source, options, defaults and bounds.
    """
    from ratchet.cli.algorithms import list_text, row_text

    click.echo(list_text() if name is None else row_text(name))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
def status(run: Path) -> None:
    """Say what RUN does now, and what it waits for."""
    from ratchet.cli.look import status_text
    from ratchet.store.run_store import RunStore

    click.echo(status_text(RunStore.open(run)))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--step", type=int, default=None, help="Step to show; the last one unless given.")
@click.option("--groups", default=3, show_default=True, type=click.IntRange(min=1), help="Groups to show.")
@click.option("--tokens", is_flag=True, help="Show each token with its log-probability.")
def rollouts(run: Path, step: int | None, groups: int, tokens: bool) -> None:
    """Print groups of RUN with their rewards.

    Those of one step, widest spread of rewards first.
    """
    from ratchet.cli.look import rollouts_text
    from ratchet.store.run_store import RunStore

    click.echo(rollouts_text(RunStore.open(run), step, groups, tokens))


@main.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--step", type=int, default=None, help="Checkpoint to evaluate; the last one unless given.")
@click.option("--tasks", default=256, show_default=True, type=click.IntRange(min=1), help="Held-out tasks.")
@click.option("--samples", default=1, show_default=True, type=click.IntRange(min=1), help="Attempts per task.")
@click.option("--split", default="test", show_default=True, help="Split the tasks come from.")
def evaluate(run: Path, step: int | None, tasks: int, samples: int, split: str) -> None:
    """Evaluate a checkpoint of RUN.

    On held-out tasks: pass@1 and pass@k with 95 % intervals.
    """
    from ratchet.store.run_store import RunStore

    RunStore.open(run)
    from ratchet.cli.evaluate import evaluation_text

    click.echo(evaluation_text(run, step, tasks, samples, split))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--step", type=int, default=None, help="Checkpoint to play with; the last one unless given.")
@click.option("--tasks", default=64, show_default=True, type=click.IntRange(min=1), help="Held-out bugs.")
@click.option("--size", default=8, show_default=True, type=click.IntRange(min=1), help="Patches, and tests, per bug.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def selfplay(run: Path, step: int | None, tasks: int, size: int, as_json: bool, plain: bool) -> None:
    """Let a checkpoint of RUN choose its patches by its own tests.

    For each held-out bug it writes several patches and tests; the patch that its tests score highest is the answer.
    """
    import json

    from ratchet.store.run_store import RunStore

    RunStore.open(run)
    from ratchet.cli.selfplay import selfplay_json, selfplay_text
    from ratchet.cli.view import watching
    from ratchet.run.observer import Silent
    from ratchet.run.selfplay import selfplay as play

    if as_json:
        click.echo(json.dumps(selfplay_json(play(run, step, tasks=tasks, size=size, observer=Silent())), indent=1))
        return
    with watching(plain=plain) as observer:
        result = play(run, step, tasks=tasks, size=size, observer=observer)
    click.echo(selfplay_text(result))


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "form", default="auto", help="Form of the log, such as console or csv; found out unless given."
)
@click.option("--framework", default="auto", help="Who wrote it, such as verl or trl; found out unless given.")
@click.option("--run", default=None, help="Which run, where a file or folder holds several.")
@click.option("--merge", is_flag=True, help="PATHS are files of one run; else each is a log of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def logs(paths: tuple[Path, ...], form: str, framework: str, run: str | None, merge: bool, as_json: bool) -> None:
    """Say what is in training logs: PATHS

    Of any framework: printed output, JSON lines, trainer_state.json, TensorBoard, CSV, W&B, trackio, MLflow, or folders
    with these. Prints form, framework and why, series, what is not recognised, and what was handled. The exit code is 2
    if a log is no log of reinforcement learning.
    """
    import json

    from ratchet.cli.logs import log_text, log_tree
    from ratchet.logs.read import read_log

    asked = [paths] if merge else [(path,) for path in paths]
    read = [read_log(some, format=form, framework=framework, run=run, need_reward=False) for some in asked]
    if as_json:
        click.echo(json.dumps([log_tree(log) for log in read] if len(read) > 1 else log_tree(read[0]), indent=2))
    else:
        click.echo("\n\n\n".join(log_text(log) for log in read))
    for log in read:
        if (objection := log.objection()) is not None:
            raise objection


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metric", "metrics", multiple=True, help="Metric to draw; several are allowed.")
@click.option(
    "--x", default="step", show_default=True, type=click.Choice(["step", "rollouts", "tokens", "flops", "time"])
)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="File to write; PNG and SVG are made.")
def chart(runs: tuple[Path, ...], metrics: tuple[str, ...], x: str, out: Path | None) -> None:
    """Draw metrics of one or more RUNS.

    Without --metric, the study's own figure.
    """
    from ratchet.cli.look import chart_files
    from ratchet.store.run_store import RunStore

    for path in chart_files([RunStore.open(run) for run in runs], metrics, x, out):
        click.echo(path)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="Panel to draw, several are allowed; reward, KL, entropy and length unless given.",
)
@click.option("--x", default="step", show_default=True, type=click.Choice(["step", "tokens", "flops", "time"]))
@click.option(
    "--label", "keys", multiple=True, metavar="KEY", help="Tell methods apart by this setting alone; no reference then."
)
@click.option("--reference/--no-reference", default=True, show_default=True, help="Hold against recorded references.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="Where to write .png, .svg, .txt, .md; beside the runs unless given.",
)
def compare(
    runs: tuple[Path, ...], metrics: tuple[str, ...], x: str, keys: tuple[str, ...], reference: bool, out: Path | None
) -> None:
    """Hold RUNS against each other.

    RUNS are run folders, or folders that hold some, such as a sweep's. Seeds are pooled; rows of the figure are how
    stale the data is, curves are methods. Prints tables with intervals, collapses and divergences, and holds the runs
    against the recorded reference of their study.
    """
    from ratchet.charts.compare import Asked
    from ratchet.cli.compare import comparison_text

    click.echo(comparison_text(Asked(runs, metrics, x, keys, reference, out)))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--step", type=int, default=None, help="Checkpoint to export; the last one unless given.")
def export(run: Path, folder: Path, step: int | None) -> None:
    """Write a checkpoint as a Hugging Face model.

    A checkpoint of RUN goes to FOLDER, which transformers can load.
    """
    from ratchet.store.run_store import RunStore

    RunStore.open(run)
    from ratchet.cli.export import export_model

    click.echo(export_model(run, folder, step))
