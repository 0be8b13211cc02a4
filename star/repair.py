"""The loop: failures → locate → solve → step → until the model writes what was expected."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from star.case import Case, Failure
from star.decode import write
from star.errors import Cancelled
from star.locate import Layers, Pattern, Rank, layers_by_depth, layers_by_loss, neurons
from star.model import CodeModel
from star.patch import Draft, Patch
from star.solve import Basis, minimum_norm
from star.trace import Lesson, Trace, prepare, trace

__all__ = ["PUBLISHED", "Budget", "Outcome", "Result", "Star", "Step", "repair"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a repair may cost. In iterative mode ``steps`` are for each failing token."""

    steps: int = 16
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Star:
    """The settings of STAR; the defaults are ours, ``PUBLISHED`` is the paper's."""

    mode: Literal["batch", "iterative"] = "batch"
    layers: Layers = "1/4"
    rank: Rank = "depth"
    pattern: Pattern = "evenly"
    #: Share of one layer's neurons that may change in all.
    ratio: float = 1 / 16
    rate: float = 1e-2
    #: Lead in log-probability that an expected token must have before it counts as learnt.
    margin: float = 1.0
    #: Stop when every case is solved, not when the steps are used up.
    early_stop: bool = True
    #: Take back a step that made the loss larger, and halve the rate.
    back_off: bool = True


#: STAR as published: the layers the target relies on, ten steps whatever happens.
PUBLISHED = Star(
    rank="loss", pattern="none", ratio=1.0, margin=0.0, early_stop=False, back_off=False
)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a repair saw before it moved."""

    number: int
    loss: float
    failures: int
    targets: int
    rate: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is written at a case's place after a repair, under the server's own decoding."""

    case: str
    after: str
    solved: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What a repair came to. ``patch`` holds no rows when nothing had to move."""

    outcomes: tuple[Outcome, ...]
    failures_before: tuple[Failure, ...]
    failures_after: tuple[Failure, ...]
    #: Token ExactMatch, teacher-forced, in percent.
    exact_before: float
    exact_after: float
    patch: Patch
    steps: int
    seconds: float
    layers: tuple[int, ...]

    @property
    def solved(self) -> bool:
        """Whether every case is solved."""
        return all(outcome.solved for outcome in self.outcomes)


def repair(
    model: CodeModel,
    cases: Sequence[Case],
    budget: Budget = Budget(),  # noqa: B008  (frozen)
    on_step: Callable[[Step], None] | None = None,
    *,
    method: Star = Star(),  # noqa: B008
    basis: Basis | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Result:
    """A patch that makes the model write what the cases expect, on top of what is installed.

    The model is left as it was found. Solving fewer cases than asked is a result, not an error.

    Raises:
        CaseError: a case cannot be put to this model.
        Cancelled: ``cancelled`` said so, between two passes.
    """
    started = time.monotonic()
    located_by_loss = method.rank == "loss" and method.layers != "all"
    lessons = prepare(model, cases)
    layers = (
        layers_by_loss(model, lessons, method.layers)
        if located_by_loss
        else layers_by_depth(model.depth, method.layers)
    )
    lessons = prepare(model, cases, min(layers))
    first = trace(model, lessons, layers)
    chosen = neurons(first.scores, method.pattern, method.ratio)
    loop = _Loop(model, lessons, tuple(sorted(chosen)), budget, on_step, method, cancelled, started)
    with Draft(model, chosen) as draft:
        basis = basis or Basis(model)
        if method.mode == "batch":
            loop.run(draft, basis, lessons)
        else:
            _one_token_after_another(loop, draft, basis, lessons)
        last = trace(model, lessons)
        outcomes = tuple(_outcome(model, case) for case in cases)
        manifest: dict[str, Any] = {"method": asdict(method), "cases": [case.id for case in cases]}
        patch = draft.patch(manifest)
    return Result(
        outcomes,
        first.failures,
        last.failures,
        first.exact,
        last.exact,
        patch,
        loop.steps,
        time.monotonic() - started,
        tuple(sorted(chosen)),
    )


def _outcome(model: CodeModel, case: Case) -> Outcome:
    after = write(model, case)
    return Outcome(case.id, after, after == case.stop.trim(case.expected))


def _one_token_after_another(
    loop: "_Loop", draft: Draft, basis: Basis, lessons: Sequence[Lesson]
) -> None:
    """Iterative mode: each failing token is a system of its own, with the budget's steps."""
    for lesson in lessons:
        for _ in range(len(lesson.expected) + 1):
            if not loop.run(draft, basis, [lesson], first_only=True):
                break


class _Loop:
    """Steps on a draft, counted over all the systems of one repair."""

    def __init__(
        self,
        model: CodeModel,
        lessons: Sequence[Lesson],
        layers: tuple[int, ...],
        budget: Budget,
        on_step: Callable[[Step], None] | None,
        method: Star,
        cancelled: Callable[[], bool],
        started: float,
    ) -> None:
        self._model = model
        self._layers = layers
        self._budget = budget
        self._on_step = on_step
        self._method = method
        self._cancelled = cancelled
        self._started = started
        self._index: dict[int, Tensor] = {}
        self.steps = 0

    def run(
        self, draft: Draft, basis: Basis, lessons: Sequence[Lesson], *, first_only: bool = False
    ) -> bool:
        """Step until nothing fails or the budget is used up; whether any step was taken."""
        method, rate = self._method, self._method.rate
        best, kept = math.inf, draft.deltas()
        steer: dict[tuple[str, int], Float[Tensor, " d"]] = {}
        taken = 0
        while taken < self._budget.steps:
            if self._cancelled():
                raise Cancelled("The repair was cancelled; the cases stay pending.")
            if time.monotonic() - self._started > self._budget.seconds:
                break
            seen = trace(
                self._model, lessons, self._layers, margin=method.margin, first_only=first_only
            )
            if method.back_off and not seen.loss <= best * 1.0001:
                draft.restore(kept)
                rate /= 2
                taken += 1
                continue
            best, kept = seen.loss, draft.deltas()
            if self._on_step:
                self._on_step(
                    Step(self.steps, seen.loss, len(seen.failures), seen.targets, rate)
                )
            if not seen.failures and (first_only or method.early_stop):
                break
            self._move(draft, basis, seen, steer, rate)
            taken += 1
            self.steps += 1
        return taken > 0

    def _move(
        self,
        draft: Draft,
        basis: Basis,
        seen: Trace,
        steer: dict[tuple[str, int], Float[Tensor, " d"]],
        rate: float,
    ) -> None:
        """One step: magnitude from the least-norm delta, direction from the gradient."""
        for failure in seen.failures:
            key = (failure.case, failure.position)
            if key not in steer:  # S stays while Z is recomputed
                steer[key] = basis.steer([failure.expected], [failure.predicted])[0]
        if not seen.failures:  # no early stop: nothing is left to steer to, so X is zero
            return
        goal = torch.stack([steer[f.case, f.position] for f in seen.failures])
        for layer, index in draft.neurons.items():
            prior = minimum_norm(seen.activations[layer][:, index], goal)
            draft.add(layer, -rate * prior.abs() * seen.gradients[layer][index].sign())
