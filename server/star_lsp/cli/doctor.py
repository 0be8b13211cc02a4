"""``star-lsp doctor``: checks the installation, and names the remedy for each thing that is wrong."""

import json
import os
from contextlib import nullcontext

import click
from rich.text import Text

from star_lsp.checks import CHECKS, Asked, Check, Finding
from star_lsp.cli.state import as_json, err, model_option, out
from star_lsp.places import places

__all__ = ["doctor"]

_MARKS = {"fine": ("✓", "green"), "word": ("!", "yellow"), "wrong": ("✗", "red")}


@click.command()
@click.option("--deep", is_flag=True, help="Read every byte of the models, too, and compare their hashes.")
@click.option("--fix", is_flag=True, help="Put right what is safe to: permissions, and stray files.")
@model_option
@as_json
def doctor(deep: bool, fix: bool, model: str, as_json: bool) -> None:
    """Check the installation, and name the remedy for each thing that is wrong.

    Checked are versions, arithmetic, models, the store, patches, permissions, disk, stray files and
    processes. Nothing is changed without --fix. The exit status is 1 when something is wrong.
    """
    here = places(os.environ)
    asked = Asked.of(here, model, deep)
    console = err()
    found: list[tuple[str, Finding, bool]] = []
    for check in CHECKS:
        with console.status(check.__name__) if console.is_terminal and not as_json else nullcontext():
            mine = list(check(asked))
        for finding in mine:
            fixed = fix and finding.fix is not None and _fixed(finding, check, asked)
            found.append((check.__name__, finding, fixed))
            if not as_json:
                _tell(finding, fixed)
    wrong = sum(finding.level == "wrong" and not fixed for _, finding, fixed in found)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "wrong": wrong,
                    "findings": [
                        {
                            "check": name,
                            "level": finding.level,
                            "text": finding.text,
                            "remedy": finding.remedy or None,
                            "fixed": fixed,
                        }
                        for name, finding, fixed in found
                    ],
                }
            )
        )
    elif wrong:
        click.echo(f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong.")
    else:
        click.echo("Nothing is wrong.")
    raise SystemExit(1 if wrong else 0)


def _fixed(finding: Finding, check: Check, asked: Asked) -> bool:
    """Whether a fix was made, and the same is found no more."""
    assert finding.fix is not None
    try:
        finding.fix()
    except OSError:
        return False
    return finding.text not in [each.text for each in check(asked)]


def _tell(finding: Finding, fixed: bool) -> None:
    mark, style = _MARKS["fine" if fixed else finding.level]
    console = out()
    console.print(Text.assemble((mark, style), " ", finding.text, "; mended" * fixed), soft_wrap=True)
    if finding.remedy and not fixed:
        console.print(Text(f"  {finding.remedy}", "bold"), soft_wrap=True)
