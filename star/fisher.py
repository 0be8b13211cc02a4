"""How much ordinary predictions heed what an output projection gives: its Fisher information.

The output side of K-FAC (Martens and Grosse, arXiv 1503.05671): ``F = E[gᵀg]``, g the gradient of -log p at
the output of one position, for next tokens drawn from what the model itself predicts. Moving that output by a
small δ costs ordinary predictions ``½ δ F δᵀ`` nats of KL.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from star.errors import Cancelled
from star.model import CodeModel

__all__ = ["fisher"]

_SEED = 0
#: No more tokens of a text are read.
_TOKENS = 128


def fisher(
    model: CodeModel,
    texts: Sequence[str],
    layers: Sequence[int],
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[int, Float[Tensor, "d d"]]:
    """The Fisher information of the outputs of some layers' projections, the mean over all tokens of texts.

    A pass, forward and backward, for each text, cut to 128 tokens or the model's context. The model as it is
    now is looked at.

    Raises:
        Cancelled: ``cancelled`` said so, between two texts.
    """
    drawn = torch.Generator().manual_seed(_SEED)
    sums = {layer: torch.zeros(model.width, model.width, dtype=torch.float64) for layer in layers}
    count = 0
    for text in texts:
        Cancelled.check(cancelled)
        ids = model.encode(text)[: min(_TOKENS, model.context or _TOKENS)]
        if len(ids) < 2:
            continue
        trunk = model.trunk(ids, min(layers))
        with torch.enable_grad(), model.tapped(layers) as taps, model.resumed(trunk):
            log_p = model.logits(ids, range(1, len(ids))).float().log_softmax(-1)
            # By the inverse of the distribution function: many times as fast as torch.multinomial.
            reached = log_p.detach().exp().cumsum(-1)
            at = torch.rand(len(reached), 1, generator=drawn) * reached[:, -1:]
            tokens = torch.searchsorted(reached, at)
            torch.autograd.backward(-log_p.gather(-1, tokens).sum())
        for layer, tap in taps.items():
            # The first position is unlike all others in every model: it holds what attention has no use for.
            pulls = tap.gradient[1:].double()
            sums[layer] += pulls.T @ pulls
        count += len(ids) - 1
    return {layer: (total / max(count, 1)).float() for layer, total in sums.items()}
