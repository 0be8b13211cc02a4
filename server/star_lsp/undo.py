"""Undoing a flag, however far its repair has come: nothing is left of it."""

from star_lsp.errors import ServerError, StoreError
from star_lsp.patience import patiently
from star_lsp.protocol import CaseStatus
from star_lsp.repairs import Repairs
from star_lsp.store import Store

__all__ = ["undo"]


async def undo(store: Store, repairs: Repairs | None, id_: str) -> CaseStatus:
    """What a case was, before it was forgotten: its repair is stopped, or its patch reverted.

    Raises:
        NotFound: there is no such case.
        StoreError: another process is at work on it, or its patch is for another model.
        ServerError: there is no model yet, which would have to change.
    """
    was: CaseStatus = store.case(id_).status
    if repairs is None:
        if _patch(store, id_):
            raise ServerError(
                f"Case {id_} is solved by a patch, and there is no model yet to take that from; "
                "undo it when the model is ready (star.status)."
            )
        await patiently(store.delete_case, id_)
        return was
    await repairs.withdraw(id_)  # nobody has begun with it, or has gone live with it, after this
    if store.case(id_).status == "repairing":
        raise StoreError(
            f"Case {id_} is being repaired by another process (another window, or the command line); "
            "cancel that, or wait for its end, then undo again."
        )
    if patch := _patch(store, id_):
        if not any(each.id == patch for each in repairs.history()):
            raise StoreError(
                f"Case {id_} is solved by patch {patch}, which is for another model than the one in use; "
                f"take it back on the command line (star-lsp revert {id_}), then undo again."
            )
        was = "solved"
        await repairs.revert(case=id_)
    await patiently(store.delete_case, id_)
    return was


def _patch(store: Store, id_: str) -> str | None:
    """The active patch that solves a case."""
    case = store.case(id_)
    return case.patch if case in store.solved_by(store.active()) else None
