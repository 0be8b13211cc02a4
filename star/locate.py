"""Which layers, and which neurons in them, a repair may change (STAR, semantic targeting)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from star.errors import Cancelled
from star.model import CodeModel
from star.trace import Lesson, trace

__all__ = ["Layers", "Pattern", "Rank", "layers_by_depth", "layers_by_loss", "neurons"]

#: How many of the layers.
Layers = Literal["all", "3/4", "2/4", "1/4", "one"]
#: Which of them: those the target relies on most (the paper's), or the last (costs no pass).
Rank = Literal["loss", "depth"]
#: How a budget of ratio x f neurons is shared out.
Pattern = Literal["none", "layerly", "autoly", "evenly"]

_SHARES: Mapping[str, float] = {"all": 1.0, "3/4": 0.75, "2/4": 0.5, "1/4": 0.25, "one": 0.0}


def layer_count(depth: int, layers: Layers) -> int:
    """How many of ``depth`` layers an option names; at least one."""
    return max(1, round(depth * _SHARES[layers]))


def layers_by_depth(depth: int, layers: Layers) -> tuple[int, ...]:
    """The last layers of a model, ascending."""
    return tuple(range(depth - layer_count(depth, layers), depth))


def layers_by_loss(
    model: CodeModel,
    lessons: Sequence[Lesson],
    layers: Layers,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[int, ...]:
    """The layers without whose feed-forward block the expected tokens become least likely, ascending.

    One pass for each layer of the model; lessons must have been prepared for layer 0.

    Raises:
        Cancelled: ``cancelled`` said so, between two passes.
    """
    loss = []
    for layer in range(model.depth):
        Cancelled.check(cancelled)
        with model.without_mlp(layer):
            loss.append(trace(model, lessons).loss)
    ranked = sorted(range(model.depth), key=lambda layer: loss[layer], reverse=True)
    return tuple(sorted(ranked[: layer_count(model.depth, layers)]))


def neurons(
    scores: Mapping[int, Float[Tensor, " f"]], pattern: Pattern, ratio: float
) -> dict[int, Int[Tensor, " k"]]:
    """The indices of the neurons to change, ascending, by layer; layers with none are left out.

    ``scores`` is by layer. ``none`` keeps whole layers; ``layerly`` the top ``ratio·f`` of the layer
    with the largest score norm; ``autoly`` the top ``ratio·f`` of all layers; ``evenly`` the top
    ``ratio·f / L`` of each.
    """
    layers = sorted(scores)
    inner = len(scores[layers[0]])
    if pattern == "none":
        return {layer: torch.arange(inner) for layer in layers}
    budget = max(1, math.floor(ratio * inner))
    if pattern == "layerly":
        critical = max(layers, key=lambda layer: float(scores[layer].norm()))
        return {critical: _top(scores[critical], budget)}
    if pattern == "evenly":
        each = max(1, budget // len(layers))
        return {layer: _top(scores[layer], each) for layer in layers}
    best = torch.cat([scores[layer] for layer in layers]).topk(min(budget, inner * len(layers))).indices
    found = {}
    for place, layer in enumerate(layers):
        mine = best[(best >= place * inner) & (best < (place + 1) * inner)] - place * inner
        if len(mine):
            found[layer] = mine.sort().values
    return found


def _top(scores: Float[Tensor, " f"], count: int) -> Int[Tensor, " k"]:
    return scores.topk(min(count, len(scores))).indices.sort().values
