"""What ordinary text makes of the neurons of a layer, and deltas that disturb it least.

MEMIT (arXiv 2210.07229) weighs a delta by the second moment C of ordinary activations; AlphaEdit
(arXiv 2410.02355) keeps it out of the directions that they take. Both are
``X = M Zᵀ (Z M Zᵀ + λ I)⁻¹ R`` with another M: C⁻¹, or the projector P on the rest; the plain least
norm is that with M = I.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from star.model import CodeModel

__all__ = ["Guard", "guarded", "inverse", "null_space", "second_moment", "unguarded"]

#: What multiplies activations from the left, ``(f, n)`` to ``(f, n)``: M above, symmetric.
Guard = Callable[[Tensor], Tensor]


def second_moment(
    model: CodeModel, samples: Sequence[tuple[int, ...]], layers: Sequence[int]
) -> dict[int, Float[Tensor, "f f"]]:
    """The mean of ``zᵀz`` over all tokens of some ordinary texts, by layer (4 f² bytes each).

    Raises:
        CaseError: a text is longer than the model's context.
    """
    sums = {layer: torch.zeros(model.neurons, model.neurons) for layer in layers}
    for ids in samples:
        with torch.no_grad(), model.tapped(layers) as taps:
            model.logits(ids, [len(ids) - 1])
        for layer, tap in taps.items():
            inputs = tap.inputs.float()
            sums[layer].addmm_(inputs.T, inputs)
    count = max(1, sum(map(len, samples)))
    return {layer: total.div_(count) for layer, total in sums.items()}


def inverse(moment: Float[Tensor, "f f"], ridge: float = 1e-2) -> Guard:
    """MEMIT's guard, ``(C + ridge · mean(diag C) · I)⁻¹``; made once for a layer, seconds at real width."""
    damped = moment.double()
    damped.diagonal().add_(ridge * moment.diagonal().mean())
    return _Inverse(torch.linalg.cholesky(damped).float())


def null_space(moment: Float[Tensor, "f f"], share: float = 1e-2) -> Guard:
    """AlphaEdit's guard: off the directions in which C is more than ``share`` of its mean eigenvalue.

    Made once for a layer, tens of seconds at real width.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    return _Complement(vectors[:, values > share * values.mean()].float())


def unguarded(columns: Tensor) -> Tensor:
    """The plain least norm."""
    return columns


def guarded(
    activations: Float[Tensor, "n f"], wanted: Float[Tensor, "n d"], guard: Guard, damping: float
) -> Float[Tensor, "f d"]:
    """The delta that adds ``wanted`` where the activations are: X above.

    λ is ``damping · mean(diag(Z M Zᵀ))``; at zero, ``Z X = R`` if it can be had.
    """
    sent = guard(activations.T.contiguous())
    gram = activations.double() @ sent.double()
    gram = (gram + gram.T) / 2
    gram.diagonal().add_(damping * gram.diagonal().mean())
    # A pseudo-inverse, so that equal rows are safe without damping too.
    solved = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10) @ wanted.double()
    delta: Tensor = sent @ solved.float()
    return delta


@dataclass(frozen=True, slots=True, eq=False)
class _Inverse:
    """Multiplies by the inverse of ``factor · factorᵀ``."""

    factor: Float[Tensor, "f f"]

    def __call__(self, columns: Tensor) -> Tensor:
        solved: Tensor = torch.cholesky_solve(columns, self.factor)
        return solved


@dataclass(frozen=True, slots=True, eq=False)
class _Complement:
    """Takes away what lies in the span of some orthonormal directions."""

    taken: Float[Tensor, "f k"]

    def __call__(self, columns: Tensor) -> Tensor:
        return columns - self.taken @ (self.taken.T @ columns)
