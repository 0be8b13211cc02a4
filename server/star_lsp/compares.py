"""What a patch has changed: the model is asked around its flagged places, without it and with it."""

from collections.abc import Callable
from dataclasses import asdict, replace

from star_lsp import jobs
from star_lsp.errors import ServerError, StoreError
from star_lsp.patience import patiently
from star_lsp.perform import Repair, alone, new_repair, run
from star_lsp.process import Process
from star_lsp.protocol import Compared
from star_lsp.settings import Settings
from star_lsp.store import Store
from star_lsp.wire import structure, unstructure

__all__ = ["compare", "comparing", "comparison"]

#: The first cases of a patch are compared; a batch may have hundreds.
_CASES = 4
#: What it may take for each case, about.
_SECONDS = 20.0


def comparing(store: Store, base: str, patch: str) -> Repair:
    """The work to compare a patch.

    Raises:
        NotFound: there is no such patch.
        StoreError: its file is gone.
        ServerError: it is for another model, or nothing is left to ask for.
    """
    found = store.patch(patch)
    if found.base != base:
        raise ServerError(
            f"Patch {patch} is for another model than the one in use; restart with that model (setting "
            "model), then compare again."
        )
    if not store.patch_path(patch).exists():
        raise StoreError(
            f"The file of patch {patch} is not there any more ({store.patch_path(patch)}; of patches that "
            "are not active, only the newest are kept); take it from a backup, or repair its cases again."
        )
    if not _teach(store, found.cases):
        raise ServerError(f"All cases of patch {patch} were deleted, so there is no place to compare at.")
    return replace(new_repair([], from_base=False), compare=patch)


async def compare(
    store: Store,
    base: str,
    process: Process,
    repair: Repair,
    settings: Settings,
    on_progress: Callable[[jobs.Progress], None],
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Compared] | jobs.Failed:
    """What the model writes without and with the patch ``repair.compare``; kept when this returns.

    An active patch is taken out of the history for it, and one that was reverted is put behind it. The
    history itself stays as it is.

    Raises:
        ServerError: it cannot be compared any more.
    """
    async with alone(store, cancelled) as our_turn:
        if not our_turn or cancelled():
            return jobs.Failed(repair.id, "The comparison was cancelled.", cancelled=True)
        comparing(store, base, repair.compare)  # it may have waited for long
        patch = store.patch(repair.compare)
        active = [each.id for each in store.active(base)]
        without = [id_ for id_ in active if id_ != patch.id]
        with_ = active if patch.active else [*active, patch.id]
        job = jobs.Job(
            id=repair.id,
            history=_paths(store, without),
            teach=_teach(store, patch.cases),
            max_seconds=_SECONDS,
            prefix_tokens=settings.completion.prefix_tokens,
            suffix_tokens=settings.completion.suffix_tokens,
            max_tokens=settings.completion.max_tokens,
            compare=_paths(store, with_),
        )
        on_progress(jobs.Progress(repair.id, "starting", 0))
        answer = await run(process, job, base, on_progress, cancelled)
        if isinstance(answer, jobs.Failed):
            return answer
        found = [
            structure(Compared, {"caseId": fields.pop("case"), **fields})
            for fields in map(asdict, answer.compared)
        ]
        await patiently(store.keep_comparison, patch.id, unstructure(found))
        return found


def comparison(store: Store, patch: str) -> list[Compared] | None:
    """What is kept of the last comparison; None where there was none."""
    kept = store.comparison(patch)
    return None if kept is None else [structure(Compared, each) for each in kept]


def _paths(store: Store, ids: list[str]) -> tuple[str, ...]:
    return tuple(str(store.patch_path(id_)) for id_ in ids)


def _teach(store: Store, ids: tuple[str, ...]) -> tuple[jobs.Teach, ...]:
    known = store.known(ids)
    cases = [known[id_] for id_ in ids if id_ in known][:_CASES]
    return tuple(jobs.Teach(case.id, case.prefix, case.suffix, case.expected) for case in cases)
