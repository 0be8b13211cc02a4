"""One teacher-forced pass over cases: what fails, and what passed the output projections meanwhile."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from star.case import Case, Failure
from star.errors import Cancelled, CaseError
from star.model import CodeModel, Stem, Tap, Trunk

__all__ = ["Lesson", "Place", "System", "Trace", "begun", "elsewhere", "held", "join", "prepare", "trace"]

#: A case, and a position counted from the first token of its completion.
Place = tuple[str, int]
#: Places that are looked at: those that fail, all targets, or these.
System = Sequence[Place] | Literal["failing", "targets"]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A case as token ids: ``prompt + expected``, and what the model makes of it once for many looks."""

    case: Case
    expected: tuple[int, ...]
    #: What the layers below the repair make of all of it.
    trunk: Trunk
    #: What the others made of all that stands before the targets, where that is kept as well.
    stem: Stem | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """What the model is run on, after the stem."""
        return (self.case.prompt + self.expected)[self.since :]

    @property
    def since(self) -> int:
        """How long the stem is."""
        return self.stem.length if self.stem else 0

    @property
    def positions(self) -> range:
        """Where in ``ids`` the expected tokens, and after them the end, are predicted."""
        return range(len(self.case.prompt) - 1 - self.since, len(self.ids))

    @property
    def ordinary(self) -> Mapping[int, Float[Tensor, "m f"]]:
        """Activations of what stands before the targets, by layer; of nothing without a stem.

        The first position is unlike all others in every model: it holds what attention has no use for.
        """
        return {layer: inputs[1:] for layer, inputs in self.stem.inputs.items()} if self.stem else {}


@dataclass(frozen=True, slots=True)
class Trace:
    """What one pass over some lessons saw.

    ``loss`` is the mean cross-entropy over the targets: the expected tokens and the ends. The rest is of
    the places of ``system``, in their order: ``losses``; ``leads``, how far the expected token is ahead of
    its best rival in log-probability; and by layer activations ``(n, k)`` of the neurons asked for, and
    pulls ``(n, d)``, gradients of the loss with respect to the output of the projection.
    Gradients ``(k, d)`` are of the loss with respect to the rows of those neurons. Scores ``(f,)`` are
    the norm over the targets of gradient x activation (STAR, locating neurons).
    """

    loss: float
    failures: tuple[Failure, ...]
    targets: int
    system: tuple[Place, ...] = ()
    losses: Float[Tensor, " n"] = field(default_factory=lambda: torch.zeros(0))
    leads: Float[Tensor, " n"] = field(default_factory=lambda: torch.zeros(0))
    activations: dict[int, Float[Tensor, "n k"]] = field(default_factory=dict)
    pulls: dict[int, Float[Tensor, "n d"]] = field(default_factory=dict)
    gradients: dict[int, Float[Tensor, "k d"]] = field(default_factory=dict)
    scores: dict[int, Float[Tensor, " f"]] = field(default_factory=dict)

    @property
    def exact(self) -> float:
        """Token ExactMatch, teacher-forced, in percent."""
        return 100.0 * (1 - len(self.failures) / self.targets) if self.targets else 100.0

    def pooled(self) -> "Trace":
        """The same with one row for each place: the mean of those that it has, one for each prompt.

        Its loss is the largest of them, its lead the least: it is learnt when it is learnt at all of them.
        """
        rows: dict[Place, list[int]] = {}
        for row, place in enumerate(self.system):
            rows.setdefault(place, []).append(row)
        if len(rows) == len(self.system):
            return self

        def mean(of: Mapping[int, Tensor]) -> dict[int, Tensor]:
            return {
                layer: torch.stack([part[mine].mean(0) for mine in rows.values()])
                for layer, part in of.items()
            }

        return replace(
            self,
            system=tuple(rows),
            losses=torch.stack([self.losses[mine].amax() for mine in rows.values()]),
            leads=torch.stack([self.leads[mine].amin() for mine in rows.values()]),
            activations=mean(self.activations),
            pulls=mean(self.pulls),
        )


def prepare(model: CodeModel, cases: Sequence[Case], lowest_layer: int = 0) -> tuple[Lesson, ...]:
    """Cases as lessons for repairs at ``lowest_layer`` and above.

    Raises:
        CaseError: there is no case, two have one id, a prompt is empty, or a case is too long.
    """
    if not cases:
        raise CaseError("There is no case to teach; flag a completion first.")
    lessons: dict[str, Lesson] = {}
    for case in cases:
        if case.id in lessons:
            raise CaseError(f"Case {case.id} was named twice; name each case once.")
        if not case.prompt:
            raise CaseError(f"Case {case.id} has an empty prompt; write some code before its place.")
        expected = model.encode_next(case.written)
        model.check_length(len(case.prompt) + len(expected))
        lessons[case.id] = _lesson(model, case, expected, lowest_layer)
    return tuple(lessons.values())


