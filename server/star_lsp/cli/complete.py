"""``star-lsp complete``: what the model writes at a place in a file, as the server would show it."""

import asyncio
import json
import os
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import click

from star_lsp.cli.state import as_json, err, model_option, opened, the_model
from star_lsp.completion import Completions, Place
from star_lsp.engine import Engine
from star_lsp.errors import ServerError
from star_lsp.settings import Settings

__all__ = ["PlaceError", "complete"]

_LINE_END = re.compile("\r\n|\n|\r")


class PlaceError(ServerError):
    """A place in a file cannot be found."""


@click.command()
@click.argument("place", metavar="FILE:LINE:COL")
@model_option
@as_json
def complete(place: str, model: str, as_json: bool) -> None:
    """Write what the model completes at a place in a file.

    LINE and COL count from 1, COL in UTF-16 units as editors do: 1 is left of the first character.
    The patches of your history count, as in the server. The model is loaded anew each time.
    """
    where = _place(place)
    found = the_model(model)
    with opened() as store:
        history = [store.patch_path(patch.id) for patch in store.active(found.base)]
    console = err()
    with console.status("Loading the model") if console.is_terminal else nullcontext():
        text, revision, milliseconds, reason = asyncio.run(_complete(where, found.folder, history, model))
    if as_json:
        click.echo(
            json.dumps(
                {"text": text, "revision": revision, "milliseconds": round(milliseconds, 1), "reason": reason}
            )
        )
    elif reason:
        click.echo(f"No completion: {reason}", err=True)
    else:
        click.echo(text)


async def _complete(
    place: Place, folder: Path, history: list[Path], model: str
) -> tuple[str, str, float, str | None]:
    """The text shown at a place (empty for none), the revision, the time without loading, and why none."""
    engine = Engine()
    try:
        revision = await engine.load(folder, history)
        completions = Completions(engine, lambda: model)
        started = time.perf_counter()
        # Nobody types meanwhile: on a busy machine the text shall be late rather than cut short.
        settings = replace(Settings().completion, time_budget_milliseconds=120_000)
        shown = await completions.complete(place, settings)
        milliseconds = (time.perf_counter() - started) * 1000
    finally:
        engine.close()
        engine.join()
    if shown is None:
        return "", revision, milliseconds, completions.reasons[-1].reason
    return shown.text, revision, milliseconds, None


def _place(given: str) -> Place:
    """The place that ``FILE:LINE:COL`` names.

    Raises:
        PlaceError: it names none.
    """
    name, *numbers = given.rsplit(":", 2)
    if len(numbers) != 2 or not name or not all(re.fullmatch("[0-9]{1,9}", each) for each in numbers):
        raise PlaceError(f"{given} is no place; write FILE:LINE:COL, with LINE and COL from 1.")
    line, column = map(int, numbers)
    path = Path(name)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlaceError(f"{name} is not UTF-8 (at byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise PlaceError(f"{name} cannot be read ({error.strerror}); name a file that is there.") from error
    lines = _LINE_END.split(text)
    if not 1 <= line <= len(lines):
        raise PlaceError(
            f"{name} has {len(lines)} lines and no line {line}; name one from 1 to {len(lines)}."
        )
    units = lines[line - 1].encode("utf-16-le")
    last = len(units) // 2 + 1
    if not 1 <= column <= last:
        raise PlaceError(
            f"Line {line} of {name} has no column {column}; name one from 1 to {last} (its end)."
        )
    try:
        left = units[: 2 * (column - 1)].decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise PlaceError(
            f"Column {column} of line {line} is inside a character of two UTF-16 units; "
            f"name {column - 1} or {column + 1}."
        ) from error
    before, after = lines[: line - 1], lines[line:]
    prefix = "\n".join([*before, left])
    suffix = "\n".join([lines[line - 1][len(left) :], *after])
    absolute = path.absolute()
    return Place(absolute.as_uri(), os.fspath(absolute), "", line - 1, column - 1, prefix, suffix)
