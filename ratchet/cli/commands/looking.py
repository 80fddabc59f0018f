"""Commands that read what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def status(run: Path) -> None:
    """Say what RUN does now, and what it waits for."""
    from ratchet.cli.look import status_text
    from ratchet.store.run_store import RunStore

    click.echo(status_text(RunStore.open(run)))


@click.command()
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


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--rollout", "name", default=None, metavar="ID", help="STEP:TASK:ATTEMPT, as `rollouts` prints it.")
@click.option(
    "--clock",
    default="seconds",
    show_default=True,
    type=click.Choice(["seconds", "steps"]),
    help="What time is told in.",
)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="File without ending; PNG, SVG and HTML.")
def view(run: Path, name: str | None, clock: Literal["seconds", "steps"], out: Path | None) -> None:
    """Draw one attempt of RUN as a timeline.

    The policy's turns, the agents each of them launched, and the chain of turns that everything waited for. Without
    --rollout: of the last recorded step, the attempt with the most agents.
    """
    from ratchet.cli.look import timeline_files
    from ratchet.store.run_store import RunStore

    for path in timeline_files(RunStore.open(run), name, clock, out):
        click.echo(path)


@click.command()
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


@click.command()
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


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "form", default="auto", help="Form of the log, such as console or csv; found out unless given."
)
@click.option("--framework", default="auto", help="Who wrote it, such as verl or trl; found out unless given.")
@click.option("--run", default=None, help="Which run, where a file or folder holds several.")
@click.option("--merge", is_flag=True, help="PATHS are files of one run; else each is a run of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(paths: tuple[Path, ...], form: str, framework: str, run: str | None, merge: bool, as_json: bool) -> None:
    """Say what went wrong in runs, and why: PATHS

    Run folders, or logs of any framework that `ratchet logs` reads. Each finding has its steps and numbers, likely
    causes with what in the log speaks for them, and what to check and to change. The exit code says the worst: 0
    nothing or information, 3 a warning, 4 an error; 2 if a log cannot be used.
    """
    import json
    import sys

    from ratchet.cli.doctor import doctor_text, doctor_tree, exit_code, findings_of
    from ratchet.logs.read import read_log

    asked = [paths] if merge else [(path,) for path in paths]
    logs = [read_log(some, format=form, framework=framework, run=run) for some in asked]
    found = [findings_of(log) for log in logs]
    if as_json:
        trees = [doctor_tree(log, some) for log, some in zip(logs, found, strict=True)]
        click.echo(json.dumps(trees if len(trees) > 1 else trees[0], indent=2))
    else:
        click.echo("\n\n\n".join(doctor_text(log, some) for log, some in zip(logs, found, strict=True)))
    sys.exit(max(exit_code(some) for some in found))
