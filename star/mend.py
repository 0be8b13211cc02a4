"""One way to repair after another, until one solves what was asked and passes the gate."""

import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from star.case import Case
from star.errors import Cancelled
from star.gate import Limits, Reading, Sample, Verdict, judge
from star.model import CodeModel
from star.patch import installed
from star.repair import Star, repair
from star.result import Budget, Result, Step
from star.solve import Basis
from star.trace import Lesson

__all__ = ["Attempt", "Guarded", "mend", "pairs"]

#: A repair that breaks earlier cases is made again together with these so often, as long as it breaks others.
_ROUNDS = 3
#: A way that is begun when the budget's seconds are over has so many.
_LEAST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way of repairing, as it came out, and what the gate said."""

    method: Star
    result: Result
    verdict: Verdict

    def solved(self, asked: Set[str]) -> int:
        """How many of some cases are solved."""
        return sum(outcome.solved for outcome in self.result.outcomes if outcome.case in asked)


@dataclass(frozen=True, slots=True)
class Guarded:
    """What a repair must leave standing; ``before`` are readings of the samples."""

    #: Cases that are solved, and must be so afterwards.
    hold: Sequence[Lesson]
    samples: Sequence[Sample]
    before: Sequence[Reading]
    limits: Limits = Limits()


def mend(
    model: CodeModel,
    cases: Sequence[Case],
    guarded: Guarded,
    budget: Budget,
    *,
    method: Star = Star(),
    basis: Basis | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_judge: Callable[[], None] = lambda: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Attempt]:
    """Attempts on top of what is installed, the best one last; the model is left as it was found.

    The best is through the gate before anything else, and then solves most of the cases. All of them share
    the seconds of the budget, and as many more for each earlier case that is taught again. What the gate
    takes is not counted, as it grows with the history. A way that is begun when they are over has one more.

    Raises:
        CaseError: a case cannot be put to this model.
        Cancelled: ``cancelled`` said so, between two passes.
    """
    asked = {case.id for case in cases}
    attempts: list[Attempt] = []
    used = 0.0
    for way, together in _ways(method, cases, guarded.hold, attempts):
        Cancelled.check(cancelled)
        given = budget.seconds * len(together) / len(cases)
        started, left = time.monotonic(), replace(budget, seconds=max(given - used, _LEAST_SECONDS))
        result = repair(model, together, left, on_step, method=way, basis=basis, cancelled=cancelled)
        used += time.monotonic() - started
        on_judge()
        with installed(model, [*model.patches, result.patch]):
            verdict = judge(
                model, guarded.hold, guarded.samples, guarded.before, guarded.limits, cancelled
            )  # fmt: skip
        attempts.append(Attempt(way, result, verdict))
        if verdict.passed and attempts[-1].solved(asked) == len(asked):
            return attempts

    def worth(attempt: Attempt) -> tuple[bool, int]:
        solved = attempt.solved(asked)
        return attempt.verdict.passed and solved > 0, solved

    best = max(attempts, key=worth)  # the first of equals
    return [*(each for each in attempts if each is not best), best]


def pairs(cases: Sequence[Case]) -> dict[str, str]:
    """Cases that no model can solve together, each with the first that it contradicts.

    They have the same prompt and expect different texts: greedy decoding writes one.
    """
    found: dict[str, str] = {}
    for case in cases:
        for other in cases:
            same_place = (
                case.prompt == other.prompt and case.stop == other.stop and case.healed == other.healed
            )
            if same_place and case.stop.trim(case.expected) != other.stop.trim(other.expected):
                found[case.id] = other.id
                break
    return found


def _ways(
    method: Star, cases: Sequence[Case], hold: Sequence[Lesson], attempts: Sequence[Attempt]
) -> Iterator[tuple[Star, Sequence[Case]]]:
    """The ways to try, one after another, by what stood against the last one.

    As asked; then together with the cases that broke. Where the steps were not enough, or too much else
    moved, where the cases were flagged alone: with less of the promise given up, or more gently.
    """
    yield method, cases
    alone = replace(method, elsewhere=False)
    if attempts[-1].verdict.passed:
        yield replace(alone, ridge=method.ridge / 10), cases
        return
    together = list(cases)
    for _ in range(_ROUNDS):
        known = {case.id for case in together}
        broken = set(attempts[-1].verdict.broken) - known
        if not broken:
            break
        together += [lesson.case for lesson in hold if lesson.case.id in broken]
        yield method, together
    yield replace(alone, margin=method.margin / 4, rate=method.rate / 2), together
    yield replace(alone, margin=0.0, rate=method.rate / 4), together
