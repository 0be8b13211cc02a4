"""All that is known of one patch, and how long a repair takes by what earlier ones took."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from star_lsp.compares import comparison
from star_lsp.installed import installed
from star_lsp.listing import case_info, patch_info
from star_lsp.moved import moved
from star_lsp.protocol import CaseContext, MovedLayer, PatchReport
from star_lsp.store import Case, Patch, Store

__all__ = ["SECONDS", "patch_report", "seconds"]

#: Lines of a case that are shown above and below its place.
_ABOVE, _BELOW = 20, 10
#: What a repair takes for each of its cases while none has been made here (two cores, the default model).
SECONDS = 10.0
#: Newest patches that an estimate goes by.
_RECENT = 10


async def patch_report(store: Store, id_: str, models: Path, base: str) -> PatchReport:
    """A patch in full; its file is read by a thread, and need not be there when the patch is not active.

    ``base`` is that of the model in use, or nothing.

    Raises:
        NotFound: there is none of that id.
        StoreError: its file is damaged, or gone although the patch is active.
    """
    patch = store.patch(id_)
    known = store.known(patch.cases)
    cases = [_context(known[each]) for each in patch.cases if each in known]
    layers, depth, size = await asyncio.to_thread(_file, patch, store.patch_path(id_), models)
    return PatchReport(patch_info(patch, base), cases, depth, layers, size, comparison(store, id_))


def seconds(patches: Sequence[Patch]) -> float:
    """About how long a repair takes for each of its cases, by the newest patches."""
    took = [
        patch.verdict["seconds"] / len(patch.verdict["cases"])
        for patch in patches
        if patch.verdict.get("seconds") and patch.verdict.get("cases")
    ]
    return median(took[-_RECENT:]) if took else SECONDS


def _context(case: Case) -> CaseContext:
    above, below = case.prefix.split("\n"), case.suffix.split("\n")
    return CaseContext(case_info(case), "\n".join(above[-_ABOVE:]), "\n".join(below[:_BELOW]))


def _file(patch: Patch, path: Path, models: Path) -> tuple[list[MovedLayer], int, int]:
    """The layers that a patch moves, how many its model has, and the bytes of its file."""
    depth, width = _shape(patch.base, models)
    if not patch.active and not path.exists():
        return [], depth, 0
    layers = moved(path, width)
    least = max((layer.layer + 1 for layer in layers), default=0)
    return layers, max(least, depth), path.stat().st_size


def _shape(base: str, models: Path) -> tuple[int, int]:
    """How many layers the model has that is a base, and how many neurons each; 0 when it is not here."""
    for model in installed(models) if models.is_dir() else ():
        if model.base == base:
            try:
                config = json.loads((model.folder / "config.json").read_bytes())
                depth = config.get("num_hidden_layers") or config.get("n_layer") or 0
                width = config.get("intermediate_size") or config.get("n_inner")
                return int(depth), int(width or 4 * config.get("n_embd", 0))
            except (OSError, ValueError, TypeError, AttributeError):
                break
    return 0, 0
