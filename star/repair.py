"""The loop: failures → locate → solve → step → until the model writes what was expected."""

import math
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from star.case import Case, Failure
from star.errors import Cancelled
from star.locate import Layers, Pattern, Rank, layers_by_depth, layers_by_loss, neurons
from star.model import CodeModel
from star.patch import Draft, Patch
from star.result import Budget, Outcome, Result, Step, outcome
from star.solve import Basis, Guard, minimum_norm, natural, places, shares, sparing
from star.trace import Lesson, Place, System, Trace, begun, elsewhere, join, prepare, trace

__all__ = ["PUBLISHED", "STRENGTHS", "Star", "lowest_layer", "repair"]


@dataclass(frozen=True, slots=True)
class Star:
    """The settings of STAR; the defaults are ours, ``PUBLISHED`` is the paper's."""

    mode: Literal["batch", "iterative"] = "batch"
    #: What the gradient gives its signs to: what each failing position shall have added to its outputs,
    #: before the least squares are solved; or, as published, the delta of the weights, after that.
    step: Literal["outputs", "weights"] = "outputs"
    layers: Layers = "2/4"
    rank: Rank = "depth"
    pattern: Pattern = "none"
    #: Share of one layer's neurons that may change in all, by any other pattern.
    ratio: float = 1.0
    #: Whether each case that fails may have as many, and not all cases together.
    widen: bool = True
    #: Whether ordinary code is spared: the least norm is the least movement of its outputs, and each position
    #: is sent where its predictions heed it least, as far along its gradient as the signs would send it.
    natural: bool = True
    #: Whether the least norm is the least movement of what stands before the places, too.
    weigh: bool = True
    #: Whether the places of earlier repairs are spared: their keys say what stood there.
    earlier: bool = True
    #: Whether a case is learnt at its other prompts as well; what its places have in common there is what a
    #: completion is known by then.
    elsewhere: bool = True
    #: How much of the least squares' promise is given up where keeping it would take a huge delta.
    ridge: float = 0.1
    #: How far a step goes.
    rate: float = 1.0
    #: Whether that is a share of the way which the places of a case are short of by the gradient, and not a
    #: multiple of the steers: what these move differs by model.
    paced: bool = True
    #: Lead in log-probability that an expected token must have before it counts as learnt.
    margin: float = 2.0
    #: Stop when every case is solved, not when the steps are used up.
    early_stop: bool = True
    #: Take back a step that made the loss larger, and halve the rate.
    back_off: bool = True
    #: What the rate is multiplied by, up to one that was taken back, or to the whole way, after a step that
    #: was too timid.
    grow: float = 2.0
    #: Steer what failed at first in every step, however right it has become, and nothing else.
    fixed: bool = False
    #: Steps to take, whatever the budget allows; None: as many as it allows.
    steps: int | None = None


#: What a paced step asks for beyond the margin, and the least loss that a place counts as having, in nats.
_BEYOND, _LOSS = 1.0, 1e-9
#: So many places of earlier repairs are spared at most, in each layer.
_EARLIER = 256
#: A lead in log-probability that no order of summation overturns, in bf16 neither.
_SURE = 0.5
#: A loss larger by no more than this is the same loss.
_SAME = 1.0001
#: A step that leaves more than this share of the loss was timid: how far one rate goes differs by model.
_TIMID = 0.8

#: STAR as published: the layers the target relies on, whole; ten steps whatever happens.
PUBLISHED = Star(
    step="weights", layers="1/4", rank="loss", pattern="none", ratio=1.0, widen=False, natural=False,
    weigh=False, earlier=False, elsewhere=False, ridge=0.0, rate=1e-2, paced=False, margin=0.0,
    early_stop=False, back_off=False, grow=1.0, fixed=True, steps=10,
)  # fmt: skip