def elsewhere(model: CodeModel, cases: Sequence[Case], lowest_layer: int = 0) -> tuple[Lesson, ...]:
    """The same cases at their other prompts, as ``prepare`` makes them; those too long are left out."""
    lessons = []
    for case in cases:
        expected = model.encode_next(case.written)
        lessons += [
            _lesson(model, replace(case, prompt=prompt), expected, lowest_layer)
            for prompt in case.elsewhere
            if model.fits(len(prompt) + len(expected))
        ]
    return tuple(lessons)


def begun(
    model: CodeModel, lessons: Sequence[Lesson], cancelled: Callable[[], bool] = lambda: False
) -> tuple[Lesson, ...]:
    """The same lessons, with what stands before their targets read by the model as it is now.

    A look then runs what is after that, alone; it is the same look as long as no weight changes.

    Raises:
        Cancelled: ``cancelled`` said so, between two passes.
    """
    made = []
    for lesson in lessons:
        Cancelled.check(cancelled)
        before = lesson.case.prompt[:-1]
        made.append(replace(lesson, stem=model.stem(before, lesson.trunk) if before else None))
    return tuple(made)


def _lesson(model: CodeModel, case: Case, expected: tuple[int, ...], lowest_layer: int) -> Lesson:
    return Lesson(case, expected, model.trunk(case.prompt + expected, lowest_layer))


def trace(
    model: CodeModel,
    lessons: Sequence[Lesson],
    neurons: Mapping[int, Int[Tensor, " k"]] | None = None,
    *,
    scored: Sequence[int] = (),
    margin: float = 0.0,
    only: Place | None = None,
    system: System = "failing",
    rows: bool = True,
) -> Trace:
    """What fails in ``lessons``, with what moving some neurons needs: activations and gradients.

    Args:
        model: is run once for each lesson, with a backward pass when neurons or scores are asked for.
        lessons: must have been prepared for the lowest layer asked for, or a lower one.
        neurons: by layer, those whose activations and gradients are wanted.
        scored: the layers whose neurons are to be scored.
        margin: a position also fails when the expected token leads the next by less (log-probability).
        only: look at this place and no other: a system of iterative mode.
        system: the places whose activations and pulls are wanted: those that fail, or all targets, or
            these.
        rows: whether the gradients of the neurons' rows are wanted too; a stem has no part in them.
    """
    # One lesson after another, each with its own backward pass: no two graphs are alive at once.
    return join(
        [
            _traced(model, lesson, neurons or {}, scored, margin, only, system, rows)
            for lesson in lessons
            if only is None or only[0] == lesson.case.id
        ]
    )


def join(traces: Sequence[Trace]) -> Trace:
    """Traces of different lessons, looked at for the same, as one."""
    if len(traces) == 1:
        return traces[0]
    count = sum(each.targets for each in traces) or 1
    shares = [each.targets / count for each in traces]

    def all_of(of: Callable[[Trace], dict[int, Tensor]], shared: bool) -> dict[int, Tensor]:
        parts = [
            {layer: rows * share if shared else rows for layer, rows in of(each).items()}
            for each, share in zip(traces, shares, strict=True)
        ]
        return {layer: torch.cat([part[layer] for part in parts]) for layer in (parts[0] if parts else ())}

    def sum_of(of: Callable[[Trace], dict[int, Tensor]], power: int) -> dict[int, Tensor]:
        sums: dict[int, Tensor] = {}
        for each, share in zip(traces, shares, strict=True):
            for layer, part in of(each).items():
                part = (part * share) ** power
                sums[layer] = sums[layer] + part if layer in sums else part
        return {layer: total ** (1 / power) for layer, total in sums.items()}

    return Trace(
        sum(each.loss * share for each, share in zip(traces, shares, strict=True)),
        tuple(failure for each in traces for failure in each.failures),
        sum(each.targets for each in traces),
        tuple(place for each in traces for place in each.system),
        torch.cat([each.losses for each in traces] or [torch.zeros(0)]),
        torch.cat([each.leads for each in traces] or [torch.zeros(0)]),
        all_of(lambda each: each.activations, False),
        all_of(lambda each: each.pulls, True),
        sum_of(lambda each: each.gradients, 1),
        sum_of(lambda each: each.scores, 2),
    )


