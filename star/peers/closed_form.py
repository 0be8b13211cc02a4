"""Editing in closed form, guarded by ordinary activations: after MEMIT and AlphaEdit.

MEMIT (arXiv 2210.07229, §4.3, algorithm 1): find by gradient what the hidden state behind the last
chosen layer should have been, then let every chosen layer, from the lowest, bring its share of what
is still missing. One step is one such round over all layers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from star.case import Case, Failure
from star.family import tensor_at
from star.locate import Layers
from star.model import CodeModel, Trunk
from star.patch import Draft
from star.peers.course import Course, Where, layers_at, whole
from star.result import Budget, Result, Step
from star.solve import Guard, minimum_norm
from star.trace import Lesson

__all__ = ["ClosedForm"]


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """The settings of the closed form.

    Unlike MEMIT there is no KL term in the search for the target: a case has no subject to ask
    about; and a target is sought for each failing position.
    """

    layers: Layers = "1/4"
    at: Where = "middle"
    #: Of Adam on the hidden state, in root mean squares of that state.
    rate: float = 0.1
    #: Adam steps at most, and the cross-entropy that is low enough to end them.
    tries: int = 25
    enough: float = 0.05
    #: How far the hidden state may be moved, as a share of its norm.
    reach: float = 0.75
    #: λ, as a share of the mean of what it is added to.
    damping: float = 1e-2

    def __call__(
        self,
        model: CodeModel,
        cases: Sequence[Case],
        budget: Budget = Budget(),
        on_step: Callable[[Step], None] | None = None,
        *,
        guards: Mapping[int, Guard] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """A patch that moves the hidden states of failing positions to where they should have been.

        ``guards`` are made once for a model by ``ordinary.inverse`` (MEMIT) or ``ordinary.null_space``
        (AlphaEdit), one for each of ``layers_at(depth, layers, at)``; a layer without one takes the
        plain least norm.

        Raises:
            CaseError: a case cannot be put to this model.
            Cancelled: ``cancelled`` said so, between two passes.
        """
        layers = layers_at(model.depth, self.layers, self.at)
        course = Course(model, cases, layers, budget, on_step, cancelled)
        with Draft(model, whole(model, layers)) as draft:
            for seen in course.steps(self.rate):
                if not seen.failures:
                    break
                self._round(model, course, draft, seen.failures, guards or {})
            manifest = {"method": asdict(self), "cases": [case.id for case in cases]}
            return course.result(draft.patch(manifest))

    def _round(
        self,
        model: CodeModel,
        course: Course,
        draft: Draft,
        failures: Sequence[Failure],
        guards: Mapping[int, Guard],
    ) -> None:
        """Find the targets, then change one layer after another."""
        layers, systems = sorted(draft.neurons), list(_systems(course.lessons, failures))
        goals: list[Tensor] = []
        for index, layer in enumerate(layers):
            inputs, states = [], []
            for lesson, at, tokens in systems:
                course.check()
                activations, trunk = _run(model, lesson, layer, layers[-1])
                if index == 0:
                    goals.append(self._goal(model, course, lesson, trunk, at, tokens))
                inputs.append(activations[at])
                states.append(_hidden(trunk.output)[0, at].float())
            missing = (torch.cat(goals) - torch.cat(states)) / (len(layers) - index)
            draft.add(layer, minimum_norm(torch.cat(inputs), missing, guards.get(layer), self.damping))

    def _goal(
        self, model: CodeModel, course: Course, lesson: Lesson, trunk: Trunk, at: list[int], tokens: list[int]
    ) -> Float[Tensor, "n d"]:
        """The hidden states with which the model would write the expected tokens, as near as may be."""
        state = _hidden(trunk.output)[0, at].float()
        unit = state.square().mean(-1, keepdim=True).sqrt()
        shift = torch.zeros_like(state, requires_grad=True)
        optimizer = torch.optim.Adam([shift], lr=self.rate)
        for _ in range(self.tries):
            course.check()
            moved = Trunk(trunk.layer, _moved(trunk.output, at, shift * unit))
            with torch.enable_grad(), model.resumed(moved):
                log_p = model.logits(lesson.ids, at).log_softmax(-1)
                loss = -log_p[range(len(at)), tokens].mean()
            if float(loss.detach()) < self.enough:
                break
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            with torch.no_grad():
                norm = shift.norm(dim=-1, keepdim=True) / state.shape[-1] ** 0.5
                shift.mul_((self.reach / norm.clamp(min=1e-12)).clamp(max=1.0))
        return state + shift.detach() * unit


def _systems(
    lessons: Sequence[Lesson], failures: Sequence[Failure]
) -> Iterator[tuple[Lesson, list[int], list[int]]]:
    """The lessons in which something fails: where in the sequence, and what is expected there."""
    for lesson in lessons:
        mine = [failure for failure in failures if failure.case == lesson.case.id]
        if mine:
            at = [lesson.positions[failure.position] for failure in mine]
            yield lesson, at, [failure.expected for failure in mine]


class _Seen(Exception):
    """Ends a run whose rest nobody needs."""


def _run(model: CodeModel, lesson: Lesson, layer: int, last: int) -> tuple[Float[Tensor, "t f"], Trunk]:
    """What enters the projection of ``layer``, and what leaves the layer ``last``."""
    kept: list[Any] = []

    def keep(_module: object, _args: object, output: Any) -> None:
        kept.append(output)
        raise _Seen

    handle = tensor_at(model.network, model.family.layers)[last].register_forward_hook(keep)
    try:
        with torch.no_grad(), model.tapped([layer]) as taps, model.resumed(lesson.trunk):
            model.logits(lesson.ids, [0])
    except _Seen:
        pass
    finally:
        handle.remove()
    return taps[layer].inputs.float(), Trunk(last + 1, kept[0])


def _hidden(output: Any) -> Tensor:
    """The hidden states ``(1, t, d)`` in what a layer gives out: some give more."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _moved(output: Any, at: list[int], shift: Float[Tensor, "n d"]) -> Any:
    """What a layer gave out, with the hidden states of some positions moved."""
    hidden = _hidden(output)
    moved = hidden.index_add(1, torch.tensor(at), shift[None].to(hidden.dtype))
    return (moved, *output[1:]) if isinstance(output, tuple) else moved
