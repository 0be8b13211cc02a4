"""How ordinary code uses an output projection: what it is given, and how much predictions heed what it gives.

The two sides of K-FAC (Martens and Grosse, arXiv 1503.05671): ``A = E[aᵀa]``, a what one position gives the
projection, and ``F = E[gᵀg]``, g the gradient of -log p at its output, for next tokens drawn from what the
model itself predicts. A delta D of the weights costs ordinary predictions about ``½ tr(A D F Dᵀ)`` nats.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from star.errors import Cancelled
from star.model import CodeModel

__all__ = ["Fisher", "fisher", "known_by"]

_SEED = 0
#: No more tokens of a text are read.
_TOKENS = 128
#: Directions of the inputs that are kept, and how often they are sought.
_RANK, _ROUNDS = 512, 3
#: So many rows of a Gram matrix are made at once.
_BLOCK = 512
#: Some families have activations beyond what fp16 has numbers for.
_HIGHEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, slots=True, eq=False)
class Fisher:
    """Both sides for one projection: ``inputsᵀ · inputs`` is A, but for weak directions; ``outputs`` F."""

    inputs: Float16[Tensor, "r f"]
    outputs: Float[Tensor, "d d"]


def known_by(model: CodeModel, texts: Sequence[str]) -> str:
    """Names what ``fisher`` makes of some texts: it rests on them, and on how they are read."""
    how = (_SEED, _TOKENS, _RANK, _ROUNDS, *model.start_ids, *texts)
    return hashlib.sha256(repr(how).encode()).hexdigest()


def fisher(
    model: CodeModel,
    texts: Sequence[str],
    layers: Sequence[int],
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[int, Fisher]:
    """How texts use the projections of some layers, the mean over all their tokens.

    A pass, forward and backward, for each text, cut to 128 tokens or the model's context. The model as it is
    now is looked at.

    Raises:
        Cancelled: ``cancelled`` said so, between two texts.
    """
    drawn = torch.Generator().manual_seed(_SEED)
    sums = {layer: torch.zeros(model.width, model.width, dtype=torch.float64) for layer in layers}
    given: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    count = 0
    for text in texts:
        Cancelled.check(cancelled)
        ids = model.encode_first(text)[: min(_TOKENS, model.context or _TOKENS)]
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
            given[layer].append(tap.inputs[1:].clamp(-_HIGHEST, _HIGHEST).half())
        count += len(ids) - 1
    return {
        layer: Fisher(
            _principal(torch.cat(given.pop(layer) or [torch.zeros(1, model.neurons)])),
            (total / max(count, 1)).float(),
        )
        for layer, total in sums.items()
    }


def _principal(given: Float[Tensor, "m f"]) -> Float16[Tensor, "r f"]:
    """The strongest directions of some activations, so that ``BᵀB`` is next to their second moment.

    By a randomized range finder (Halko, Martinsson and Tropp, arXiv 0909.4061): all eigenvectors of some
    thousand activations would take longer than reading them.
    """
    wide = given.float() / len(given) ** 0.5
    if len(wide) <= wide.shape[1]:
        gram = _gram(wide)
        sought = torch.randn(len(wide), _RANK, generator=torch.Generator().manual_seed(_SEED))
        for _ in range(_ROUNDS):
            sought = torch.linalg.qr(gram @ sought).Q
        found: Tensor = sought.T @ wide
        return found.half()
    strength, at = torch.linalg.eigh((wide.T @ wide).double())
    scaled: Tensor = strength.clamp(min=0).sqrt() * at
    return scaled[:, -_RANK:].T.half()


def _gram(wide: Float[Tensor, "m f"]) -> Float[Tensor, "m m"]:
    """``A Aᵀ``, of which little more than half has to be made: the rest is the same."""
    gram = torch.empty(len(wide), len(wide))
    for start in range(0, len(wide), _BLOCK):
        stop = min(start + _BLOCK, len(wide))
        torch.matmul(wide[start:stop], wide[:stop].T, out=gram[start:stop, :stop])
        gram[:start, start:stop] = gram[start:stop, :start].T
    return gram
