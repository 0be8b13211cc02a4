"""``star-lsp repair``: solve cases of the store, or of a file, here and now."""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from star.history import earlier_bases
from star_lsp.catalogue import Installed
from star_lsp.cli.case_file import Written, read_cases
from star_lsp.cli.repairing import Done, repair_in_turn, taught_table, tell_reasons
from star_lsp.cli.state import again, as_json, case_ids, err, model_option, opened, out, the_model
from star_lsp.perform import Repair, carry_over, new_repair
from star_lsp.settings import Settings
from star_lsp.store import Store

__all__ = ["repair"]

_NOTHING = "No case is pending: there is nothing to repair."


@click.command()
@click.argument("ids", metavar="[CASE]...", nargs=-1, shell_complete=case_ids())
@click.option(
    "--all",
    "all_",
    is_flag=True,
    help="All cases that the model has not learnt: those that failed, too, and those of other models.",
)
@click.option(
    "--cases",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Take the cases from FILE, one JSON object a line with prefix, suffix, expected, rejected "
    "and language; - is standard input.",
)
@click.option(
    "--from-base/--on-top",
    default=None,
    help="Solve them together with all solved cases from the pristine base, one patch replacing all "
    "(the default), or on top of the patches that are there (the default for --one-by-one).",
)
@click.option("--one-by-one", is_flag=True, help="One repair for each case, in turn; otherwise one for all.")
@click.option("--dry-run", is_flag=True, help="Try it, and keep neither cases nor patches.")
@click.option(
    "--strength",
    type=click.Choice(["gentle", "normal", "strong"]),
    default=Settings().repair.strength,
    show_default=True,
    help="How much of the model may change.",
)
@click.option(
    "--method",
    type=click.Choice(["ours", "star"]),
    default=Settings().repair.method,
    show_default=True,
    help="How it is repaired; star is STAR as published: ten steps, and no margin.",
)
@model_option
@as_json
def repair(
    ids: tuple[str, ...],
    all_: bool,
    file: str | None,
    from_base: bool | None,
    one_by_one: bool,
    dry_run: bool,
    strength: str,
    method: str,
    model: str,
    as_json: bool,
) -> None:
    """Repair the model for all pending cases, or for some.

    A case is of the model that it was flagged in; one of another model is taught as this model's own.
    Where a revert was cut off, what is left is checked first, and what is no longer solved is repaired too.
    A running server takes the patch over by itself. With --json, one object a line for each case.
    The exit status is 0 when all are solved, 1 when some are not or the check failed, 2 for bad input.
    """
    if (bool(ids) + all_ + (file is not None)) > 1:
        raise click.UsageError("Name cases, or give --all, or --cases FILE: only one of the three.")
    written = read_cases(file) if file is not None else []
    if hidden := sorted({kind for each in written for kind in each.masked}):
        click.echo(f"Masked, as it looks like a secret: {', '.join(hidden)}.", err=True)
    found = the_model(model)
    settings = Settings()
    how = replace(settings.repair, strength=strength, method=method)
    settings = replace(settings, model=found.name, repair=how)
    with ExitStack() as stack:
        store = stack.enter_context(opened())
        if dry_run:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="star-lsp-")))
            store = store.snapshot(folder)
            stack.callback(store.close)
        carry_over(store, earlier_bases(found.fingerprint, found.weights))
        if not written:
            ids = _asked(store, found, ids, all_)
        if not ids and not written and not store.unchecked(found.base):
            if not as_json:
                click.echo(_nothing(store, found))
            return
        if written:
            ids = _kept(store, written, found)
        ids = tuple(store.taken(ids, found.base, found.name))
        whole = from_base if from_base is not None else not one_by_one

        def plan(broken: Sequence[str]) -> list[Repair]:
            cases = list(dict.fromkeys([*ids, *broken]))
            groups = [[case] for case in cases] if one_by_one or not cases else [cases]
            return [new_repair(group, from_base=whole) for group in groups]

        def on_done(done: Sequence[Done]) -> None:
            if as_json:
                for each in done:
                    click.echo(json.dumps(_fields(each, dry_run)))

        try:
            done = asyncio.run(repair_in_turn(store, found, plan, settings, err(), on_done))
        except (KeyboardInterrupt, asyncio.CancelledError):
            kept = "nothing was kept" if dry_run else "cases that are not solved yet are pending"
            click.echo(f"Stopped; {kept}.", err=True)
            raise SystemExit(130) from None
        unchecked = store.unchecked(found.base)
    if not (done or as_json):
        click.echo(_NOTHING)
    elif not as_json:
        out().print(taught_table([replace(each, patch=None) for each in done] if dry_run else done))
        tell_reasons(out(), {each.id: each.reason for each in done})
        if dry_run:
            click.echo("A dry run: neither cases nor patches were kept.")
    raise SystemExit(0 if all(each.solved for each in done) and not unchecked else 1)


def _asked(store: Store, model: Installed, ids: tuple[str, ...], all_: bool) -> tuple[str, ...]:
    """The cases that are meant.

    Raises:
        NotFound: one does not exist.
    """
    if ids:
        return tuple(store.case(id_).id for id_ in ids)
    wanted = ("pending", "failed") if all_ else ("pending",)
    ours = [case.id for case in store.of_model(model.base, model.name) if case.status in wanted]
    return (*ours, *(store.untaught(model.base, model.name) if all_ else ()))


def _nothing(store: Store, model: Installed) -> str:
    """What to say where nothing is to be done."""
    untaught = len(store.untaught(model.base, model.name))
    more = f" Other models have {untaught} that it has not; {again(model.name)} --all teaches them."
    return _NOTHING + more * bool(untaught)


def _kept(store: Store, written: Sequence[Written], model: Installed) -> tuple[str, ...]:
    """The ids of the cases of a file: new ones, or the same of this model that are there already."""
    known: dict[tuple[str, str, str], str] = {}
    for case in store.of_model(model.base, model.name):
        known.setdefault(case.wish, case.id)
    for each in written:
        wish = each.prefix, each.suffix, each.expected
        if wish not in known:
            known[wish] = store.add_case(
                prefix=each.prefix,
                suffix=each.suffix,
                expected=each.expected,
                rejected=each.rejected,
                language=each.language,
                note=each.note,
                model=model.name,
            ).id
    return tuple(known[each.prefix, each.suffix, each.expected] for each in written)


def _fields(done: Done, dry_run: bool) -> dict[str, object]:
    """What became of a case, for JSON."""
    return {
        "id": done.id,
        "solved": done.solved,
        "before": done.before,
        "after": done.after,
        "steps": done.steps,
        "seconds": round(done.seconds, 2),
        "patchId": None if dry_run else done.patch,
        "reason": done.reason,
    }
