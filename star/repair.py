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
from star.trace import Lesson, Place, Trace, prepare, trace

__all__ = ["PUBLISHED", "Budget", "Outcome", "Result", "Star", "Step", "repair"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a repair may cost. In iterative mode ``steps`` are for each failing token.

    A step that is taken back counts: it cost a pass like any other.
    """

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
    #: What the rate is multiplied by, up to one that was taken back, after a step that was too timid.
    grow: float = 2.0
    #: Steer what failed at first in every step, however right it has become, and nothing else.
    fixed: bool = False


#: A loss larger by no more than this is the same loss.
_SAME = 1.0001
#: A step that leaves more than this share of the loss was timid: how far one rate goes differs by model.
_TIMID = 0.8

#: STAR as published: the layers the target relies on, whole; all steps of ``Budget(10)`` whatever happens.
PUBLISHED = Star(
    rank="loss", pattern="none", ratio=1.0, margin=0.0, early_stop=False, back_off=False, grow=1.0, fixed=True
)


@dataclass(frozen=True, slots=True)
class Step:
    """What a repair sees before each step, and once more when it is done."""

    #: Steps taken so far.
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
    budget: Budget = Budget(),
    on_step: Callable[[Step], None] | None = None,
    *,
    method: Star = Star(),
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
    lessons = prepare(model, cases, _lowest(model, method))
    layers = (
        layers_by_loss(model, lessons, method.layers, cancelled)
        if _by_loss(method)
        else layers_by_depth(model.depth, method.layers)
    )
    if _by_loss(method):
        lessons = prepare(model, cases, min(layers))
    Cancelled.check(cancelled)
    first = last = trace(model, lessons, scored=layers)
    chosen = neurons(first.scores, method.pattern, method.ratio)
    steps = 0
    with Draft(model, chosen) as draft:
        outcomes = () if first.failures else tuple(_outcome(model, case) for case in cases)
        if first.failures or not all(outcome.solved for outcome in outcomes):
            until = started + budget.seconds
            loop = _Loop(model, draft, basis or Basis(model), method, budget.steps, until, on_step, cancelled)
            if method.mode == "batch":
                loop.together(lessons)
            else:
                loop.one_by_one(lessons)
            steps = loop.steps
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
        steps,
        time.monotonic() - started,
        tuple(sorted(chosen)),
    )


def _by_loss(method: Star) -> bool:
    return method.rank == "loss" and method.layers != "all"


def _lowest(model: CodeModel, method: Star) -> int:
    """The lowest layer that may change, as far as can be told before any pass."""
    return 0 if _by_loss(method) else min(layers_by_depth(model.depth, method.layers))


def _outcome(model: CodeModel, case: Case) -> Outcome:
    after = write(model, case)
    return Outcome(case.id, after, after == case.stop.trim(case.expected))


class _Loop:
    """Steps on a draft, counted over all the systems of one repair."""

    def __init__(
        self,
        model: CodeModel,
        draft: Draft,
        basis: Basis,
        method: Star,
        budget: int,
        until: float,
        on_step: Callable[[Step], None] | None,
        cancelled: Callable[[], bool],
    ) -> None:
        """Be ready to take ``budget`` steps on each system until a time (of ``time.monotonic``)."""
        self._model = model
        self._draft = draft
        self._basis = basis
        self._method = method
        self._budget = budget
        self._until = until
        self._on_step = on_step
        self._cancelled = cancelled
        self.steps = 0

    def together(self, lessons: Sequence[Lesson]) -> None:
        """Batch mode: all failing positions of all lessons in one system."""
        self._run(lessons, self._failures(lessons) if self._method.fixed else ())

    def one_by_one(self, lessons: Sequence[Lesson]) -> None:
        """Iterative mode: each failing token is a system of its own, one after another.

        Repairing one may break another: unless ``fixed``, those that fail are gone through again, until
        none does or each has used up its steps.
        """
        of = {lesson.case.id: lesson for lesson in lessons}
        used: dict[Place, int] = {}
        while failures := self._failures(lessons):
            before = self.steps
            for failure in failures:
                place = (failure.case, failure.position)
                used[place] = self._run([of[failure.case]], [failure], place, used.get(place, 0))
            if self._method.fixed or self.steps == before:
                return

    def _failures(self, lessons: Sequence[Lesson]) -> tuple[Failure, ...]:
        return trace(self._model, lessons, margin=self._method.margin).failures

    @property
    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def _run(
        self,
        lessons: Sequence[Lesson],
        failures: Sequence[Failure],
        only: Place | None = None,
        taken: int = 0,
    ) -> int:
        """Step on one system until nothing fails, or the budget is used up; the steps taken for it so far."""
        method, rate = self._method, self._method.rate
        steers = _Steers(self._basis)
        steers.learn(failures)
        system = [(failure.case, failure.position) for failure in failures] if method.fixed else None
        ceiling = math.inf
        best: Trace | None = None
        kept: dict[int, Float[Tensor, "k d"]] = {}
        while True:
            Cancelled.check(self._cancelled)
            seen = trace(
                self._model, lessons, self._draft.neurons, margin=method.margin, only=only, system=system
            )
            if best and method.back_off and not seen.loss <= best.loss * _SAME:
                self._draft.restore(kept)
                rate, seen = rate / 2, best
                ceiling = rate
            elif method.back_off:
                if best and seen.loss > _TIMID * best.loss:
                    rate = min(method.grow * rate, ceiling)
                best, kept = seen, self._draft.deltas()
            if self._on_step:
                self._on_step(Step(self.steps, seen.loss, len(seen.failures), seen.targets, rate))
            solved = method.early_stop and not seen.failures
            # Without a place to steer, X is zero, now and ever after.
            if solved or not seen.system or taken >= self._budget or self._is_late:
                return taken
            steers.learn(seen.failures)
            self._move(seen, steers.at(seen.system), rate)
            taken += 1
            self.steps += 1

    def _move(self, seen: Trace, goal: Float[Tensor, "n d"], rate: float) -> None:
        """One step: magnitude from the least-norm delta, direction from the gradient."""
        for layer in self._draft.neurons:
            prior = minimum_norm(seen.activations[layer], goal)
            self._draft.add(layer, -rate * prior.abs() * seen.gradients[layer].sign())


class _Steers:
    """The steer of each place, from what it first failed with: S stays while Z is recomputed."""

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self._known: dict[Place, Float[Tensor, " d"]] = {}

    def learn(self, failures: Sequence[Failure]) -> None:
        """Remember the steers of places that had none."""
        new = [failure for failure in failures if (failure.case, failure.position) not in self._known]
        if new:
            rows = self._basis.steer([each.expected for each in new], [each.predicted for each in new])
            self._known |= {(each.case, each.position): row for each, row in zip(new, rows, strict=True)}

    def at(self, places: Sequence[Place]) -> Float[Tensor, "n d"]:
        """The steers of some places, a row for each."""
        return torch.stack([self._known[place] for place in places])
