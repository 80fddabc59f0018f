"""The command ``ratchet``: its subcommands in the order people need them, and how errors end it.

Exit codes: 0 fine, 1 a run failed, 2 the user's input cannot be used; `doctor` adds 3 and 4. Each subcommand imports
what it needs when it runs, so that help stays quick.
"""

from __future__ import annotations

import sys

import click

from ratchet import __version__
from ratchet.cli.commands import looking, making, playing, showing, training, watching
from ratchet.cli.exits import EXIT_FAILED, EXIT_INPUT
from ratchet.core.errors import ConfigError, EngineError, RatchetError


class Commands(click.Group):
    """Prints our errors as one sentence and turns them into exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ConfigError, EngineError) as error:
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


for _command in (
    training.train,
    training.resume,
    training.sweep,
    training.explain,
    training.check_reward,
    training.algorithms,
    looking.status,
    watching.watch,
    watching.board,
    looking.rollouts,
    looking.view,
    playing.evaluate,
    playing.play,
    playing.selfplay,
    making.bugs,
    playing.serve,
    showing.chart,
    showing.report,
    looking.compare,
    looking.logs,
    looking.doctor,
    playing.export,
):
    main.add_command(_command)
