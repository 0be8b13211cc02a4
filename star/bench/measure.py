"""What a repair did to one row: the lesson, its siblings, its altered places, its neighbours, other code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from star.alter import alterations
from star.bench.cost import Cost
from star.bench.data import Context, Put, Row
from star.bench.watch import Known, Pair, Watch, below, remembered, wanted, writes, written
from star.gate import Sample, judge, read
from star.model import CodeModel, Trunk
from star.patch import installed
from star.result import Result

__all__ = [
    "Bystanders",
    "Disturbance",
    "Effect",
    "Watched",
    "effect",
    "samples",
    "watch",
]


@dataclass(frozen=True, slots=True)
class Effect:
    """What one repair did to its row; a pair is how many of how many."""

    #: Token ExactMatch, teacher-forced, in percent.
    exact_before: float
    exact_after: float
    solved: bool
    #: Siblings that were wrong before, and are right now.
    near: Pair
    distant: Pair
    #: Altered flagged contexts that are right; none are counted when the row is not solved.
    robust: Pair
    #: Neighbours at which the very same is written as before.
    neighbours: Pair
    steps: int
    seconds: float
    #: Forward passes over the same tokens.
    passes: float
    patch_bytes: int
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Disturbance:
    """How much moved on unrelated code."""

    positions: int
    #: Share of argmax tokens that stayed.
    unchanged: float
    #: Mean KL divergence from before, in nats a token, as the gate takes it.
    kl: float


@dataclass(frozen=True, slots=True)
class Watched:
    """A row made ready to be looked at after each method."""

    row: Row
    flagged: Watch
    #: Siblings that were wrong.
    near: Watch
    distant: Watch
    robust: Watch
    #: What was written there, whatever the file says.
    neighbours: Watch


def watch(
    model: CodeModel, put: Put, row: Row, known: Known | None = None, lowest: int = 0, seed: int = 0
) -> Watched:
    """A row made ready on the model as it is before any method: a pass or two for each context, once.

    Args:
        model: neighbours must go on getting what it writes now, and siblings it has right do not count.
        put: how a context is put to it.
        row: the row.
        known: what was found before; what is found now is added.
        lowest: the lowest layer that the methods will change. Methods that change lower ones are judged just
            as rightly, by whole passes.
        seed: of the alterations.

    Raises:
        CaseError: a context is longer than the model's.
    """

    def is_wrong(context: Context) -> bool:
        target = wanted(model, put(context))
        return not remembered(known, "right", model, target.case, lambda: writes(model, target))

    def right(contexts: Sequence[Context]) -> Watch:
        return Watch([wanted(model, put(context)) for context in contexts], lowest)

    siblings = [context for context in row.siblings if is_wrong(context)]
    return Watched(
        row,
        right([row.flagged]),
        right([context for context in siblings if context.role == "near"]),
        right([context for context in siblings if context.role == "distant"]),
        right(alterations(row.flagged, seed)),
        Watch([written(model, put(context), known) for context in row.neighbours], lowest),
    )


def effect(
    model: CodeModel,
    watched: Watched,
    result: Result,
    cost: Cost,
    cancelled: Callable[[], bool] = lambda: False,
) -> Effect:
    """What a repair of one row came to, its patch on top of what is installed while it is looked at.

    Raises:
        Cancelled: ``cancelled`` said so, between two passes.
    """
    with installed(model, [*model.patches, result.patch]):
        solved = all(watched.flagged.look(model, cancelled))
        near, distant, neighbours = (
            each.count(model, cancelled) for each in (watched.near, watched.distant, watched.neighbours)
        )
        robust = watched.robust.count(model, cancelled) if solved else (0, 0)
    return Effect(
        exact_before=result.exact_before,
        exact_after=result.exact_after,
        solved=solved,
        near=near,
        distant=distant,
        robust=robust,
        neighbours=neighbours,
        steps=result.steps,
        seconds=cost.seconds,
        passes=cost.passes,
        patch_bytes=result.patch.size_bytes,
        peak_mb=cost.peak_mb,
    )


def samples(model: CodeModel, programs: Sequence[tuple[str, str]]) -> list[Sample]:
    """Prompts and solutions, read from left to right, as samples of which the solution is looked at."""
    made = []
    for prompt, solution in programs:
        before = model.encode_first(prompt)
        made.append(Sample(before + model.encode_next(solution), max(1, len(before))))
    return made


class Bystanders:
    """Unrelated code, read on the model as it is before any method."""

    def __init__(
        self,
        model: CodeModel,
        samples: Sequence[Sample],
        lowest: int = 0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Read the samples: a pass for each. ``lowest`` as in ``watch``.

        Raises:
            Cancelled: ``cancelled`` said so, between two passes.
        """
        self._samples = tuple(samples)
        self._lowest = min(lowest, model.depth - 1)
        self._below = below(model, self._lowest)
        self._readings = read(model, self._samples, self._lowest, cancelled)

    def moved(self, model: CodeModel, cancelled: Callable[[], bool] = lambda: False) -> Disturbance:
        """How far ``model`` as it is now is from what was read.

        Raises:
            Cancelled: ``cancelled`` said so, between two passes.
        """
        readings = self._readings
        if below(model, self._lowest) != self._below:  # what was kept of those layers is theirs no more
            readings = [replace(reading, trunk=Trunk(0)) for reading in readings]
        verdict = judge(model, [], self._samples, readings, cancelled=cancelled)
        return Disturbance(verdict.positions, verdict.unchanged, verdict.kl)
