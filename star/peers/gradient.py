"""Gradient descent on whole output projections: STAR's loss, without its prior."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from star.case import Case
from star.locate import Layers
from star.model import CodeModel
from star.patch import Draft
from star.peers.course import Course, Where, layers_at, whole
from star.result import Budget, Result, Step

__all__ = ["Gradient"]


@dataclass(frozen=True, slots=True)
class Gradient:
    """The settings of SGD (no momentum) and AdamW (torch's defaults, but no decay)."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    rate: float = 1e-2
    layers: Layers = "1/4"
    at: Where = "last"

    def __call__(
        self,
        model: CodeModel,
        cases: Sequence[Case],
        budget: Budget = Budget(),
        on_step: Callable[[Step], None] | None = None,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """A patch that lowers the loss until the model writes what the cases expect.

        What is optimized are the deltas, in fp32: they start at zero, so a decay would pull the
        weights towards what is installed, not towards zero.

        Raises:
            CaseError: a case cannot be put to this model.
            Cancelled: ``cancelled`` said so, between two passes.
        """
        layers = layers_at(model.depth, self.layers, self.at)
        course = Course(model, cases, layers, budget, on_step, cancelled)
        with Draft(model, whole(model, layers)) as draft:
            deltas = draft.deltas()
            optimizer = self._optimizer(list(deltas.values()))
            for seen in course.steps(self.rate, draft.neurons):
                for layer, delta in deltas.items():
                    delta.grad = seen.gradients[layer]
                optimizer.step()
                draft.restore(deltas)
            manifest = {"method": asdict(self), "cases": [case.id for case in cases]}
            return course.result(draft.patch(manifest))

    def _optimizer(self, deltas: list[torch.Tensor]) -> torch.optim.Optimizer:
        if self.optimizer == "sgd":
            return torch.optim.SGD(deltas, lr=self.rate)
        return torch.optim.AdamW(deltas, lr=self.rate, weight_decay=0.0)
