"""``star-lsp serve``: the server that all editors share, in the foreground, at addresses of your choice."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import click
from filelock import FileLock, Timeout

from star_lsp import __version__, logfile
from star_lsp.address import Address, folder, parse, unwritable
from star_lsp.errors import ListenError
from star_lsp.join import TAKEN
from star_lsp.places import places

__all__ = ["serve"]

_OPEN = (
    "{} can be reached from other machines. Whoever has the token reads and completes with your model, and "
    "what is said is not encrypted: use 127.0.0.1 and a tunnel (ssh -L), or add --allow-other-machines."
)


@click.command()
@click.option(
    "--listen",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="Listen at 127.0.0.1:PORT or unix:PATH too, for clients that connect; may be said more than once.",
)
@click.option(
    "--allow-other-machines", is_flag=True, help="Let --listen name an address that others can reach."
)
@click.option(
    "--log-level",
    type=click.Choice(["error", "warning", "info", "debug"]),
    default="info",
    show_default=True,
    help="How much is logged; code appears at debug only.",
)
@click.option("--background", is_flag=True, hidden=True, help="Log to a file, and end when nobody comes.")
def serve(addresses: tuple[str, ...], allow_other_machines: bool, log_level: str, background: bool) -> None:
    """Serve all editors of this user, until stopped.

    `star-lsp --stdio` joins this server, as it does one that it has started by itself. Clients that
    connect over TCP give the token, as initializationOptions.token.
    """
    meant = [parse(each) for each in addresses]
    for each in meant:
        if not each.local and not allow_other_machines:
            raise ListenError(_OPEN.format(each))
    data = places(os.environ).data
    place = folder(data, __version__)
    lock = FileLock(place / "lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if background:
            os._exit(TAKEN)
        raise ListenError(
            "A server runs already; `star-lsp status` shows it, `star-lsp stop` ends it."
        ) from None
    except OSError as error:
        raise unwritable(data, error) from error
    status = 1
    try:
        status = _serve(data, place, meant, log_level, background)
    finally:
        lock.release()
        logging.shutdown()
        sys.stderr.flush()
        # Threads may still be computing; all that matters is on disk.
        os._exit(status)


def _serve(data: Path, place: Path, addresses: list[Address], log_level: str, background: bool) -> int:
    from star_lsp.engine import Engine
    from star_lsp.listen import Host
    from star_lsp.service import Service

    log = logfile.file_in(data) if background else None
    try:
        logfile.begin(log_level, log)
        # What a library prints, or the interpreter in its last moments, goes to the log as well.
        os.dup2(2, 1)
        host = Host(Service(places(os.environ), Engine()), place, str(log or "its standard error"))

        def ready(listening: list[str]) -> None:
            logging.getLogger(__name__).info("listening at %s", ", ".join(listening))
            if log:
                with log.open("ab") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
            else:
                told = f"Listening at {', '.join(listening)}"
                click.echo(told + (f"; the token is in {place / 'token'}" if addresses else ""), err=True)

        asyncio.run(host.serve(addresses, not background, ready))
        return 0
    except ListenError as error:
        click.echo(f"star-lsp: {error}", err=True)
        return 2
    except Exception as error:
        logging.getLogger(__name__).exception("the server failed")
        click.echo(f"star-lsp: The server failed ({error}); see its log.", err=True)
        return 1
