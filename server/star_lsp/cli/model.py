"""``star-lsp model``: list, pull, import and remove models, and choose what one computes with."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from star.history import Weights
from star_lsp.catalogue import DEFAULT, Installed, import_, installed, locate, pull, remove
from star_lsp.entries import ENTRIES
from star_lsp.installed import write
from star_lsp.places import places
from star_lsp.progress import OnProgress, Progress

__all__ = ["model", "progress_bars"]

as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a table.")


def _models() -> Path:
    """The folder of the models."""
    return places(os.environ).models


def _completed(names: Callable[[], list[tuple[str, str]]]) -> Callable[..., list[CompletionItem]]:
    """A shell completion of names, each with a word on it."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name, help=about) for name, about in names() if name.startswith(incomplete)]

    return complete


def _catalogue_names() -> list[tuple[str, str]]:
    """What can be pulled by name."""
    return [(entry.name, entry.summary) for entry in ENTRIES]


def _installed_names() -> list[tuple[str, str]]:
    """What can be removed."""
    return [(found.name, found.source) for found in installed(_models())]


@click.group()
def model() -> None:
    """The models: list, pull, import and remove them."""


@model.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the models that are installed and those that can be pulled."""
    here = installed(_models())
    if as_json:
        names = {found.name for found in here}
        rows = [{**_fields(found), "installed": True, "default": found.name == DEFAULT} for found in here]
        rows += [
            {
                "name": entry.name,
                "licence": entry.licence,
                "downloadBytes": entry.content.size,
                "bytes": entry.converted_size,
                "installed": False,
                "default": entry.name == DEFAULT,
            }
            for entry in ENTRIES
            if entry.name not in names
        ]
        click.echo(json.dumps(rows))
        return
    table = Table()
    for column in ("model", "state", "base"):
        table.add_column(column, no_wrap=True)
    table.add_column("about")
    by_name = {entry.name: entry for entry in ENTRIES}
    for found in here:
        known = by_name.pop(found.name, None)
        about = f"{known.summary if known else found.source}; {found.licence}{_mark(found.name)}"
        table.add_row(found.name, f"{_size(found.size)} here", found.base[:12], about)
    for entry in by_name.values():
        about = f"{entry.summary}; {entry.licence}{_mark(entry.name)}"
        table.add_row(entry.name, f"{_size(entry.content.size)} to pull", "", about)
    Console().print(table)


@model.command("pull")
@click.argument("name", default=DEFAULT, shell_complete=_completed(_catalogue_names))
@as_json
def pull_(name: str, as_json: bool) -> None:
    """Download a model and convert it, once; NAME is one of the catalogue or a hub id (owner/name)."""
    with progress_bars() as on_progress:
        _show(pull(name, _models(), on_progress), as_json)


@model.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="What to call it; otherwise the file's or folder's name.")
@as_json
def import__(path: Path, name: str | None, as_json: bool) -> None:
    """Take a model that you have: a Hugging Face folder or a GGUF file at PATH."""
    with progress_bars() as on_progress:
        _show(import_(path, _models(), name, on_progress), as_json)


@model.command("weights")
@click.argument("name", shell_complete=_completed(_installed_names))
@click.argument("weights", type=click.Choice(get_args(Weights)))
@as_json
def weights_(name: str, weights: Weights, as_json: bool) -> None:
    """Choose what an installed model computes with: int8, or its weights as they are stored.

    With int8 it writes more than twice as fast, in little more than half the memory. Repairs are for the
    one with which they were made, and come back with it; a server that runs uses the other from its next
    start on.
    """
    found = replace(locate(name, _models()), weights=weights)
    write(found)
    _show(found, as_json)


@model.command("remove")
@click.argument("name", shell_complete=_completed(_installed_names))
@as_json
def remove_(name: str, as_json: bool) -> None:
    """Remove an installed model, or what an unfinished pull of it has left."""
    remove(name, _models())
    click.echo(json.dumps({"removed": name}) if as_json else f"Removed {name}.")


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Where a pull can tell its progress: bars with bytes, rate and time left on standard error."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(progress: Progress) -> None:
            if progress.note:
                bars.console.print(progress.note, markup=False, highlight=False)
                return
            if progress.phase not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, completed=next(t.total for t in bars.tasks if t.id == earlier))
                tasks[progress.phase] = bars.add_task(progress.phase, total=progress.total)
            bars.update(tasks[progress.phase], completed=progress.done, total=progress.total)

        yield on_progress


def _show(found: Installed, as_json: bool) -> None:
    """Writes which model is here now."""
    if as_json:
        click.echo(json.dumps(_fields(found)))
    else:
        click.echo(
            f"{found.name} is installed: {found.folder} ({_size(found.size)}, base {found.base[:12]})."
        )


def _fields(found: Installed) -> Mapping[str, object]:
    """An installed model, for JSON."""
    return {
        "name": found.name,
        "folder": str(found.folder),
        "fingerprint": found.fingerprint,
        "weights": found.weights,
        "base": found.base,
        "modelType": found.model_type,
        "source": found.source,
        "licence": found.licence,
        "sha256": found.sha256,
        "bytes": found.size,
    }


def _mark(name: str) -> str:
    """A mark on the model that is used unless another is asked for."""
    return "; the default" if name == DEFAULT else ""


def _size(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
