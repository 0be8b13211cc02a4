"""MINT (arXiv 2312.05356): one failing token at a time, one neuron at a time, no training.

The ten neurons of the last half of the layers with the largest gradient x activation are tried one
by one; the one that helps most moves a little towards the patch vector, a scaled semantic
difference; until the token is right, or ten edits were not enough and are undone.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from star.case import Case
from star.locate import Layers, layers_by_depth
from star.model import CodeModel, Trunk
from star.patch import Draft
from star.peers.course import Course
from star.peers.grown import grown, moved_only
from star.result import Budget, Result, Step
from star.solve import Basis
from star.trace import Lesson, Place, Trace, trace

__all__ = ["Mint", "edited", "patch_vector"]

#: A layer, and the place of a neuron among those of the draft in that layer.
_Candidate = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mint:
    """The settings of MINT; the defaults are the paper's."""

    layers: Layers = "2/4"
    candidates: int = 10
    step: float = 0.01
    edits: int = 10

    def __call__(
        self,
        model: CodeModel,
        cases: Sequence[Case],
        budget: Budget = Budget(),
        on_step: Callable[[Step], None] | None = None,
        *,
        basis: Basis | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """A patch of single neurons that makes the model write what the cases expect.

        Steps are edits, and ``budget.steps`` are for each failing token, like ``edits``. Tokens that
        a later edit broke are gone through again with the edits they have left. The manifest says how
        many tokens were skipped.

        Raises:
            CaseError: a case cannot be put to this model.
            Cancelled: ``cancelled`` said so, between two passes.
        """
        layers = layers_by_depth(model.depth, self.layers)
        course = Course(model, cases, layers, budget, on_step, cancelled)
        of = {lesson.case.id: lesson for lesson in course.lessons}
        limit, used, skipped = min(self.edits, budget.steps), dict[Place, int](), set[Place]()
        with _Surgery(model, self, layers, course, basis or Basis(model)) as surgery:
            while True:
                seen, before = course.look(), course.taken
                for place in [(each.case, each.position) for each in seen.failures]:
                    if course.is_late:
                        break
                    left = limit - used.get(place, 0)
                    if place not in skipped and left > 0:
                        count, right = surgery.mend(of[place[0]], place, left)
                        used[place] = used.get(place, 0) + count
                        skipped |= set() if right else {place}
                if course.taken == before:
                    course.tell(seen, self.step)
                    break
            ids = [case.id for case in cases]
            about = {"method": asdict(self), "cases": ids, "skipped": len(skipped)}
            return course.result(moved_only(surgery.draft.patch(about)))


def patch_vector(difference: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """The semantic difference of two tokens over its own range: ``Δs / (max Δs - min Δs)``."""
    return difference / (difference.max() - difference.min()).clamp(min=1e-12)


def edited(row: Float[Tensor, " d"], patch: Float[Tensor, " d"], step: float) -> Float[Tensor, " d"]:
    """A neuron moved a little towards a patch vector: ``(w + step · p) / (1 + step)``."""
    return (row + step * patch) / (1 + step)


class _Surgery:
    """Edits of single neurons, in a draft that is opened anew for each token's candidates."""

    def __init__(
        self, model: CodeModel, method: Mint, layers: Sequence[int], course: Course, basis: Basis
    ) -> None:
        self._model = model
        self._method = method
        self._layers = layers
        self._course = course
        self._basis = basis
        #: The draft holds the neurons that were edited, and the candidates: rows, not layers.
        self.draft = Draft(model, {})

    def __enter__(self) -> "_Surgery":
        return self

    def __exit__(self, *_error: object) -> None:
        self.draft.close()

    def mend(self, lesson: Lesson, place: Place, left: int) -> tuple[int, bool]:
        """Edit until the token at a place is right, or take all of it back; the edits, and which it was."""
        self._course.check()
        seen = trace(self._model, [lesson], scored=self._layers, only=place)
        if not seen.failures:
            return 0, True
        pool = self._opened(seen)
        trunk = self._trunk(lesson, min(layer for layer, _ in pool))
        before, count, loss = self.draft.deltas(), 0, seen.loss
        while seen.failures and count < left and not self._course.is_late:
            self._course.tell(replace(seen, loss=loss), self._method.step)
            failure = seen.failures[0]
            predicted, row = self._edit(lesson, place, pool, trunk, failure.expected, failure.predicted)
            loss = -float(row[failure.expected].log())
            count += 1
            self._course.taken += 1
            if predicted == failure.expected:
                return count, True
            if predicted != failure.predicted:
                # Another token came up: it may end the suggestion just as well, or be the one to fight now.
                self._course.check()
                seen = trace(self._model, [lesson], only=place)
        if seen.failures:
            self.draft.restore(before)
        return count, not seen.failures

    def _opened(self, seen: Trace) -> list[_Candidate]:
        """The candidates of a token, in a draft that holds them and all that was edited before."""
        width = self._model.neurons
        best = torch.cat([seen.scores[layer] for layer in self._layers]).topk(self._method.candidates).indices
        pool = [(self._layers[int(i) // width], int(i) % width) for i in best]
        neurons = {
            layer: torch.tensor(sorted(neuron for of, neuron in pool if of == layer)) for layer, _ in pool
        }
        self.draft = grown(self._model, self.draft, neurons)
        index = self.draft.neurons
        return [(layer, int(torch.searchsorted(index[layer], neuron))) for layer, neuron in pool]

    def _trunk(self, lesson: Lesson, lowest: int) -> Trunk:
        """What lies below all candidates, which no edit of this token changes."""
        if lowest <= lesson.trunk.layer:
            return lesson.trunk
        self._course.check()
        with self._model.resumed(lesson.trunk):
            return self._model.trunk(lesson.ids, lowest)

    def _edit(
        self,
        lesson: Lesson,
        place: Place,
        pool: list[_Candidate],
        trunk: Trunk,
        expected: int,
        predicted: int,
    ) -> tuple[int, Tensor]:
        """Edit the candidate that helps most; what is then predicted, and all probabilities.

        Each candidate is edited in earnest, looked at, and taken back: so the pass that tried the
        best one is also the one that predicts anew.
        """
        direction = patch_vector((self._basis.rows([expected]) - self._basis.rows([predicted]))[0])
        at = lesson.positions[place[1]]
        before = self.draft.deltas()
        gaps, seen, after = [], [], []
        for layer, index in pool:
            self._course.check()
            self._move(layer, index, direction)
            with torch.no_grad(), self._model.resumed(trunk):
                row = self._model.logits(lesson.ids, [at])[0].softmax(-1)
            gaps.append(float(row[predicted] - row[expected]))
            seen.append(row)
            after.append({layer: self.draft.deltas()[layer]})
            self.draft.restore({layer: before[layer]})
        best = gaps.index(min(gaps))
        self.draft.restore(after[best])
        return int(seen[best].argmax()), seen[best]

    def _move(self, layer: int, index: int, direction: Float[Tensor, " d"]) -> None:
        neurons = self.draft.neurons[layer]
        weight = self._model.by_neuron(self._model.projection(layer).weight.data)
        row = weight[neurons[index]].float()
        step = torch.zeros(len(neurons), self._model.width)
        step[index] = edited(row, direction, self._method.step) - row
        self.draft.add(layer, step)
