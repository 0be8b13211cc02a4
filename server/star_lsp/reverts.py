"""Taking back what was done: a patch leaves the history, and the rest is checked without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from star_lsp import jobs
from star_lsp.errors import NotFound, StoreError
from star_lsp.patience import patiently
from star_lsp.perform import Repair, alone, make_job, new_repair, run
from star_lsp.process import Process
from star_lsp.settings import Settings
from star_lsp.store import Patch, Store

__all__ = ["Checked", "Reverted", "check", "checking", "take_back"]


@dataclass(frozen=True, slots=True)
class Reverted:
    """What was taken out of the history."""

    base: str
    patches: tuple[str, ...]
    #: Cases that are pending again: their patch went for another one's sake.
    rest: tuple[str, ...]
    #: Whether what is left is to be checked: it was made while they were there, and may have leaned on them.
    leaned_on: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """How many cases were asked for under the history that is left, and which are no longer solved."""

    cases: int
    broken: tuple[str, ...]

    def __str__(self) -> str:
        """What to tell the developer."""
        if not self.cases:  # perhaps as another process has just asked
            return "no case was left to ask for"
        if not self.broken:
            return f"all other cases that were solved are so still: {self.cases}"
        return f"{len(self.broken)} of {self.cases} cases no longer solved: {', '.join(self.broken)}"


def take_back(
    store: Store,
    active: Sequence[Patch],
    *,
    patch: str | None = None,
    case: str | None = None,
    check: bool = True,
) -> Reverted:
    """What was taken out of the history: a patch, or every patch that was made for a case.

    Cases that another patch solves by now stay solved. With ``check`` off nothing is to be checked.

    Raises:
        NotFound: no active patch is meant.
        StoreError: one of another model is.
    """

    def is_meant(each: Patch) -> bool:
        return patch in (None, each.id) and (case is None or case in each.cases)

    name = patch if case is None else case
    meant = [each for each in active if is_meant(each)]
    if not meant and any(map(is_meant, store.active())):
        raise StoreError(
            f"{name} is of another model than the one in use; take it back on the command line "
            f"(star-lsp revert {name})."
        )
    if not meant:
        raise NotFound(f"No active patch is or covers {name}; `star-lsp patches` lists those there are.")
    base = meant[-1].base
    gone = tuple(each.id for each in meant if each.base == base)
    ids = dict.fromkeys(id_ for each in meant if each.id in gone for id_ in each.cases)
    known = store.known(ids)
    made_for = [id_ for id_ in ids if id_ in known]
    reverted = [id_ for id_ in made_for if case in (None, id_) and (known[id_].patch or gone[0]) in gone]
    rest = tuple(id_ for id_ in made_for if case not in (None, id_) and known[id_].patch in gone)
    return Reverted(base, gone, rest, store.deactivate(gone, reverted, rest, check=check))


def checking(patches: Sequence[str]) -> Repair:
    """The work to find out what is no longer solved without some patches."""
    return replace(new_repair([], from_base=False), without=tuple(patches))


async def check(
    store: Store,
    base: str,
    process: Process,
    repair: Repair,
    settings: Settings,
    on_progress: Callable[[jobs.Progress], None],
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> Checked | jobs.Failed:
    """The solved cases that the history no longer solves, pending again, with the reason, when this returns.

    Every solved case is asked for, be its own patch older or newer than those that left: a newer one was
    judged only together with these. Whatever left the history up to the end of the check is meant; nothing is
    asked where another process has checked that meanwhile.

    Cancelled, or failed, it leaves the store as it is: the check stays to be made.

    Raises:
        StoreError: the store cannot be used.
    """
    async with alone(store, cancelled) as our_turn:
        while our_turn and not cancelled():
            without = store.unchecked(base)
            if not without:
                return Checked(0, ())
            active = store.active(base)
            job = replace(make_job(store, repair, [], active, settings), check=True, accepted=())
            broken: Sequence[str] = ()
            if job.hold:
                on_progress(jobs.Progress(repair.id, "starting", 0))
                answer = await run(process, job, base, on_progress, cancelled)
                if isinstance(answer, jobs.Failed):
                    return answer
                broken = answer.verdict.get("gate", {}).get("broken", ())
            reason = f"No longer solved without patch {', '.join(without)}."
            here = [each.id for each in active]
            reopened = await patiently(store.checked, base, broken, reason, here)
            if reopened is not None:  # or the history has changed meanwhile
                return Checked(len(job.hold), tuple(reopened))
    return jobs.Failed(repair.id, "The check was cancelled.", cancelled=True)
