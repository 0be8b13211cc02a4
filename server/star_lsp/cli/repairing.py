"""Repairs that a command runs itself, one after another, with their progress."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from star_lsp import jobs
from star_lsp.catalogue import Installed
from star_lsp.cli.state import short
from star_lsp.perform import Repair, new_repair, perform, why
from star_lsp.process import Process
from star_lsp.reverts import Checked, Reverted, check, checking
from star_lsp.settings import Settings
from star_lsp.store import Store

__all__ = ["LATER", "Done", "repair_in_turn", "solve_rest", "step_bar", "taught_table", "tell_reasons"]

#: When a check that could not be made is made.
LATER = "a server does it, as soon as one runs"

OnStep = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one case."""

    id: str
    solved: bool
    before: str | None
    after: str | None
    steps: int
    seconds: float
    patch: str | None
    reason: str | None


async def repair_in_turn(
    store: Store,
    model: Installed,
    plan: Callable[[Sequence[str]], Sequence[Repair]],
    settings: Settings,
    console: Console,
    on_done: Callable[[Sequence[Done]], None] = lambda _: None,
) -> list[Done]:
    """What became of every case of the repairs; the worker is gone when this ends, however it ends.

    A check that is still due comes first, as a repair would be judged by cases that are no longer solved;
    ``plan`` has the repairs, given what that found broken.
    """
    done: list[Done] = []
    broken: Sequence[str] = ()
    async with _worker(model) as process:
        if without := store.unchecked(model.base):
            found = await _check(store, model, checking(without), settings, process, console)
            if isinstance(found, Checked):
                broken = found.broken
                word = f"Checked what is left without {', '.join(without)}: {found}."
            else:
                word = f"What is left could not be checked ({LATER}): {found.reason}"
            console.print(word, markup=False, soft_wrap=True)
        repairs = plan(broken)
        for number, repair in enumerate(repairs, 1):
            count = f" {number}/{len(repairs)}" if len(repairs) > 1 else ""
            with step_bar(console, f"Repairing{count}") as on_step:
                now = await _one(store, model, repair, settings, process, on_step)
            done += now
            on_done(now)
    return done


async def solve_rest(
    store: Store,
    model: Installed,
    reverted: Reverted,
    settings: Settings,
    console: Console,
    *,
    and_repair: bool,
) -> tuple[Checked | jobs.Failed | None, list[Done]]:
    """What is no longer solved after a revert, and what became of that and of what was left pending by it."""
    found = None
    cases = list(reverted.rest)
    async with _worker(model) as process:
        if reverted.leaned_on:
            found = await _check(store, model, checking(reverted.patches), settings, process, console)
        if isinstance(found, Checked):
            cases += found.broken
        if not cases or not and_repair:
            return found, []
        with step_bar(console, "Repairing") as on_step:
            repair = new_repair(cases, from_base=False)
            return found, await _one(store, model, repair, settings, process, on_step)


@asynccontextmanager
async def _worker(model: Installed) -> AsyncIterator[Process]:
    process = Process(model.folder)
    try:
        yield process
    finally:
        await process.end()


@contextmanager
def step_bar(console: Console, title: str) -> Iterator[OnStep]:
    """Where a repair can tell a message and a percentage: a bar, or lines where no terminal listens."""
    if not console.is_terminal:

        def line(message: str, percent: int) -> None:
            console.print(f"  {percent:3d} % {message}", markup=False, soft_wrap=True)

        yield line
        return
    columns = (
        TextColumn("  {task.fields[title]}"),
        BarColumn(bar_width=14),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("starting", total=100, title=title)
        yield lambda message, percent: bars.update(task, completed=percent, description=message)


def taught_table(done: Sequence[Done]) -> Table:
    """The outcome of repairs, for people."""
    table = Table()
    table.add_column("case", no_wrap=True)
    table.add_column("solved")
    table.add_column("before", overflow="fold")
    table.add_column("after", overflow="fold")
    table.add_column("steps", justify="right")
    table.add_column("patch", no_wrap=True)
    for each in done:
        table.add_row(
            Text(each.id),
            Text("✓", "green") if each.solved else Text("✗", "red"),
            Text(short(each.before or "")),
            Text(short(each.after or "")),
            Text(str(each.steps)),
            Text(each.patch or ""),
        )
    return table


def tell_reasons(console: Console, reasons: Mapping[str, str | None]) -> None:
    """Write every reason that there is once, after the cases that it is for, a line each."""
    for reason, ids in why({id_: reason for id_, reason in reasons.items() if reason}).items():
        console.print(Text.assemble((", ".join(ids), "bold"), f": {reason}"), soft_wrap=True)


async def _check(
    store: Store, model: Installed, repair: Repair, settings: Settings, process: Process, console: Console
) -> Checked | jobs.Failed:
    """What is no longer solved without the patches that left."""
    with step_bar(console, "Checking") as on_step:
        return await check(
            store, model.base, process, repair, settings,
            lambda progress: on_step(progress.phase, progress.percent),
        )  # fmt: skip


async def _one(
    store: Store, model: Installed, repair: Repair, settings: Settings, process: Process, on_step: OnStep
) -> list[Done]:
    """What became of the cases of one repair."""
    started = time.monotonic()

    def on_progress(progress: jobs.Progress) -> None:
        on_step(progress.phase, progress.percent)

    answer = await perform(store, model.base, process, repair, settings, on_progress, ask_before=True)
    if isinstance(answer, jobs.Failed):
        seconds = time.monotonic() - started
        return [Done(id_, False, None, None, 0, seconds, None, answer.reason) for id_ in repair.cases]
    taught = {case.id: case for case in answer.cases}
    done = []
    for id_ in repair.cases:
        if id_ not in taught:
            done.append(Done(id_, False, None, None, 0, 0.0, None, "The case was deleted meanwhile."))
            continue
        case, stored = taught[id_], store.case(id_)
        patch = stored.patch if case.solved and answer.digest else None
        reason = stored.reason if case.solved else case.reason
        done.append(
            Done(
                id_, case.solved, case.before, case.after or None, answer.steps, answer.seconds, patch, reason
            )
        )
    return done
