"""``star-lsp patches`` and ``revert``: what was done to the model, and taking it back."""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from star.history import revision
from star_lsp import jobs
from star_lsp.catalogue import installed
from star_lsp.cli.changes import compared_table, moved_table
from star_lsp.cli.repairing import LATER, Done, solve_rest, taught_table, tell_reasons
from star_lsp.cli.state import (
    IdGroup,
    again,
    apart,
    as_json,
    err,
    opened,
    out,
    patch_ids,
    revertible_ids,
    short,
)
from star_lsp.compares import comparison
from star_lsp.errors import NotFound, StoreError
from star_lsp.listing import patch_info, when
from star_lsp.moved import moved
from star_lsp.places import places
from star_lsp.reverts import Checked, Reverted, take_back
from star_lsp.settings import Settings
from star_lsp.store import Patch, Store
from star_lsp.wire import unstructure

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
        names = {model.base: model.name for model in installed(places(os.environ).models)}

        def model(patch: Patch) -> str:
            return names.get(patch.base, f"a model that is not here (base {patch.base[:12]})")

        for title, mine in apart(found, model):
            out().print(_table(mine, title))
    else:
        click.echo("No patch yet: the model is as it was downloaded.")


@patches.command()
@click.argument("id_", metavar="ID", shell_complete=patch_ids)
@as_json
def show(id_: str, as_json: bool) -> None:
    """Show one patch: its cases before and after, what moved, what the gate found, and how it compares."""
    with opened() as store:
        patch = store.patch(id_)
        rejected = {case.id: case.rejected for case in store.cases()}
        compared = comparison(store, id_)
        path = store.patch_path(id_)
    if as_json:
        told = {**unstructure(patch_info(patch)), "comparison": unstructure(compared)}
        click.echo(json.dumps(told))
        return
    console = out()
    state = ("active", "green") if patch.active else ("not active", "dim")
    console.print(Text.assemble((patch.id, "bold"), "  ", state))
    console.print(
        Text(f"  went live {when(patch.created)} as revision {patch.revision}", "dim"), soft_wrap=True
    )
    if patch.verdict:
        _tell_verdict(console, patch.verdict, rejected)
    else:
        console.print("  It has no verdict.")
    try:
        console.print(moved_table(moved(path)))
    except StoreError as error:
        console.print(Text(str(error), "yellow"), soft_wrap=True)
    if compared:
        console.print(compared_table(compared))


def _tell_verdict(console: Console, verdict: Mapping[str, Any], rejected: Mapping[str, str]) -> None:
    """Write the cases before and after, and what the gate found."""
    table = Table(title="Cases", title_justify="left")
    for column in ("case", "solved", "before", "after"):
        table.add_column(column, overflow="fold", no_wrap=column == "case")
    for case in verdict["cases"]:
        before = case["before"] if case["before"] is not None else rejected.get(case["id"], "")
        mark = Text("✓", "green") if case["solved"] else Text("✗", "red")
        table.add_row(case["id"], mark, Text(short(before, 80)), Text(short(case["after"], 80)))
    console.print(table)
    tell_reasons(console, {case["id"]: case["reason"] for case in verdict["cases"]})
    console.print(verdict_text(verdict))


def verdict_text(verdict: Any) -> RenderableType:
    """What moved, what the gate found against its limits, what was tried before, and what it took."""
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
    parts: list[RenderableType] = [moved, found]
    if tried := verdict.get("attempts"):
        parts.append(_tried(tried, verdict["method"]))
    return Group(*parts, Text("\n".join(_spent(verdict)), "dim"))


def _tried(attempts: Sequence[Any], method: Mapping[str, object]) -> Table:
    """What was tried before, by where it differed from what went live, and what stood against it."""
    table = Table(title="What was tried before", title_justify="left")
    for column in ("with", "steps", "solved", "what stood against it"):
        table.add_column(column, overflow="fold", justify="right" if column == "steps" else "left")
    for each in attempts:
        other = {name: value for name, value in each["method"].items() if method.get(name) != value}
        against = "; ".join(each["reasons"]) or "not all were solved"
        solved = f"{each['solved']} of {each['cases']}"
        table.add_row(Text(_settings(other) or "the same"), str(each["steps"]), solved, Text(against))
    return table


