"""``star-lsp`` itself: its commands by their names, and what it does without one."""

import logging
import os
import sys
from typing import ClassVar

import click

from star.errors import StarError
from star_lsp import __version__
from star_lsp.cli import share

__all__ = ["cli", "run"]


class _Lazy(click.Group):
    """A group whose commands are imported when they are named: serving starts at once."""

    _WHERE: ClassVar = {
        "bench": "bench",
        "cases": "cases",
        "complete": "complete",
        "demo": "demo",
        "logs": "logs",
        "doctor": "doctor",
        "model": "model",
        "patches": "patches",
        "purge": "purge",
        "repair": "repair",
        "revert": "patches",
        "serve": "serve",
        "status": "status",
        "stop": "stop",
    }

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(self._WHERE)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._WHERE:
            return None
        from importlib import import_module

        found: click.Command = getattr(import_module(f"star_lsp.cli.{self._WHERE[name]}"), name)
        return found


@click.group(
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="star-lsp")
@click.option("--stdio", is_flag=True, help="Serve LSP on standard input and output (the default).")
@click.option(
    "--standalone",
    is_flag=True,
    help="Serve from this very process, and share neither it nor its model with other editors.",
)
@click.option(
    "--log-level",
    type=click.Choice(["error", "warning", "info", "debug"]),
    default="info",
    show_default=True,
    help="With --standalone: how much goes to standard error; code appears at debug only.",
)
@click.pass_context
def cli(context: click.Context, stdio: bool, standalone: bool, log_level: str) -> None:
    """A language server with a local code model whose wrong completions you can mend.

    Without a command it serves LSP on standard input and output, for an editor to talk to. All editors of
    a user share one server, which is started when the first one comes and ends some time after the last.

    The shell completes commands and the ids of cases and patches, once it is told so, in bash by
    eval "$(_STAR_LSP_COMPLETE=bash_source star-lsp)"; zsh_source and fish_source are there too.
    """
    if context.invoked_subcommand is None:
        if sys.stdin.isatty() and not (stdio or standalone):
            click.echo(context.get_help())
        elif standalone:
            stand_alone(log_level)
        else:
            share()


def stand_alone(log_level: str) -> None:
    """Serve one client on standard input and output, until it leaves."""
    # Standard output is the wire: whatever a library prints goes to standard error instead.
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    from star_lsp import logfile
    from star_lsp.engine import Engine
    from star_lsp.listen import alone
    from star_lsp.places import places
    from star_lsp.service import Service

    logfile.begin(log_level)
    status = 1
    try:
        status = alone(Service(places(os.environ), Engine()), sys.stdin.buffer, wire)
    finally:
        # Threads may still be computing; all that matters is on disk.
        logging.shutdown()
        os._exit(status)


def run() -> None:
    """Run the command line; what click and star refuse is one sentence, too."""
    try:
        cli.main(prog_name="star-lsp", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        raise KeyboardInterrupt from None
    except StarError as error:
        click.echo(f"star-lsp: {error}", err=True)
        sys.exit(2)
