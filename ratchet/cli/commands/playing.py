"""Commands that let a policy act without training it, and that hand its weights on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command("eval")
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


@click.command()
@click.argument("config", nargs=-1, required=True)
@click.option("--policy", required=True, help="URL of a server that speaks OpenAI's API, or a checkpoint's folder.")
@click.option("--model", default="", help="Name of the model that a server is asked for.")
@click.option("--tasks", default=16, show_default=True, type=click.IntRange(min=1), help="Tasks.")
@click.option("--samples", default=1, show_default=True, type=click.IntRange(min=1), help="Attempts per task.")
@click.option("--split", default="test", show_default=True, help="Split the tasks come from.")
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def play(config: tuple[str, ...], policy: str, model: str, tasks: int, samples: int, split: str, plain: bool) -> None:
    """Play an environment with any policy, untrained: CONFIG

    Prints what it earned, with 95 % intervals, and its best and worst attempt.
    """
    from ratchet.cli.view import watching
    from ratchet.config.read import read_config

    chosen = read_config(config)
    from ratchet.cli.evaluate import played_text
    from ratchet.run.play import play as start

    with watching(plain=plain) as observer:
        played = start(chosen, policy, model, tasks=tasks, samples=samples, split=split, observer=observer)
    click.echo(played_text(policy, split, played))


@click.command()
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


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--step", type=int, default=None, help="Checkpoint to export; the last one unless given.")
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16"]),
    help="Type of the weights written; bfloat16 is half as large and rounds.",
)
@click.option("--push", default="", metavar="OWNER/NAME", help="Push the folder to the Hugging Face hub, too.")
@click.option("--public", is_flag=True, help="With --push: a new repository is one that everybody sees.")
def export(
    run: Path, folder: Path, step: int | None, dtype: Literal["float32", "bfloat16"], push: str, public: bool
) -> None:
    """Write a checkpoint as a Hugging Face model.

    A checkpoint of RUN goes to FOLDER, which transformers can load. An adapter is merged into the weights. With --push
    the folder goes to the hub, into a private repository unless there is one by this name; the token is that of
    hf auth login, or HF_TOKEN.
    """
    from ratchet.store.run_store import RunStore

    RunStore.open(run)
    from ratchet.cli.export import export_model

    click.echo(export_model(run, folder, step, dtype, push=push, public=public))


@click.command()
@click.argument("source", metavar="RUN|MODEL", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1)
@click.option("--train", default="", metavar="CONFIG", help="Train it by this recipe; sessions come from outside.")
@click.option("--step", type=int, default=None, help="Checkpoint of RUN to serve; the last one unless given.")
@click.option("--name", default="", help="What clients call the model; the folder's name unless given.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option("--context", default=0, type=click.IntRange(min=0), help="Most tokens of prompt and answer together.")
@click.option("--rows", default=64, show_default=True, type=click.IntRange(min=1), help="Answers in one batch.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16"]))
@click.option("--max-tokens", default=0, type=click.IntRange(min=0), help="Most new tokens of an answer.")
@click.option("--max-seconds", default=600.0, show_default=True, type=click.FloatRange(min=0, min_open=True))
@click.option("--per-minute", default=6000, show_default=True, type=click.IntRange(min=1), help="Requests of a client.")
@click.option("--at-once", default=256, show_default=True, type=click.IntRange(min=1), help="Requests at once, of all.")
@click.option("--max-body", default=4 << 20, show_default=True, type=click.IntRange(min=1), help="Bytes of a request.")
@click.option("--plain", is_flag=True, help="With --train: plain lines even on a terminal.")
@click.pass_context
def serve(
    command: click.Context, /, source: Path, settings: tuple[str, ...], train: str, plain: bool, **options: object
) -> None:
    """Serve a model over OpenAI's API: RUN|MODEL

    A checkpoint of RUN, or a Hugging Face folder, answers chat completions (tools and streams too) and completions
    until Ctrl-C. On another address than this machine's own, clients need the token in RATCHET_SERVE_TOKEN as API key.

    With --train CONFIG [KEY=VALUE ...] it is trained meanwhile: each session key is an attempt, and rewards are posted.
    """
    from ratchet.cli.serve_training import Training, check_words, serve_training

    typed = {n for n in command.params if command.get_parameter_source(n) is click.core.ParameterSource.COMMANDLINE}
    check_words(typed - {"source", "settings"}, config=train, settings=settings)
    if train:
        address = {name: options[name] for name in ("host", "port") if name in typed}
        asked = Training(source, options["step"], train, settings, address)  # type: ignore[arg-type]  # as below
        serve_training(asked, plain=plain)
        return
    from ratchet.cli.serve import Asked, serve_model

    serve_model(Asked(source=source, **options))  # type: ignore[arg-type]  # click has checked them
