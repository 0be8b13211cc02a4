"""Taking back what was done: a patch leaves the history, and the rest is checked without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from star_lsp import jobs
from star_lsp.errors import NotFound
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
    #: Whether anything that is left was made while they were there, and so may have leaned on them.
    leaned_on: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """How many cases were asked for under the history that is left, and which are no longer solved."""

    cases: int
    broken: tuple[str, ...]

    def __str__(self) -> str:
        """What to tell the developer."""
        if not self.broken:
            return f"all other cases that were solved are so still: {self.cases}"
        return f"{len(self.broken)} of {self.cases} cases no longer solved: {', '.join(self.broken)}"


def take_back(
    store: Store, active: Sequence[Patch], *, patch: str | None = None, case: str | None = None
) -> Reverted:
    """What was taken out of the history: a patch, or every patch that was made for a case.

    Cases that another patch solves by now stay solved.

    Raises:
        NotFound: no active patch is meant.
    """
    meant = [each for each in active if patch in (None, each.id) and (case is None or case in each.cases)]
    if not meant:
        raise NotFound(
            f"No active patch is or covers {case or patch}; `star-lsp patches` lists those there are."
        )
    base = meant[-1].base
    gone = tuple(each.id for each in meant if each.base == base)
    known = {each.id: each for each in store.cases()}
    made_for = dict.fromkeys(id_ for each in meant if each.id in gone for id_ in each.cases if id_ in known)
    reverted = [id_ for id_ in made_for if case in (None, id_) and (known[id_].patch or gone[0]) in gone]
    rest = tuple(id_ for id_ in made_for if case not in (None, id_) and known[id_].patch in gone)
    first = min(each.position for each in meant if each.id in gone)
    later = any(each.position > first for each in active if each.base == base and each.id not in gone)
    unpatched = any(each.status == "solved" and each.patch is None for each in known.values())
    store.deactivate(gone, reverted, rest)
    return Reverted(base, gone, rest, later or unpatched)


def checking(reverted: Sequence[str]) -> Repair:
    """The work to find out what is no longer solved without some patches."""
    return replace(new_repair([], from_base=False), without=tuple(reverted))


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

    Every solved case is asked for, be its own patch older or newer than those that were taken back: a newer
    one was judged only together with these.

    Cancelled, or failed, it leaves the store as it is.

    Raises:
        StoreError: the store cannot be used.
    """
    reason = f"No longer solved without patch {', '.join(repair.without)}."
    async with alone(store, cancelled) as our_turn:
        while our_turn and not cancelled():
            active = store.active(base)
            job = replace(make_job(store, repair, [], active, settings), check=True, accepted=())
            if not job.hold:
                return Checked(0, ())
            on_progress(jobs.Progress(repair.id, "starting", 0))
            answer = await run(process, job, base, on_progress, cancelled)
            if isinstance(answer, jobs.Failed):
                return answer
            broken = answer.verdict.get("gate", {}).get("broken", ())
            reopened = await patiently(store.reopen, base, broken, reason, [each.id for each in active])
            if reopened is not None:  # or the history has changed meanwhile
                return Checked(len(job.hold), tuple(reopened))
    return jobs.Failed(repair.id, "The check was cancelled.", cancelled=True)
