"""Commands that draw and report: any run of ours, any log of another framework."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN|LOG...")
@click.option("--metric", "metrics", multiple=True, help="Metric to draw, a panel each; several are allowed.")
@click.option("--right", default="", help="Metric on a second y axis.")
@click.option("--x", default="", help="step, rollouts, tokens, flops or time; the style's unless given.")
@click.option("--style", default="", help="A study's figure for any log: judge, stale, reproduce, swarm.")
@click.option("--log", "logs", multiple=True, type=click.Choice(["x", "y"]), help="Axis that is logarithmic.")
@click.option(
    "--event",
    "events",
    multiple=True,
    help="Events to mark: sync, resume, checkpoint, curriculum, rollback, config, finding, none; all but checkpoints "
    "unless given.",
)
@click.option("--phases", default="", help="Colour stretches behind the curves: trend or curriculum.")
@click.option(
    "--seeds", is_flag=True, help="Pool runs of ours by their configs: a curve per method, a row per setting."
)
@click.option("--format", "form", default="auto", help="Form of the logs; found out unless given.")
@click.option("--framework", default="auto", help="Who wrote the logs; found out unless given.")
@click.option("--run", default=None, help="Which run, where a log holds several.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="File to write; PNG and SVG are made.")
def chart(
    runs: tuple[str, ...],
    metrics: tuple[str, ...],
    right: str,
    x: str,
    style: str,
    logs: tuple[str, ...],
    events: tuple[str, ...],
    phases: str,
    seeds: bool,
    form: str,
    framework: str,
    run: str | None,
    out: Path | None,
) -> None:
    """Draw runs and logs of any framework.

    Each RUN or LOG is PATH, LABEL=PATH or SETTING/LABEL=PATH. Paths of one label are seeds of one curve, drawn as mean
    and band; each setting is a row. Without --metric and --style, the study's own figure. Writes PNG, SVG and the
    caption, which is computed from what is drawn.
    """
    from ratchet.charts.figure import Look
    from ratchet.charts.source import read_sources
    from ratchet.cli.chart import chart_files

    sources = read_sources(runs, format=form, framework=framework, run=run)
    look = Look(metrics, style, x, right, logs, events, phases)
    for path in chart_files(sources, look, out, seeds=seeds):
        click.echo(path)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN|LOG...")
@click.option("--format", "form", default="auto", help="Form of the logs; found out unless given.")
@click.option("--framework", default="auto", help="Who wrote the logs; found out unless given.")
@click.option("--run", default=None, help="Which run, where a log holds several.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder to write.")
def report(runs: tuple[str, ...], form: str, framework: str, run: str | None, out: Path | None) -> None:
    """Report on runs and logs of any framework.

    Each RUN or LOG is PATH or LABEL=PATH. Writes report.html (one file, opens offline), report.md and figures/: into
    the run's folder for one run of ours, else into report/ here. Several make a comparison.
    """
    from ratchet.charts.source import read_sources
    from ratchet.cli.chart import report_files

    for path in report_files(read_sources(runs, format=form, framework=framework, run=run), out):
        click.echo(path)
