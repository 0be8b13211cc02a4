"""``star-lsp bench``: repair methods against one another, completions timed, load, on data of yours."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from star_lsp.cli.benching import Asked, alone, measure
from star_lsp.cli.latency.command import latency
from star_lsp.cli.load.command import load
from star_lsp.cli.state import as_json, err, out
from star_lsp.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from star.bench.results import Line

__all__ = ["bench"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MEASURES = ("effectiveness", "generalization", "robustness", "specificity")
_COUNT = click.IntRange(min=0)
_SHORT = (
    "solved",
    "near",
    "distant",
    "robust",
    "neighbours",
    "unchanged",
    "kl",
    "seconds",
    "passes",
    "patch",
)


@click.group()
def bench() -> None:
    """Measure repair methods against one another, how long completions take, and what load does."""


bench.add_command(latency)
bench.add_command(load)


@bench.command("repair")
@click.option(
    "--data",
    "files",
    multiple=True,
    required=True,
    type=_FILE,
    metavar="FILE",
    help="Rows to teach, JSON Lines; give it again for more data sets.",
)
@click.option(
    "--recipe",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "plain", "intent", "conala", "tldr", "ia32", "api-drift"]),
    help="What the fields of a row mean; auto tells by their names.",
)
@click.option("--template", metavar="TEXT", help="What stands before the cursor, with {intent} in it.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="A method, or a pattern such as 'star-batch-*'; without it, ours and its peers.",
)
@click.option(
    "--rows",
    type=click.Choice(["tuning", "figures", "all"]),
    default="figures",
    show_default=True,
    help="Every second row is for choosing settings, the others for figures.",
)
@click.option(
    "--tuning",
    "tuning",
    multiple=True,
    type=_FILE,
    metavar="FILE",
    help="Choose settings on the rows of FILE instead, so that --rows all has no row in both.",
)
@click.option(
    "--tuning-rows",
    type=_COUNT,
    default=8,
    show_default=True,
    metavar="N",
    help="Rows of each data set to choose settings on; 0: take the published ones.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rows of each data set, of those that the model gets wrong; otherwise all of them.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=Settings().repair.max_steps,
    show_default=True,
    help="Most steps of one repair.",
)
@click.option(
    "--measure",
    "measures",
    multiple=True,
    type=click.Choice(_MEASURES),
    help="What to measure; give it again for more. Without it, everything.",
)
@click.option("--humaneval", type=_FILE, metavar="FILE", help="HumanEval, as code that nothing should touch.")
@click.option(
    "--humaneval-rows",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Programs of it to look at after each repair.",
)
@click.option(
    "--infilling",
    type=_FILE,
    metavar="FILE",
    help="HumanEval single-line infilling, run in a subprocess during a lifelong run.",
)
@click.option(
    "--infilling-rows",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Programs of it to fill in and run.",
)
@click.option("--singles/--no-singles", default=True, help="Whether each row is repaired by itself (it is).")
@click.option(
    "--lifelong", type=_COUNT, default=0, metavar="N", help="Repair N rows one after another on one model."
)
@click.option(
    "--lifelong-method",
    "lifelong_methods",
    multiple=True,
    default=("ours",),
    show_default=True,
    metavar="NAME",
    help="A method for that.",
)
@click.option("--gate/--no-gate", default=True, help="Whether a lifelong run has the gate (it has).")
@click.option(
    "--batch", type=_COUNT, default=0, metavar="N", help="Also repair N rows of each data set as one system."
)
@click.option(
    "--model",
    default=Settings().model,
    show_default=True,
    metavar="NAME|FOLDER",
    help="An installed model, or the folder of one.",
)
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("star-bench"),
    show_default=True,
    metavar="DIR",
    help="Where results go.",
)
@click.option("--resume/--fresh", default=True, help="Go on with a run that is there, or put it aside.")
@as_json
def repair_(folder: Path, resume: bool, as_json: bool, **asked: object) -> None:
    """Repair the rows of data files by several methods, and measure what each did.

    Results go to DIR/results.jsonl, one line for each repair, as soon as they are there; at the end tables go
    to DIR/report.md and a page with plots to DIR/report.html. Stopped by Ctrl-C or by anything else, the same
    command goes on.
    """
    with alone(folder):
        try:
            measure(Asked(**asked), folder, err(), fresh=not resume)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            again = "the same command" if resume else "the same command without --fresh"
            click.echo(
                f"Stopped; what was measured is in {folder}, and {again} goes on from there.", err=True
            )
            raise SystemExit(130) from None
    _told(folder, as_json)


@bench.command("report")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@as_json
def report_(folder: Path, as_json: bool) -> None:
    """Make the tables and the page anew from DIR/results.jsonl, of a run that is over or not."""
    _told(folder, as_json)


def _told(folder: Path, as_json: bool) -> None:
    """Write the reports, and say what is in them."""
    from star.bench.report import write
    from star.bench.results import read

    lines = read(folder)
    table, page = write(folder)
    if as_json:
        click.echo(json.dumps(_fields(lines, table, page)))
        return
    console = out()
    for table_ in _short_tables(lines):
        console.print(table_)
    click.echo(f"Tables: {table}\nPage:   {page}")


def _short_tables(lines: "list[Line]") -> "Iterator[Table]":
    """What fits into a terminal: figures without their intervals, and the targets."""
    from rich.table import Table
    from rich.text import Text

    from star.bench.tables import COLUMNS, data_sets, summaries, told
    from star.bench.targets import judged

    found = summaries(lines)
    for data in data_sets(found):
        mine = [each for each in found if each.data == data]
        columns = [
            each for each in COLUMNS if each.key in _SHORT and any(row.cells[each.key] for row in mine)
        ]
        shown = Table(title=Text(data), title_justify="left")
        shown.add_column("method", overflow="fold")
        for column in columns:
            shown.add_column(column.title, justify="right")
        for row in mine:
            cells = [told(row.cells[each.key], each.digits).partition(" (")[0] for each in columns]
            shown.add_row(Text(row.method), *map(Text, cells))
        yield shown
    shown = Table(title="What must hold, for ours", title_justify="left")
    for name in ("measure", "target", "seen", "met"):
        shown.add_column(name, overflow="fold")
    for target in judged(lines):
        shown.add_row(*map(Text, (target.measure, target.target, target.seen, target.met)))
    yield shown


def _fields(lines: "list[Line]", table: Path, page: Path) -> dict[str, object]:
    """What a run came to, for JSON."""
    from dataclasses import asdict

    from star.bench.tables import summaries
    from star.bench.targets import judged

    return {
        "results": os.fspath(table.with_name("results.jsonl")),
        "table": os.fspath(table),
        "page": os.fspath(page),
        "methods": [
            {
                "data": each.data,
                "method": each.method,
                "settings": dict(each.settings),
                "rows": each.rows,
                **{key: asdict(cell) if cell else None for key, cell in each.cells.items()},
            }
            for each in summaries(lines)
        ],
        "targets": [asdict(each) for each in judged(lines)],
    }
