"""``star-lsp purge``: removes what was stored, and says what."""

import json
import os
from collections.abc import Sequence
from datetime import datetime

import click
from rich.table import Table

from star_lsp.cli.state import as_json, opened, out
from star_lsp.places import places
from star_lsp.purge import Gone, Wanted
from star_lsp.purge import purge as purge_

__all__ = ["purge"]


@click.command()
@click.option("--cases", is_flag=True, help="Only cases, and the patches and comparisons made of them.")
@click.option("--accepted", is_flag=True, help="Only accepted completions.")
@click.option(
    "--before",
    metavar="DATE",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Only what is older than DATE (2026-01-31), and nothing that an active patch stands on.",
)
@click.option("--models", is_flag=True, help="The models, too; they can be pulled again.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def purge(
    cases: bool, accepted: bool, before: datetime | None, models: bool, yes: bool, as_json: bool
) -> None:
    """Remove what was stored on this machine.

    That is cases, accepted completions, patches, comparisons, logs, and backups and files of the store that
    were set aside; these last go with any part, as they hold all. The model is then as it was downloaded,
    and a running server follows at once. Nothing can be brought back.
    """
    if as_json and not yes:
        raise click.UsageError("With --json nobody can be asked; give --yes, too.")
    some = cases or accepted
    wanted = Wanted(
        cases=cases or not some,
        accepted=accepted or not some,
        logs=not some,
        models=places(os.environ).models if models else None,
        before=before.timestamp() if before else None,
    )
    with opened() as store:
        if not yes:
            there, _ = purge_(store, wanted, dry=True)
            if not there:
                click.echo("There is nothing to remove.")
                return
            out().print(_table(there))
            click.confirm("Remove all of this for good?", abort=True)
        gone, clean = purge_(store, wanted)
        left = len(store.active())
    if as_json:
        told = {each.kind: {"count": each.count, "bytes": each.bytes} for each in gone}
        click.echo(json.dumps({"removed": told, "clean": clean, "activePatches": left}))
    elif not gone:
        click.echo("There is nothing to remove.")
    else:
        if yes:
            out().print(_table(gone))
        click.echo("Removed.")
        if before and left:
            click.echo(f"Kept: {left} active patches with their cases (star-lsp revert takes them back).")
    if not clean:
        click.echo(
            "Another process held the store, so deleted text may still be in its log; close your editors, "
            "then run star-lsp purge again.",
            err=True,
        )
        raise SystemExit(1)


def _table(gone: Sequence[Gone]) -> Table:
    table = Table()
    table.add_column("what")
    for column in ("how many", "size"):
        table.add_column(column, justify="right")
    for each in gone:
        table.add_row(each.kind, str(each.count), f"{each.bytes / 1e6:,.1f} MB" if each.bytes else "")
    return table
