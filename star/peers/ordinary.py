"""What ordinary text makes of the neurons of a layer, and deltas that disturb it least.

MEMIT (arXiv 2210.07229) weighs a delta by the second moment C of ordinary activations; AlphaEdit
(arXiv 2410.02355) keeps it out of the directions that they take. Both are
``solve.minimum_norm`` with another guard M: C⁻¹, or the projector P on the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from star.model import CodeModel
from star.solve import Guard

__all__ = ["inverse", "null_space", "second_moment"]


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


@dataclass(frozen=True, slots=True, eq=False)
class _Inverse:
    """Multiplies by the inverse of ``factor · factorᵀ``."""

    factor: Float[Tensor, "f f"]

    def __call__(self, columns: Tensor) -> Tensor:
        solved: Tensor = torch.cholesky_solve(columns.to(self.factor.dtype), self.factor)
        return solved


@dataclass(frozen=True, slots=True, eq=False)
class _Complement:
    """Takes away what lies in the span of some orthonormal directions."""

    taken: Float[Tensor, "f k"]

    def __call__(self, columns: Tensor) -> Tensor:
        columns = columns.to(self.taken.dtype)
        return columns - self.taken @ (self.taken.T @ columns)
