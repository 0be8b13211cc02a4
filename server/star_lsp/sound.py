"""Whether the files of the history are what went live; a patch whose file is not is taken out."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from star_lsp.patch_file import identity
from star_lsp.patience import patiently
from star_lsp.store import Store

__all__ = ["Out", "take_out", "unsound"]


@dataclass(frozen=True, slots=True)
class Out:
    """A patch that was taken out of the history, why, and the cases that are pending again by that."""

    patch: str
    path: Path
    why: str
    cases: tuple[str, ...]

    def __str__(self) -> str:
        """What to tell the developer."""
        cases = f"Its cases are pending again ({', '.join(self.cases)}). " if self.cases else ""
        return (
            f"Patch {self.patch} is out of the history: its file {self.why} ({self.path}). All other patches "
            f"are in use. {cases}Check the disk; repair its cases again (`star-lsp repair`, "
            "with the --model that it was for)."
        )


async def take_out(store: Store, base: str) -> list[Out]:
    """The patches that cannot be served as they went live: no longer active, their cases pending.

    Every file of the history is read by a thread; the store is not used there.

    Raises:
        StoreError: the store cannot be used.
    """
    found = []
    active = [(patch, store.patch_path(patch.id)) for patch in store.active(base)]
    for patch, path in active:
        if why := await asyncio.to_thread(unsound, path, patch.digest):
            cases = [case.id for case in store.solved_by([patch]) if case.patch == patch.id]
            reason = f"The file of its patch {patch.id} {why}."
            await patiently(store.deactivate, [patch.id], [], cases, reason)
            found.append(Out(patch.id, path, why, tuple(cases)))
    return found


def unsound(path: Path, digest: str) -> str | None:
    """Why a patch's file is not the one that has this digest; None if it is."""
    from safetensors import SafetensorError

    try:
        found = identity(path)[1]
    except FileNotFoundError:
        return "is not there any more"
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        return f"cannot be read, {str(error).splitlines()[0][:100]}"
    return None if found == digest else "has been altered"
