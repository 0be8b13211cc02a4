"""What a repair may cost, what is seen of it on its way, and what it came to, whatever the method."""

import math
from dataclasses import dataclass

from star.case import Case, Failure
from star.decode import write
from star.model import CodeModel
from star.patch import Patch

__all__ = ["Budget", "Outcome", "Result", "Step", "outcome"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a repair may cost. In iterative mode ``steps`` are for each failing token.

    A step that is taken back counts: it cost a pass like any other.
    """

    steps: int = 16
    seconds: float = math.inf


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


def outcome(model: CodeModel, case: Case) -> Outcome:
    """What a model, as it is now, writes at the place of a case."""
    after = write(model, case)
    return Outcome(case.id, after, after == case.stop.trim(case.expected))
