"""``star-lsp cases``: list, show and delete cases."""

import json
from typing import Any, cast, get_args

import click
from rich.table import Table
from rich.text import Text

from star_lsp.cli.state import IdGroup, again, apart, as_json, case_ids, opened, out, short
from star_lsp.errors import StoreError
from star_lsp.listing import case_info
from star_lsp.reverts import take_back
from star_lsp.store import Case, Status
from star_lsp.wire import unstructure

__all__ = ["cases"]

_STYLES = {"solved": "green", "failed": "red", "repairing": "yellow", "reverted": "dim"}


@click.group(cls=IdGroup, invoke_without_command=True)
@click.option("--status", type=click.Choice(get_args(Status)), help="Only the cases of one status.")
@as_json
@click.pass_context
def cases(context: click.Context, status: str | None, as_json: bool) -> None:
    """The cases: what you flagged, and what became of it.

    Without a command, a list; `star-lsp cases ID` shows one case in full.
    """
    if context.invoked_subcommand is not None:
        if status or as_json:
            raise click.UsageError(
                "--status and --json go behind the command: star-lsp cases show ID --json."
            )
        return
    with opened() as store:
        found = store.cases(cast(Status | None, status))
    if as_json:
        click.echo(json.dumps(unstructure([case_info(case) for case in found])))
    elif found:
        for title, mine in apart(found, lambda case: case.model):
            out().print(_table(mine, title))
    else:
        click.echo(
            "No case yet: flag a wrong completion in your editor." if not status else f"No {status} case."
        )


@cases.command()
@click.argument("id_", metavar="ID", shell_complete=case_ids())
@as_json
def show(id_: str, as_json: bool) -> None:
    """Show one case in full."""
    with opened() as store:
        case = store.case(id_)
    if as_json:
        click.echo(json.dumps(_fields(case)))
        return
    console = out()
    console.print(Text.assemble((case.id, "bold"), "  ", (case.status, _STYLES.get(case.status, ""))))
    where = f"{case.uri}:{case.line + 1}:{case.character + 1}" if case.uri else "no file"
    for name, value in (
        ("where", where),
        ("language", case.language),
        ("patch", case.patch or ""),
        ("model", case.model),
        ("reason", case.reason or ""),
        ("note", case.note),
        ("flagged", case_info(case).created_at),
    ):
        if value:
            console.print(Text.assemble((f"  {name:<9}", "dim"), value), soft_wrap=True)
    before = "\n".join(case.prefix.split("\n")[-6:])
    after = "\n".join(case.suffix.split("\n")[:4])
    for name, text, style in (("rejected", case.rejected, "red"), ("expected", case.expected, "green")):
        console.print(Text(f"\n{name}:", "bold"))
        console.print(Text.assemble(before, (text, f"{style} underline"), after), soft_wrap=True)


@cases.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=case_ids())
@as_json
def delete(ids: tuple[str, ...], as_json: bool) -> None:
    """Forget cases; one that an active patch covers must be reverted first."""
    with opened() as store:
        for id_ in ids:
            store.case(id_)  # all are there, or none is deleted
        for id_ in dict.fromkeys(ids):
            store.delete_case(id_)
    click.echo(json.dumps({"deleted": list(ids)}) if as_json else f"Deleted {', '.join(ids)}.")


@cases.command()
@click.argument("id_", metavar="ID", shell_complete=case_ids())
@as_json
def undo(id_: str, as_json: bool) -> None:
    """Undo a flag: forget the case, and take back the patch that solves it.

    What leaned on that patch is checked by a server, as soon as one runs; `star-lsp revert` does that itself,
    `delete` then forgets.
    """
    with opened() as store:
        case = store.case(id_)
        was, pending = case.status, []
        if case.status == "repairing":
            raise StoreError(f"Case {id_} is being repaired; cancel that, or wait for its end, then undo.")
        active = store.active()
        if case in store.solved_by(active):
            pending = list(take_back(store, active, case=id_).rest)
        store.delete_case(id_)
    if as_json:
        click.echo(json.dumps({"was": was, "pending": pending}))
        return
    click.echo(f"Undone: {id_} was {was}, and is forgotten.")
    if pending:
        click.echo(f"Pending again: {', '.join(pending)} ({again(case.model)}).")


def _table(found: list[Case], title: Text | None) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("case", "status", "patch"):
        table.add_column(column, no_wrap=True)
    for column in ("rejected", "expected", "reason"):
        table.add_column(column, overflow="fold")
    for case in found:
        texts = (short(case.rejected), short(case.expected), case.reason or "")
        table.add_row(
            case.id, Text(case.status, _STYLES.get(case.status, "")), case.patch or "", *map(Text, texts)
        )
    return table


def _fields(case: Case) -> dict[str, Any]:
    """A case in full, for JSON."""
    return {
        **unstructure(case_info(case)),
        "prefix": case.prefix,
        "suffix": case.suffix,
        "note": case.note,
        "revision": case.revision,
    }