def _spent(verdict: Any) -> Iterator[str]:
    """What the patch took, and how it was made."""
    neurons = sum(layer["neurons"] for layer in verdict["layers"])
    size = f"{len(verdict['layers'])} layers, {neurons} neurons in all, {_size(verdict['sizeBytes'])} on disk"
    steps = verdict["steps"]
    yield f"{steps} step{'s' * (steps != 1)}, {verdict['seconds']:.0f} s; {size}"
    if asked := verdict.get("asked"):
        yield f"method {asked['method']}" + f", {asked['strength']}" * (asked["method"] != "star")
    if method := verdict.get("method"):
        yield f"with {_settings(method)}"


def _settings(method: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in method.items()
    )


@click.command()
@click.argument("id_", metavar="PATCH|CASE", shell_complete=revertible_ids)
@click.option("--no-check", is_flag=True, help="Do not ask whether the cases that are left are still solved.")
@click.option("--no-repair", is_flag=True, help="Leave the cases that are no longer solved pending.")
@as_json
def revert(id_: str, no_check: bool, no_repair: bool, as_json: bool) -> None:
    """Take back a patch, or one case.

    The model is rebuilt from the base without it; a running server notices by itself. When a patch
    stands for several cases and one of them is reverted, the others are solved again at once. So are cases
    whose own patch leaned on what was taken back: all that are left are checked. Where that cannot be done or
    is cut off, a server does it as soon as one runs, or the next star-lsp repair.

    The exit status is 1 when not all of that could be done.
    """
    with opened() as store:
        active = store.active()
        whole = any(patch.id == id_ for patch in active)
        if not whole and any(patch.id == id_ for patch in store.patches()):
            raise NotFound(
                f"Patch {id_} is not active, so nothing of it is left; `star-lsp patches` lists all."
            )
        reverted = take_back(store, active, check=not no_check, **{"patch" if whole else "case": id_})
        try:
            found, done = _rest(store, reverted, not no_repair)
        except (KeyboardInterrupt, asyncio.CancelledError):
            unchecked = f" What is left is not checked; {LATER}." if store.unchecked(reverted.base) else ""
            click.echo(
                f"Stopped; {id_} is reverted, and the rest as far as it came (star-lsp cases).{unchecked}",
                err=True,
            )
            raise SystemExit(130) from None
        now = revision(reverted.base, [each.digest for each in store.active(reverted.base)])
        broken = found.broken if isinstance(found, Checked) else ()
        left = [*reverted.rest, *broken]
        pending = [case for case in left if store.case(case).status != "solved"]
        command = again(store.case(pending[0]).model if pending else "")
    solved = [each.id for each in done if each.solved]
    if as_json:
        told = {
            "revision": now,
            "patchId": reverted.patches[-1],
            "patchIds": list(reverted.patches),
            "checked": found.cases if isinstance(found, Checked) else None,
            "broken": list(broken),
            "solvedAgain": solved,
            "pending": pending,
        }
        click.echo(json.dumps(told))
    else:
        click.echo(f"Reverted {id_}; the revision is {now}.")
        if isinstance(found, Checked):
            click.echo(f"Checked: {found}.")
        if done:
            out().print(taught_table(done))
            tell_reasons(out(), {each.id: each.reason for each in done})
        elif pending:
            click.echo(f"Pending again: {', '.join(pending)} ({command}).")
    if isinstance(found, jobs.Failed):
        click.echo(f"What is left could not be checked ({LATER}): {found.reason}", err=True)
    if (done and pending) or isinstance(found, jobs.Failed):
        raise SystemExit(1)


def _rest(
    store: Store, reverted: Reverted, and_repair: bool
) -> tuple[Checked | jobs.Failed | None, list[Done]]:
    """What is no longer solved after a revert, and what became of the cases that are pending by it."""
    for model in installed(places(os.environ).models):
        if model.base == reverted.base:
            settings = replace(Settings(), model=model.name)
            return asyncio.run(solve_rest(store, model, reverted, settings, err(), and_repair=and_repair))
    if reverted.leaned_on:
        return jobs.Failed("", "The model that it is for is not here; pull it, then start the server."), []
    return None, []


def _table(found: list[Patch], title: Text | None) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("patch", "state"):
        table.add_column(column, no_wrap=True)
    table.add_column("cases", overflow="fold", min_width=len(found[0].id))
    table.add_column("revision", overflow="fold")
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