def _traced(
    model: CodeModel,
    lesson: Lesson,
    neurons: Mapping[int, Int[Tensor, " k"]],
    scored: Sequence[int],
    margin: float,
    only: Place | None,
    system: System,
    rows: bool,
) -> Trace:
    """One lesson's trace."""
    look = _look(model, lesson, sorted({*neurons, *scored}), margin, only)
    match system:
        case "failing":
            places = look.failing
        case "targets":
            places = [(lesson.case.id, at - lesson.positions[0]) for at in look.at]
        case _:
            places = [place for place in system if place[0] == lesson.case.id]
    count = max(len(look.at), 1)
    # A lesson that only has to stay as it is has no gradient that anybody asks for.
    if look.losses.requires_grad and (look.failures or scored or system != "targets"):
        torch.autograd.backward(look.losses.sum() / count)
    at = [lesson.positions[position] for _, position in places]
    activations, pulls, gradients, scores = {}, {}, {}, {}
    for layer, index in neurons.items():
        inputs, pull = look.taps[layer].inputs[:, index].float(), look.taps[layer].gradient
        activations[layer], pulls[layer] = inputs[at], pull[at]
        if rows:
            gradients[layer] = inputs.T @ pull
    for layer in scored:
        tap, weight = look.taps[layer], model.by_neuron(model.projection(layer).weight.data)
        product = tap.inputs[look.at].float() * (tap.gradient[look.at] @ weight.float().T)
        scores[layer] = product.square().sum(0).sqrt()
    losses, asked = look.losses.detach(), [look.at.index(each) for each in at]
    loss = float(losses.sum()) / count
    return Trace(
        loss, tuple(look.failures), len(look.at), tuple(places), losses[asked], look.leads[asked],
        activations, pulls, gradients, scores,
    )  # fmt: skip


@dataclass(slots=True)
class _Look:
    """What one pass over a lesson gave; ``at`` are the positions that predict the targets."""

    losses: Tensor
    leads: Tensor
    at: list[int]
    failures: list[Failure]
    taps: dict[int, Tap]

    @property
    def failing(self) -> list[Place]:
        return [(failure.case, failure.position) for failure in self.failures]


def _look(
    model: CodeModel, lesson: Lesson, layers: Sequence[int], margin: float, only: Place | None
) -> _Look:
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.enable_grad() if layers else torch.no_grad())
        taps = stack.enter_context(model.tapped(layers)) if layers else {}
        stack.enter_context(model.resumed(lesson.trunk, lesson.since))
        logits = model.logits(lesson.ids, lesson.positions, lesson.stem)
        log_p = held(model, lesson.case.healed, lesson.expected, logits).log_softmax(-1)
    targets = [
        target
        for target in _targets(model, lesson, log_p.detach(), margin)
        if only is None or only[1] == target.position
    ]
    chosen = log_p[[t.position for t in targets], [t.token for t in targets]]
    return _Look(
        -chosen,
        torch.tensor([target.lead for target in targets]),
        [lesson.positions[t.position] for t in targets],
        [Failure(lesson.case.id, t.position, t.token, t.rival) for t in targets if t.rival is not None],
        taps,
    )


def held(
    model: CodeModel, healed: str, ids: Sequence[int], logits: Float[Tensor, "n v"]
) -> Float[Tensor, "n v"]:
    """Logits before each of ``ids``; where what is healed is written, of the tokens that can be alone."""
    for row, allowed in enumerate(model.vocabulary.along(healed, ids)):
        barred = torch.full_like(logits[row], -torch.inf).index_fill(0, allowed, 0.0)
        logits = logits.index_add(0, torch.tensor([row]), barred[None])
    return logits


@dataclass(frozen=True, slots=True)
class _Target:
    """What should be written at a position, and what is written, or nearly, in its stead."""

    position: int
    token: int
    lead: float
    rival: int | None


def _targets(
    model: CodeModel, lesson: Lesson, log_p: Float[Tensor, "n v"], margin: float
) -> Iterator[_Target]:
    """The target at each position, up to the one where the suggestion ends.

    A token that ends it just as expected is as good as the expected one, and is then the target
    itself: a stop token, a line end where the stop rule ends at one, ``)`` and a line end in one
    token (after which the end is not asked for). Such an end needs no margin.
    """
    last = len(lesson.expected)
    for i, row in enumerate(log_p):
        best, second = (int(token) for token in row.topk(2).indices)
        ahead = float(row[best] - row[second])
        if i < last and best == lesson.expected[i]:
            close = ahead < margin
            spared = close and i == last - 1 and _ends(model, lesson, i, second)
            yield _Target(i, best, ahead, second if close and not spared else None)
        elif i >= last - 1 and _ends(model, lesson, i, best):
            yield _Target(i, best, ahead, None)
            return
        else:
            ends = sorted(model.stop_ids)
            token = lesson.expected[i] if i < last else ends[int(row[ends].argmax())]
            yield _Target(i, token, float(row[token] - row[best]), best)


def _ends(model: CodeModel, lesson: Lesson, position: int, token: int) -> bool:
    """Whether writing ``token`` at ``position`` ends the suggestion just as expected."""
    stop, before = lesson.case.stop, lesson.expected[:position]
    written = before if token in model.stop_ids else (*before, token)
    text = model.decode_next(lesson.case.prompt, written, lesson.case.healed)
    ended = token in model.stop_ids or stop.end(text) is not None
    return ended and stop.trim(text) == stop.trim(lesson.case.expected)
