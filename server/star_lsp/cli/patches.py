"""``star-lsp patches`` and ``revert``: what was done to the model, and taking it back."""

import asyncio
import json
import os
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from star.history import revision
from star_lsp.catalogue import installed
from star_lsp.cli.repairing import Done, repair_in_turn, taught_table
from star_lsp.cli.state import IdGroup, as_json, err, opened, out, patch_ids, revertible_ids, short
from star_lsp.errors import NotFound
from star_lsp.listing import patch_info, when
from star_lsp.perform import new_repair, take_back
from star_lsp.places import places
from star_lsp.protocol import unstructure
from star_lsp.settings import Settings
from star_lsp.store import Patch, Store

__all__ = ["patches", "revert", "verdict_text"]


@click.group(cls=IdGroup, invoke_without_command=True)
@as_json
@click.pass_context
def patches(context: click.Context, as_json: bool) -> None:
    """The patches: what was changed in the model, in order.

    Without a command, a list; `star-lsp patches ID` shows the verdict of one.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json goes behind the command: star-lsp patches show ID --json.")
        return
    with opened() as store:
        found = store.patches()
    if as_json:
        click.echo(json.dumps(unstructure([patch_info(patch) for patch in found])))
    elif found:
        out().print(_table(found))
    else:
        click.echo("No patch yet: the model is as it was downloaded.")


@patches.command()
@click.argument("id_", metavar="ID", shell_complete=patch_ids)
@as_json
def show(id_: str, as_json: bool) -> None:
    """Show one patch: its cases before and after, what moved, and what the gate found."""
    with opened() as store:
        patch = store.patch(id_)
        rejected = {case.id: case.rejected for case in store.cases()}
    if as_json:
        click.echo(json.dumps(unstructure(patch_info(patch))))
        return
    console = out()
    state = ("active", "green") if patch.active else ("not active", "dim")
    console.print(Text.assemble((patch.id, "bold"), "  ", state))
    console.print(
        Text(f"  went live {when(patch.created)} as revision {patch.revision}", "dim"), soft_wrap=True
    )
    verdict = patch.verdict
    if not verdict:
        console.print("  It has no verdict.")
        return
    table = Table(title="Cases", title_justify="left")
    for column in ("case", "before", "after"):
        table.add_column(column, overflow="fold", no_wrap=column == "case")
    for case in verdict["cases"]:
        if case["solved"]:
            before = case["before"] if case["before"] is not None else rejected.get(case["id"], "")
            table.add_row(case["id"], Text(short(before, 80)), Text(short(case["after"], 80)))
    console.print(table, verdict_text(verdict))


def verdict_text(verdict: Any) -> RenderableType:
    """What moved, and what the gate found against its limits."""
    moved = Table(title="What moved (rows of output projections)", title_justify="left")
    for column in ("layer", "neurons", "norm of delta", "largest entry"):
        moved.add_column(column, justify="right")
    for layer in verdict["layers"]:
        moved.add_row(
            str(layer["layer"]), str(layer["neurons"]), f"{layer['norm']:.3f}", f"{layer['largest']:.3f}"
        )
    gate = verdict["gate"]
    limits = gate["limits"]
    found = Table(title="The gate", title_justify="left")
    for column in ("what must hold", "found", "limit"):
        found.add_column(column, justify="left" if column == "what must hold" else "right")
    found.add_row("earlier cases still solved", f"{gate['still_solved']} of {gate['cases']}", "all")
    found.add_row(
        "accepted completions unchanged", f"{gate['accepted_unchanged']} of {gate['accepted']}", "all"
    )
    found.add_row(
        f"tokens unchanged, of {gate['positions']}",
        f"{gate['unchanged']:.1%}",
        f"≥ {limits['min_unchanged']:.1%}",
    )
    found.add_row("mean KL divergence, nats a token", f"{gate['kl']:.2g}", f"≤ {limits['max_kl']:.2g}")
    spent = Text(
        f"{verdict['steps']} steps, {verdict['seconds']:.0f} s, {_size(verdict['sizeBytes'])} on disk", "dim"
    )
    return Group(moved, found, spent)


@click.command()
@click.argument("id_", metavar="PATCH|CASE", shell_complete=revertible_ids)
@click.option("--no-repair", is_flag=True, help="Leave the other cases of the patch pending.")
@as_json
def revert(id_: str, no_repair: bool, as_json: bool) -> None:
    """Take back a patch, or one case.

    The model is rebuilt from the base without it; a running server notices by itself. When a patch
    stands for several cases and one of them is reverted, the others are solved again at once.
    """
    with opened() as store:
        active = [patch for patch in store.patches() if patch.active]
        whole = any(patch.id == id_ for patch in active)
        if not whole and any(patch.id == id_ for patch in store.patches()):
            raise NotFound(
                f"Patch {id_} is not active, so nothing of it is left; `star-lsp patches` lists all."
            )
        patch, rest = take_back(store, active, **{"patch" if whole else "case": id_})
        done: list[Done] = []
        if rest and not no_repair:
            done = _solve_again(store, patch.base, rest, err())
        now = revision(patch.base, [each.digest for each in store.active(patch.base)])
        pending = [case for case in rest if store.case(case).status != "solved"]
    solved = [each.id for each in done if each.solved]
    if as_json:
        click.echo(
            json.dumps({"revision": now, "patchId": patch.id, "solvedAgain": solved, "pending": pending})
        )
    else:
        click.echo(f"Reverted {id_}; the revision is {now}.")
        if done:
            out().print(taught_table(done))
        elif pending:
            click.echo(f"Pending again, as their patch is gone: {', '.join(pending)} (star-lsp repair).")
    if done and pending:
        raise SystemExit(1)


def _solve_again(store: Store, base: str, cases: list[str], console: Console) -> list[Done]:
    """What became of the cases whose patch was taken back for another's sake."""
    for model in installed(places(os.environ).models):
        if model.fingerprint == base:
            repair = new_repair(cases, from_base=False)
            return asyncio.run(repair_in_turn(store, model, [repair], Settings(), console))
    return []


def _table(found: list[Patch]) -> Table:
    table = Table()
    for column in ("patch", "state", "cases", "revision"):
        table.add_column(column, no_wrap=column != "cases")
    for column in ("steps", "KL", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    for patch in found:
        state = Text("active", "green") if patch.active else Text("not active", "dim")
        numbers = ["", "", ""]
        if verdict := patch.verdict:
            numbers = [str(verdict["steps"]), f"{verdict['gate']['kl']:.1g}", _size(verdict["sizeBytes"])]
        table.add_row(patch.id, state, " ".join(patch.cases), patch.revision, *numbers)
    return table


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
