"""``star-lsp logs``: what the server that all editors share has logged."""

import os
import time
from collections import deque
from pathlib import Path

import click

from star_lsp.logfile import file_in
from star_lsp.places import places

__all__ = ["logs"]

_LOOK_SECONDS = 0.3


@click.command()
@click.option("-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is logged, until Ctrl-C.")
@click.option("--path", is_flag=True, help="Say only which file it is.")
def logs(lines: int, follow: bool, path: bool) -> None:
    """Show the end of the log of the server that all editors share.

    It rotates at 1 MB, three older files are kept, and it holds no code above level debug.
    """
    file = file_in(places(os.environ).data)
    if path:
        click.echo(file)
        return
    if not file.exists() and not follow:
        click.echo(f"Nothing has been logged yet; it will be in {file}.", err=True)
        return
    at = 0
    if file.exists():
        with file.open(encoding="utf-8", errors="replace") as log:
            for line in deque(log, lines):
                click.echo(line, nl=False)
            at = log.tell()
    while follow:
        time.sleep(_LOOK_SECONDS)
        at = _more(file, at)


def _more(file: Path, at: int) -> int:
    """Shows what came after a place in a file, which may have begun anew; where it ends now."""
    try:
        with file.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(at if at <= size else 0)
            some = log.read()
            click.echo(some.decode("utf-8", "replace"), nl=False)
            return log.tell()
    except FileNotFoundError:
        return 0
