"""``star-lsp bench latency``: how long a developer waits for a suggestion."""

import asyncio
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from star.errors import BenchError
from star_lsp.cli.benching import alone, ending, model_folder, progress
from star_lsp.cli.state import as_json, err
from star_lsp.settings import Settings

if TYPE_CHECKING:
    from star_lsp.cli.latency.summary import Measured

__all__ = ["latency"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


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
    help="Rows of each file, or lines of a Python file, to type.",
)
@click.option(
    "--pace",
    type=click.Choice(["human", "fast"]),
    default="human",
    show_default=True,
    help="A key each 120 to 250 ms, taking back what is not answered; or each as soon as there is an answer.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn.")
@click.option(
    "--model",
    default=Settings().model,
    show_default=True,
    metavar="NAME|FOLDER",
    help="An installed model, or the folder of one.",
)
@click.option("--peer", type=click.Choice(["llama.cpp"]), help="Type the same into this one too, in turn.")
@click.option("--gguf", type=_FILE, metavar="FILE", help="The same model for the peer.")
@click.option(
    "--rates/--no-rates", default=True, help="Whether to measure tokens a second too, on a long prompt."
)
@click.option(
    "--repairs",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Wrong suggestions to flag and have repaired, typing meanwhile.",
)
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("star-latency"),
    show_default=True,
    metavar="DIR",
    help="Where results go.",
)
@as_json
def latency(
    files: tuple[Path, ...],
    rows: int,
    pace: Literal["human", "fast"],
    seed: int,
    model: str,
    peer: str | None,
    gguf: Path | None,
    rates: bool,
    repairs: int,
    folder: Path,
    as_json: bool,
) -> None:
    """Type code into a real server, key by key, and measure how long its suggestions take.

    A suggestion is accepted when all of it is what comes next. Results go to DIR: latency.jsonl has a line
    for each request as soon as it is over, latency.md the tables, latency.svg the plot. Ctrl-C ends it with
    what was measured. Your own cases and patches are not touched.
    """
    if (peer is None) != (gguf is None):
        raise click.UsageError("--peer and --gguf go together: name the peer, and the model's file for it.")
    for library in ["matplotlib", *(["xllamacpp"] if peer else [])]:
        if find_spec(library) is None:
            raise BenchError(
                f"This benchmark needs {library}, not installed here; run: pip install 'star-lsp[bench]'."
            )
    where = model_folder(model)
    from star_lsp.cli.latency.run import Asked, run
    from star_lsp.cli.latency.summary import Measured
    from star_lsp.cli.latency.trace import traces

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = Asked(traces(files, rows, seed), pace, seed, where.absolute(), gguf, threads, rates, repairs)
    measured = Measured()
    console = err()
    with alone(folder), ending():
        try:
            with progress(console) as on_progress:
                asyncio.run(run(asked, folder, measured, on_progress))
        except KeyboardInterrupt:
            if measured.requests:
                _written(measured, folder, _about(model, pace, rows, threads, "stopped before its end"))
            click.echo(f"Stopped; what was measured is in {folder}.", err=True)
            raise SystemExit(130) from None
        table = _written(measured, folder, _about(model, pace, rows, threads, "run to its end"))
    if as_json:
        from star_lsp.cli.latency.summary import told

        click.echo(json.dumps(told(measured)))
    else:
        click.echo(table)


def _about(model: str, pace: str, rows: int, threads: int, end: str) -> str:
    """What a reader must know to judge the figures."""
    from star.bench.machine import commit, machine, versions
    from star_lsp.cli.latency.summary import WITHOUT_MODEL_MILLISECONDS

    here = machine()
    parts = ", ".join(f"{name} {version}" for name, version in versions().items())
    return "\n".join(
        [
            f"- {model}, pace {pace}, up to {rows} rows of each file; {end}.",
            f"- {here['cpu']}, {here['cores']} cores, {threads} threads for each server; {parts}.",
            f"- Commit {commit(Path(__file__).parent) or 'unknown'}.",
            "- A request that the next key took back would have taken longer than it was waited for: a "
            "percentile with > is a lower bound. There is no ratio to one.",
            f"- An answer within {WITHOUT_MODEL_MILLISECONDS:.0f} ms counts as one without the model; "
            "ratios count it as one of that time, since nobody sees the difference.",
            "- The peer has the prompt layout of its editor plugins, one slot, prompt cache, no sampling, "
            "and what they remember of shown text; what they ask for ahead of an acceptance it has not.",
            "- At rest, during a repair and after it the same keys are typed; they begin no suggestion.",
        ]
    )


def _written(measured: "Measured", folder: Path, about: str) -> str:
    """The tables; written to the folder with the plot."""
    from star_lsp.cli.latency.figure import draw
    from star_lsp.cli.latency.summary import markdown

    tables = markdown(measured)
    text = f"# Waiting for a suggestion\n\n{about}\n\n{tables}\n\n![shares over time](latency.svg)\n"
    (folder / "latency.md").write_text(text, "utf-8")
    (folder / "latency.svg").write_text(draw(measured), "utf-8")
    return tables