#: How strong a repair is to be: how far ahead the expected tokens must be.
STRENGTHS: Mapping[str, Star] = {
    "gentle": Star(margin=0.5),
    "normal": Star(),
    "strong": Star(margin=4.0),
}


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
    lessons = prepare(model, cases, lowest_layer(model, method))
    layers = (
        layers_by_loss(model, lessons, method.layers, cancelled)
        if _by_loss(method)
        else layers_by_depth(model.depth, method.layers)
    )
    if _by_loss(method):
        lessons = prepare(model, cases, min(layers))
    Cancelled.check(cancelled)
    whole = method.pattern == "none"
    read = _begun(model, lessons, method, cancelled)
    first = last = trace(model, read, scored=() if whole else layers)
    failing = len({failure.case for failure in first.failures}) if method.widen else 1
    outcomes = () if first.failures else tuple(outcome(model, case) for case in cases)
    is_wrong = bool(first.failures) or not all(each.solved for each in outcomes)
    if is_wrong:
        basis = basis or Basis(model)
        if method.natural:  # before anything is drafted: it is of the base
            basis.learn(layers, cancelled)
    every = torch.arange(model.neurons)
    chosen = (
        dict.fromkeys(layers, every)
        if whole
        else neurons(first.scores, method.pattern, method.ratio * max(failing, 1))
    )
    steps = 0
    learnt: Sequence[Lesson] = ()
    with Draft(model, chosen, factored=method.step == "outputs") as draft:
        if is_wrong and basis:
            until = started + budget.seconds
            most = budget.steps if method.steps is None else method.steps
            loop = _Loop(model, draft, basis, method, most, until, on_step, cancelled)
            if method.mode == "batch":
                others = elsewhere(model, cases, min(layers)) if method.elsewhere else ()
                loop.together(read, _begun(model, others, method, cancelled))
            else:
                loop.one_by_one(read)
            steps = loop.steps
            draft.condense()
            sure = loop.sure if method.margin >= _SURE else None
            if sure:
                # Each token leads by more than rounding can change: greedy decoding writes just these.
                last, learnt = sure, loop.learnt
                outcomes = tuple(Outcome(case.id, case.stop.trim(case.expected), True) for case in cases)
            else:
                last = trace(model, lessons)
                outcomes = tuple(outcome(model, case) for case in cases)
        manifest: dict[str, Any] = {"method": asdict(method), "cases": [case.id for case in cases]}
        patch = draft.patch(manifest)
        if learnt and method.step == "outputs":
            patch = _in_few_bits(model, draft, patch, learnt)
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


def _in_few_bits(model: CodeModel, draft: Draft, patch: Patch, learnt: Sequence[Lesson]) -> Patch:
    """What was drafted, rounded until it can be packed, if just the same is written with that."""
    coarse = patch.coarse()
    draft.become(coarse)
    return patch if trace(model, learnt, margin=_SURE / 2).failures else coarse


def _by_loss(method: Star) -> bool:
    return method.rank == "loss" and method.layers != "all"


def lowest_layer(model: CodeModel, method: Star) -> int:
    """The lowest layer that may change, as far as can be told before any pass."""
    return 0 if _by_loss(method) else min(layers_by_depth(model.depth, method.layers))


