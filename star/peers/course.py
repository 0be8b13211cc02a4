"""What every peer does alike: look, tell, stop when all is solved or the budget is used up, report."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from star.case import Case
from star.errors import Cancelled
from star.locate import Layers, layer_count
from star.model import CodeModel
from star.patch import Patch
from star.result import Budget, Outcome, Result, Step, outcome
from star.trace import Trace, prepare, trace

__all__ = ["Course", "Where", "layers_at", "whole"]

#: Where the chosen layers lie in the model.
Where = Literal["last", "middle"]


def layers_at(depth: int, layers: Layers, at: Where) -> tuple[int, ...]:
    """So many of a model's layers, neighbours of one another, ascending."""
    count = layer_count(depth, layers)
    first = depth - count if at == "last" else (depth - count) // 2
    return tuple(range(first, first + count))


def whole(model: CodeModel, layers: Sequence[int]) -> dict[int, Int[Tensor, " f"]]:
    """All neurons of some layers."""
    return {layer: torch.arange(model.neurons) for layer in layers}


class Course:
    """One repair by a peer: its budget, and what was seen first and last."""

    def __init__(
        self,
        model: CodeModel,
        cases: Sequence[Case],
        layers: Sequence[int],
        budget: Budget,
        on_step: Callable[[Step], None] | None,
        cancelled: Callable[[], bool],
    ) -> None:
        """Be ready to change ``layers``; the clock starts.

        Raises:
            CaseError: a case cannot be put to this model.
        """
        self._started = time.monotonic()
        self._model = model
        self._layers = tuple(layers)
        self._budget = budget
        self._on_step = on_step
        self._cancelled = cancelled
        self._first: Trace | None = None
        self._last: Trace | None = None
        self._outcomes: tuple[Outcome, ...] | None = None
        #: Steps taken so far.
        self.taken = 0
        self.lessons = prepare(model, cases, min(layers))

    @property
    def is_solved(self) -> bool:
        """Whether nothing failed when last looked, and every case was then written as expected."""
        return self._outcomes is not None and all(each.solved for each in self._outcomes)

    @property
    def is_late(self) -> bool:
        """Whether the seconds are used up."""
        return time.monotonic() > self._started + self._budget.seconds

    def check(self) -> None:
        """Ask whether to stop; to be called before each pass.

        Raises:
            Cancelled: yes.
        """
        Cancelled.check(self._cancelled)

    def tell(self, seen: Trace, rate: float) -> None:
        """Say what was seen before a step, or at the end."""
        if self._on_step:
            self._on_step(Step(self.taken, seen.loss, len(seen.failures), seen.targets, rate))

    def look(self, neurons: Mapping[int, Int[Tensor, " k"]] | None = None) -> Trace:
        """A pass over all lessons; when nothing fails, the server's own decoding has its say.

        Raises:
            Cancelled: the caller asked to stop.
        """
        self.check()
        seen = trace(self._model, self.lessons, neurons)
        # Without the tensors, which are large and would live as long as this course.
        self._last = replace(seen, activations={}, pulls={}, gradients={})
        self._first = self._first or self._last
        self._outcomes = None if seen.failures else self._written()
        return seen

    def steps(self, rate: float, neurons: Mapping[int, Int[Tensor, " k"]] | None = None) -> Iterator[Trace]:
        """What is seen before each step that is still to be taken.

        Raises:
            Cancelled: the caller asked to stop.
        """
        while True:
            seen = self.look(neurons)
            self.tell(seen, rate)
            if self.is_solved or self.taken >= self._budget.steps or self.is_late:
                return
            yield seen
            self.taken += 1

    def result(self, patch: Patch) -> Result:
        """What it came to, with the weights as they were when last looked."""
        assert self._first
        assert self._last
        outcomes = self._written() if self._outcomes is None else self._outcomes
        return Result(
            outcomes,
            self._first.failures,
            self._last.failures,
            self._first.exact,
            self._last.exact,
            patch,
            self.taken,
            time.monotonic() - self._started,
            self._layers,
        )

    def _written(self) -> tuple[Outcome, ...]:
        outcomes = []
        for lesson in self.lessons:
            self.check()
            outcomes.append(outcome(self._model, lesson.case))
        return tuple(outcomes)
