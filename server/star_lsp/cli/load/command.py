"""``star-lsp bench load``: many editors at work on one server, for long."""

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from star_lsp.cli.benching import alone, ending, model_folder, progress
from star_lsp.cli.state import as_json, err
from star_lsp.settings import Settings

if TYPE_CHECKING:
    from star_lsp.cli.load.summary import Load

__all__ = ["load"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MINUTES = 10.0
#: A day of typing, at 140 keys for each minute in which one types at all.
_DAY_KEYS = 200_000


@click.command()
@click.option(
    "--data",
    "files",
    multiple=True,
    required=True,
    type=_FILE,
    metavar="FILE",
    help="Rows of HumanEval infilling (.jsonl), or a Python file; give it again for more.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Rows of each file, or lines of a Python file, that every editor types again and again.",
)
@click.option(
    "--editors", type=click.IntRange(1, 32), default=8, show_default=True, metavar="N", help="Who share it."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help=f"How long; without it {_MINUTES:.0f}, and with --fast as long as the keys take.",
)
@click.option("--fast", is_flag=True, help="Hit each key as soon as there is an answer to the one before.")
@click.option(
    "--keys",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"With --fast: end after so many keys of all editors; {_DAY_KEYS:,} (a day) without it.",
)
@click.option(
    "--flag-every",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="One editor after another flags its last wrong suggestion; 0: none does.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn.")
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
    default=Path("star-load"),
    show_default=True,
    metavar="DIR",
    help="Where results go.",
)
@as_json
def load(
    files: tuple[Path, ...],
    rows: int,
    editors: int,
    minutes: float | None,
    fast: bool,
    keys: int | None,
    flag_every: float,
    seed: int,
    model: str,
    folder: Path,
    as_json: bool,
) -> None:
    """Have many editors type into one server, with repairs going on, and measure what becomes of it.

    Whether all editors wait alike, what goes wrong, and what grows: memory, open handles, the store. What is
    flagged is what was suggested wrongly; there are at most four repairs at a time, the oldest is taken back.
    Results go to DIR: load.jsonl has a line for each request and each look at the server, load.md the tables.
    Ctrl-C ends it with what was measured. Your own server, cases and patches are not touched.
    """
    if keys is not None and not fast:
        raise click.UsageError("--keys goes with --fast: people type as fast as people do; give --minutes.")
    where = model_folder(model)
    from star_lsp.cli.latency.trace import traces
    from star_lsp.cli.load.run import Asked, run
    from star_lsp.cli.load.summary import Load

    if fast:
        most, seconds = keys or _DAY_KEYS, minutes * 60 if minutes else None
    else:
        most, seconds = None, (minutes or _MINUTES) * 60
    asked = Asked(
        traces(files, rows, seed), editors, "fast" if fast else "human", seconds, most, flag_every or None,
        seed, where.absolute(),
    )  # fmt: skip
    measured = Load()
    with alone(folder), ending():
        try:
            with progress(err()) as on_progress:
                asyncio.run(run(asked, folder, measured, on_progress))
        except KeyboardInterrupt:
            if measured.requests:
                _written(measured, folder, _about(model, asked.pace, "stopped before its end"))
            click.echo(f"Stopped; what was measured is in {folder}.", err=True)
            raise SystemExit(130) from None
        tables = _written(measured, folder, _about(model, asked.pace, "run to its end"))
    if as_json:
        from star_lsp.cli.load.summary import told

        click.echo(json.dumps(told(measured)))
    else:
        click.echo(tables)


def _about(model: str, pace: str, end: str) -> str:
    """What a reader must know to judge the figures."""
    from star.bench.machine import commit, machine, versions

    here = machine()
    parts = ", ".join(f"{name} {number}" for name, number in versions().items())
    busy = ", ".join(f"{each:.1f}" for each in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    return "\n".join(
        [
            f"- {model}, pace {pace}; {end}.",
            f"- {here['cpu']}, {here['cores']} cores; {parts}; load average at the end {busy}.",
            f"- Commit {commit(Path(__file__).parent) or 'unknown'}.",
            "- A key is a character that is typed, or the one that takes a suggestion. A day of typing is "
            f"{_DAY_KEYS:,} keys: 140 for each minute in which one types at all.",
            "- Waited for are the first request in a file and the one at the end of its line; the next key "
            "takes any other back, so that its percentiles are lower bounds (>).",
            "- Warm-up is the first fifth of the run, two minutes at most; growth is told by medians over a "
            "tenth of the rest, at its beginning and at its end.",
        ]
    )


def _written(measured: "Load", folder: Path, about: str) -> str:
    """The tables; written to the folder too."""
    from star_lsp.cli.load.summary import markdown

    tables = markdown(measured)
    (folder / "load.md").write_text(f"# Many editors, one server\n\n{about}\n\n{tables}\n", "utf-8")
    return tables