def _begun(
    model: CodeModel, lessons: Sequence[Lesson], method: Star, cancelled: Callable[[], bool]
) -> tuple[Lesson, ...]:
    """The same lessons, with what stands before their targets read, where a repair leaves it as it is.

    Rows of weights move that, too.
    """
    return begun(model, lessons, cancelled) if method.step == "outputs" else tuple(lessons)


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
        #: By layer, the row of each place's key, and what it was divided by.
        self._scales: dict[int, dict[Place, tuple[int, float]]] = {layer: {} for layer in draft.neurons}
        self.steps = 0
        #: The last look at all lessons, once none of them fails by the margin, and those of the cases.
        self.sure: Trace | None = None
        self.learnt: Sequence[Lesson] = ()

    def together(self, lessons: Sequence[Lesson], others: Sequence[Lesson] = ()) -> None:
        """Batch mode: all failing positions of all lessons, and of ``others``, in one system."""
        self._run(lessons, self._failures([*lessons, *others]) if self._method.fixed else (), others)

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
                place = _place(failure)
                mine = self._anew([of[failure.case]])
                used[place] = self._run(mine, [failure], (), place, used.get(place, 0))
            if self._method.fixed or self.steps == before:
                return
            lessons = self._anew(lessons)

    def _failures(self, lessons: Sequence[Lesson]) -> tuple[Failure, ...]:
        return trace(self._model, lessons, margin=self._method.margin).failures

    def _anew(self, lessons: Sequence[Lesson]) -> tuple[Lesson, ...]:
        return _begun(self._model, lessons, self._method, self._cancelled)

    @property
    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def _run(
        self,
        lessons: Sequence[Lesson],
        failures: Sequence[Failure],
        others: Sequence[Lesson] = (),
        only: Place | None = None,
        taken: int = 0,
    ) -> int:
        """Step on one system until nothing fails, or the budget is used up; the steps taken for it so far.

        What stands before the targets is taken as it was read last: it was told to stay still. When nothing
        fails any more, it is read again, but for ``others``, and all is looked at with that.
        """
        judged, lessons = len(lessons), [*lessons, *others]
        method, rate = self._method, self._method.rate
        steers = _Steers(self._basis)
        steers.learn(failures)
        failing = [_place(failure) for failure in failures]
        system: System = failing if method.fixed else "failing" if method.step == "weights" else "targets"
        ceiling = max(rate, 1.0) if method.paced else math.inf  # nothing asks for more than is missing
        best: dict[int, Trace] = {}  # by lesson: a case has one for each prompt
        last: Trace | None = None
        kept: dict[int, Float[Tensor, "k d"]] = {}
        while True:
            looks = dict(best)
            wrong = [each for each in range(len(lessons)) if self._is_open(best.get(each))]
            self._look(looks, lessons, wrong, only, system)
            is_wrong = any(look.failures for look in looks.values())
            again = last is not None and method.step == "outputs" and not is_wrong
            if again:  # what was right is asked only when nothing else fails: it was told to stay still
                lessons = [*self._anew(lessons[:judged]), *lessons[judged:]]
                self._look(looks, lessons, range(len(lessons)), only, system)
            seen = join(list(looks.values()))
            if last and not again and method.back_off and not seen.loss <= last.loss * _SAME:
                self._draft.restore(kept)
                rate, seen = rate / 2, last
                ceiling = rate
            else:
                if last and method.back_off and seen.loss > _TIMID * last.loss:
                    rate = min(method.grow * rate, ceiling)
                best, last = looks, seen
                kept = self._draft.deltas() if method.back_off else {}
            if self._on_step:
                self._on_step(Step(self.steps, seen.loss, len(seen.failures), seen.targets, rate))
            solved = method.early_stop and not seen.failures
            # Without a place to steer, X is zero, now and ever after.
            steered = set(failing if method.fixed else map(_place, seen.failures))
            if solved and only is None:
                self.sure, self.learnt = seen, lessons[:judged]
            if solved or not steered or taken >= self._budget or self._is_late:
                return taken
            steers.learn(seen.failures)
            asked = seen.pooled()
            self._move(asked, steers.at(asked.system, steered), rate, lessons)
            taken += 1
            self.steps += 1

    def _is_open(self, look: Trace | None) -> bool:
        """Whether a lesson has to be looked at after every step, and not only when no other fails."""
        return look is None or bool(look.failures) or self._method.step == "weights"

    def _look(
        self,
        looks: dict[int, Trace],
        lessons: Sequence[Lesson],
        wanted: Sequence[int],
        only: Place | None,
        system: System,
    ) -> None:
        """Look at some of the lessons again."""
        for each in wanted:
            Cancelled.check(self._cancelled)
            looks[each] = trace(
                self._model, [lessons[each]], self._draft.neurons,
                margin=self._method.margin, only=only, system=system, rows=self._method.step == "weights",
            )  # fmt: skip

    def _move(
        self, seen: Trace, steers: Float[Tensor, "n d"], rate: float, lessons: Sequence[Lesson]
    ) -> None:
        """One step: magnitude from the steers, direction from the gradient.

        For a system of one position the two ways are one. For more, signs given to the outputs leave the
        least squares' promise whole: each position moves as asked, and one without a steer stays still.
        """
        method = self._method
        if method.step == "weights":
            for layer in self._draft.neurons:
                step = minimum_norm(seen.activations[layer], steers).abs() * seen.gradients[layer].sign()
                self._draft.add(layer, -rate * step)
            return
        wanted = {layer: steers.abs() * seen.pulls[layer].sign() for layer in self._draft.neurons}
        if method.natural:
            for layer, each in wanted.items():
                wanted[layer] = natural(each, seen.pulls[layer], self._basis.damped(layer))
        far = rate * _how_far(seen, wanted, method.margin) if method.paced else rate
        for layer, each in wanted.items():
            self._draft.add(layer, -self._by_keys(layer, seen, far * each, lessons))

    def _by_keys(
        self, layer: int, seen: Trace, wanted: Float[Tensor, "n d"], lessons: Sequence[Lesson]
    ) -> Float[Tensor, "m d"]:
        """What is added to the values of all keys, for the places that are seen to move as wanted.

        A place keeps the key of its first step, ``M zᵀ``, the least movement that reaches it: so a patch has
        as many directions as places, however many steps were taken.
        """
        activations, scales = seen.activations[layer], self._scales[layer]
        new: dict[str, list[int]] = {}
        for row, place in enumerate(seen.system):
            if place not in scales:
                new.setdefault(place[0], []).append(row)
        stood = self._stood(layer, {case for case, _ in seen.system}) if new else None
        for case, rows in new.items():
            guard = self._guard(layer, case, seen, lessons, stood)
            keys = activations[rows] if guard is None else guard(activations[rows].T).T
            for row, scale in zip(rows, self._draft.extend(layer, keys), strict=True):
                scales[seen.system[row]] = (len(scales), scale)
        at, sizes = zip(*(scales[place] for place in seen.system), strict=True)
        lengths = torch.tensor(sizes, dtype=torch.float64)
        answers = activations.double() @ self._draft.keys(layer)[list(at)].T
        added = lengths[:, None] * shares(answers * lengths, wanted, self._method.ridge)
        step = torch.zeros(len(scales), added.shape[1])
        step[list(at)] = added.float()
        return step

    def _stood(self, layer: int, cases: Set[str]) -> Float[Tensor, "e k"] | None:
        """What stood at places of earlier repairs, of length one each; not at those of these cases."""
        if not (self._method.natural and self._method.earlier):
            return None
        keys = self._draft.earlier_keys(layer, cases)
        inputs, gram = self._ordinary(layer)
        return places(keys, inputs.float(), gram) if len(keys) else None

    def _ordinary(self, layer: int) -> tuple[Float16[Tensor, "r k"], Float[Tensor, "r r"] | None]:
        """What ordinary code gives the neurons that may move, and how that answers itself, where known."""
        inputs, chosen = self._basis.ordinary[layer].inputs, self._draft.neurons[layer]
        whole = len(chosen) == inputs.shape[1]
        return inputs[:, chosen], self._basis.gram(layer) if whole else None

    def _guard(
        self,
        layer: int,
        case: str,
        seen: Trace,
        lessons: Sequence[Lesson],
        stood: Float[Tensor, "e k"] | None,
    ) -> Guard | None:
        """What a case's least norm spares: its own prompts, ordinary code, what ``stood`` elsewhere."""
        chosen = self._draft.neurons[layer]
        activations = seen.activations[layer][[at == case for at, _ in seen.system]]
        mine = [lesson for lesson in lessons if lesson.case.id == case and lesson.stem]
        before = [lesson.ordinary[layer][:, chosen] for lesson in mine]
        own = torch.cat(before).float() if before and self._method.weigh else activations[:0]
        if not self._method.natural:
            return sparing(own)
        guarded = partial(sparing, own, *self._ordinary(layer))
        if stood is None:
            return guarded()
        earlier = activations.norm(dim=1).mean() * stood
        if len(earlier) > _EARLIER and (guard := guarded()):  # those that would move most
            sent = guard(activations.T)
            moved = (earlier @ sent).abs() / (activations.T * sent).sum(0)
            earlier = earlier[moved.amax(1).topk(_EARLIER).indices]
        return guarded(earlier)


