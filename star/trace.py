"""One teacher-forced pass over cases: what fails, and what passed the output projections meanwhile."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from star.case import Case, Failure
from star.errors import CaseError
from star.model import CodeModel, Trunk

__all__ = ["Lesson", "Trace", "prepare", "trace"]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A case as token ids: ``prompt + expected``, and what the layers below the repair make of it."""

    case: Case
    expected: tuple[int, ...]
    trunk: Trunk

    @property
    def ids(self) -> tuple[int, ...]:
        """What the model is run on."""
        return self.case.prompt + self.expected

    @property
    def positions(self) -> range:
        """Where the expected tokens, and after them the end, are predicted."""
        return range(len(self.case.prompt) - 1, len(self.ids))


@dataclass(frozen=True, slots=True)
class Trace:
    """What one pass over some lessons saw.

    ``activations``, ``gradients`` and ``scores`` are by layer. Activations ``(n, f)`` stand at the
    failing positions, in the order of ``failures``. Gradients ``(f, d)`` are of the loss with
    respect to the projection seen by neuron, over all tokens. Scores ``(f,)`` are the norm over the
    target positions of gradient x activation (STAR, locating neurons).
    """

    loss: float
    failures: tuple[Failure, ...]
    #: Positions (expected tokens and ends) that count, over all lessons.
    targets: int
    activations: dict[int, Float[Tensor, "n f"]]
    gradients: dict[int, Float[Tensor, "f d"]]
    scores: dict[int, Float[Tensor, " f"]]

    @property
    def exact(self) -> float:
        """Token ExactMatch, teacher-forced, in percent."""
        return 100.0 * (1 - len(self.failures) / self.targets) if self.targets else 100.0


def prepare(model: CodeModel, cases: Sequence[Case], lowest_layer: int = 0) -> tuple[Lesson, ...]:
    """Cases as lessons for repairs at ``lowest_layer`` and above.

    Raises:
        CaseError: a prompt is empty, or a case holds no tokens to teach.
    """
    lessons = []
    for case in cases:
        if not case.prompt:
            raise CaseError(f"Case {case.id} has an empty prompt; write some code before its place.")
        expected = model.encode_next(case.expected)
        trunk = model.trunk(case.prompt + expected, lowest_layer)
        lessons.append(Lesson(case, expected, trunk))
    return tuple(lessons)


def trace(
    model: CodeModel,
    lessons: Sequence[Lesson],
    layers: Sequence[int] = (),
    *,
    margin: float = 0.0,
    first_only: bool = False,
) -> Trace:
    """What fails in ``lessons``, with activations and gradients of ``layers`` when any are named.

    A position also counts as failing when the expected token leads the next by less than ``margin``
    (log-probability). ``first_only`` looks at the first failing position of all and no other: the
    system of iterative mode.
    """
    looks = []
    for lesson in lessons:
        look = _look(model, lesson, layers, margin)
        if first_only:
            look = _only_first(look)
        looks.append(look)
        if first_only and look.failures:
            looks = [look]
            break
    targets = sum(len(look.losses) for look in looks)
    rows = list(layers)
    activations: dict[int, list[Tensor]] = {layer: [] for layer in rows}
    gradients: dict[int, Tensor] = {}
    squares: dict[int, Tensor] = {}
    loss = 0.0
    for look in looks:
        total = look.losses.sum() / max(targets, 1)
        loss += float(total.detach())
        if not rows:
            continue
        if total.requires_grad:
            total.backward()
        for layer in rows:
            tap = look.taps[layer]
            activations[layer].append(tap.inputs[look.failing])
            given = tap.outputs.grad
            if given is None:
                continue
            out = given.reshape(-1, given.shape[-1])
            if layer in gradients:
                gradients[layer].addmm_(tap.inputs.T, out)
            else:
                gradients[layer] = tap.inputs.T.float() @ out.float()
            at = look.target_positions
            weight = model.by_neuron(model.projection(layer).weight.data)
            product = (tap.inputs[at] * (out[at].to(weight.dtype) @ weight.T)).float()
            squares[layer] = squares.get(layer, torch.zeros(())) + product.square().sum(0)
    return Trace(
        loss,
        tuple(failure for look in looks for failure in look.failures),
        targets,
        {layer: torch.cat(parts).float() for layer, parts in activations.items() if parts},
        gradients,
        {layer: square.sqrt() for layer, square in squares.items()},
    )


@dataclass(slots=True)
class _Look:
    """One lesson's share of a trace."""

    losses: Tensor
    failures: list[Failure]
    failing: list[int]  # sequence positions that predict the failing tokens
    target_positions: list[int]
    taps: dict[int, "object"]


def _look(model: CodeModel, lesson: Lesson, layers: Sequence[int], margin: float) -> "_Look":
    taps_of = model.tapped(layers) if layers else contextlib.nullcontext({})
    grad = torch.enable_grad() if layers else torch.no_grad()
    with grad, taps_of as taps, model.resumed(lesson.trunk):
        logits = model.logits(lesson.ids, lesson.positions)
    log_p = logits.log_softmax(-1)
    seen = log_p.detach()
    best = seen.argmax(-1).tolist()
    failures, failing, at, losses = [], [], [], []
    for i, position in enumerate(lesson.positions):
        at_end = i == len(lesson.expected)
        if i >= len(lesson.expected) - 1 and best[i] != (None if at_end else lesson.expected[i]):
            ended = _ends(model, lesson, i, best[i])
            if ended and not at_end:
                break  # `)` and a line end in one token: the end is never asked for
            if ended:
                continue
        if at_end:
            ends = sorted(model.stop_ids)
            target = ends[int(seen[i, ends].argmax())]
        else:
            target = lesson.expected[i]
        losses.append(-log_p[i, target])
        at.append(position)
        rival = best[i] if best[i] != target else _second(seen[i])
        if at_end and rival in model.stop_ids:
            continue
        if best[i] != target or float(seen[i, target] - seen[i, rival]) < margin:
            failures.append(Failure(lesson.case.id, i, target, rival))
            failing.append(position)
    stacked = torch.stack(losses) if losses else torch.zeros(0)
    return _Look(stacked, failures, failing, at, taps)


def _only_first(look: _Look) -> _Look:
    if not look.failures:
        return look
    first = look.target_positions.index(look.failing[0])
    return _Look(
        look.losses[first : first + 1],
        look.failures[:1],
        look.failing[:1],
        look.target_positions[first : first + 1],
        look.taps,
    )


def _second(row: Float[Tensor, " v"]) -> int:
    return int(row.topk(2).indices[1])


def _ends(model: CodeModel, lesson: Lesson, index: int, token: int) -> bool:
    """Whether writing ``token`` at ``index`` ends the suggestion just as expected."""
    if token in model.stop_ids:
        return index == len(lesson.expected)
    text = model.decode_next(lesson.case.prompt, [*lesson.expected[:index], token])
    stop = lesson.case.stop
    return stop.end(text) is not None and stop.trim(text) == stop.trim(lesson.case.expected)
