"""A draft of single neurons that takes in others as they are named: rows, never whole layers."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from star.model import CodeModel
from star.patch import Draft, Patch, Rows

__all__ = ["grown", "moved_only"]


def grown(model: CodeModel, draft: Draft, neurons: Mapping[int, Int[Tensor, " k"]]) -> Draft:
    """A draft of what has moved in ``draft``, which is closed, and of some more neurons by layer."""
    moved = {rows.layer: rows for rows in moved_only(draft.patch({})).rows}
    index, deltas = dict(neurons), {}
    for layer, rows in moved.items():
        index[layer] = torch.cat([rows.neurons, index.get(layer, rows.neurons)])
    index = {layer: torch.unique(each) for layer, each in index.items()}
    for layer, rows in moved.items():
        deltas[layer] = torch.zeros(len(index[layer]), model.width)
        deltas[layer][torch.searchsorted(index[layer], rows.neurons)] = rows.delta
    draft.close()
    larger = Draft(model, index)
    larger.restore(deltas)
    return larger


def moved_only(patch: Patch) -> Patch:
    """A patch without the neurons that did not move."""
    kept = [(rows, rows.delta.any(1)) for rows in patch.rows]
    rows = tuple(Rows(rows.layer, rows.neurons[moved], rows.delta[moved]) for rows, moved in kept)
    return Patch(patch.base, rows, patch.manifest)