def _how_far(seen: Trace, wanted: Mapping[int, Float[Tensor, "n d"]], margin: float) -> Float[Tensor, "n 1"]:
    """How many times what is wanted the places of each case together are short of, by the gradient.

    A place is short of what its lead lacks of the margin and a nat beyond. If all rivals lose alike, it
    grows by ``x · Σ ∂loss/∂outputs · wanted / (1-p)``, summed over layers, for ``x`` times what is wanted.
    """
    short = (margin + _BEYOND - seen.leads.double()).clamp(min=_BEYOND)
    products = [(pulls.double() * wanted[layer].double()).sum(1) for layer, pulls in seen.pulls.items()]
    others = -torch.expm1(-seen.losses.double().clamp(min=_LOSS))
    gains = seen.targets * torch.stack(products).sum(0) / others
    far = torch.zeros(len(seen.system), 1)
    for case in {case for case, _ in seen.system}:
        mine = torch.tensor([other == case for other, _ in seen.system])
        steered = mine & (gains > 0)
        if steered.any():
            far[mine] = float(short[steered].sum() / gains[steered].sum())
    return far


def _place(failure: Failure) -> Place:
    return failure.case, failure.position


class _Steers:
    """The steer of each place, from what it first failed with: S stays while Z is recomputed."""

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self._known: dict[Place, Float[Tensor, " d"]] = {}

    def learn(self, failures: Sequence[Failure]) -> None:
        """Remember the steers of places that had none."""
        new = [failure for failure in failures if _place(failure) not in self._known]
        if new:
            rows = self._basis.steer([each.expected for each in new], [each.predicted for each in new])
            self._known |= {_place(each): row for each, row in zip(new, rows, strict=True)}

    def at(self, places: Sequence[Place], failing: Set[Place]) -> Float[Tensor, "n d"]:
        """The steers of some places, a row for each; zero where nothing fails."""
        still = torch.zeros_like(next(iter(self._known.values())))
        return torch.stack([self._known[place] if place in failing else still for place in places])
