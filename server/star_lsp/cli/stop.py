"""``star-lsp stop``: end the server that all editors share."""

import json
import os
import time
from contextlib import suppress

import click
import psutil

from star_lsp.cli.state import as_json
from star_lsp.errors import ListenError
from star_lsp.places import places
from star_lsp.protocol import STOP
from star_lsp.running import ask, servers

__all__ = ["stop"]

_SECONDS = 10.0


@click.command()
@click.option("--force", is_flag=True, help="Kill a server that does not answer.")
@as_json
def stop(force: bool, as_json: bool) -> None:
    """End the server that all editors share.

    Nothing is lost: cases are on disk, and a repair that is cut off is made again. An editor that is
    connected may start a new one.
    """
    ended = []
    for place, told in servers(places(os.environ).data):
        process = None
        with suppress(psutil.Error):
            process = psutil.Process(told.pid)
        ours = process is not None and _is_ours(process)  # once it is told, it may be gone before one looks
        with suppress(ListenError):  # one that is asked while it ends may not get to answer
            ask(place, STOP)
        if process is None or not ours:
            continue
        try:
            process.wait(_SECONDS)
        except psutil.TimeoutExpired as error:
            if not force:
                raise ListenError(
                    f"The server {told.pid} does not end; kill it by `star-lsp stop --force`."
                ) from error
            process.kill()
            process.wait(_SECONDS)
        ended.append(told.pid)
    _settle()
    if as_json:
        click.echo(json.dumps({"ended": ended}))
    else:
        click.echo(f"Ended {', '.join(map(str, ended))}." if ended else "No server runs.")


def _is_ours(process: psutil.Process) -> bool:
    """Whether a process is a server: its number may have passed to another one."""
    try:
        return "star_lsp" in process.cmdline() or any("star-lsp" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _settle() -> None:
    """Give the system the moment in which it frees a lock."""
    time.sleep(0.05)
