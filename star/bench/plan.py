"""What a run is to measure, and how far it has come."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from star.bench.data import Row
from star.result import Budget

__all__ = ["MEASURES", "Data", "OnProgress", "Pace", "Plan", "apart"]

MEASURES = ("effectiveness", "generalization", "robustness", "specificity")

#: Told how much of how much is done, what is being done, and the seconds that are left if known.
OnProgress = Callable[[int, int, str, float | None], None]

#: What is being done, by which method: things that take about as long as one another.
_Kind = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Data:
    """A data set: the rows for the figures, and rows of the same kind to choose settings by."""

    name: str
    figures: tuple[Row, ...]
    tuning: tuple[Row, ...] = ()


def apart(data: Sequence[Data]) -> tuple[Data, ...]:
    """The same, without tuning rows that are among any figures: a file, or two, may hold a row twice."""

    def text(row: Row) -> tuple[str, str, str]:
        return row.flagged.prefix, row.flagged.suffix, row.flagged.expected

    measured = {text(row) for each in data for row in each.figures}
    return tuple(
        replace(each, tuning=tuple(row for row in each.tuning if text(row) not in measured)) for each in data
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run is to measure."""

    data: tuple[Data, ...]
    methods: tuple[str, ...]
    #: What one repair may cost, whatever the method.
    budget: Budget
    seed: int = 0
    #: Rows of each data set that the base gets wrong; None: all of them.
    limit: int | None = None
    #: Tuning rows of each data set that the base gets wrong.
    tuning_rows: int = 8
    measures: frozenset[str] = frozenset(MEASURES)
    #: Whether each row is repaired by itself, from the base.
    singles: bool = True
    #: Cases to solve as one system; fewer than two: none.
    batch: int = 0
    #: Cases to repair one after another on one model.
    lifelong: int = 0
    lifelong_methods: tuple[str, ...] = ("ours",)


class Pace:
    """How much is done, how much is to do, and how long that takes at the pace seen so far."""

    def __init__(self, on_progress: OnProgress) -> None:
        """Tell ``on_progress`` whenever something is begun or done."""
        self._on_progress = on_progress
        self._left: Counter[_Kind] = Counter()
        self._done = 0
        self._counts: Counter[_Kind] = Counter()
        self._seconds: Counter[_Kind] = Counter()  # sums of floats, though its type says int

    def plan(self, kind: str, method: str, count: int) -> None:
        """Expect so many more of a kind."""
        self._left[kind, method] += count

    def drop(self, kind: str, method: str) -> None:
        """Expect no more of a kind: there were fewer than planned."""
        self._left[kind, method] = 0

    def skip(self, kind: str, method: str) -> None:
        """One of a kind was done by an earlier try."""
        self._left[kind, method] -= 1
        self._done += 1

    @contextmanager
    def one(self, kind: str, method: str, what: str) -> Iterator[None]:
        """Do one of a kind."""
        self._tell(what)
        started = time.monotonic()
        yield
        self._seconds[kind, method] += time.monotonic() - started  # type: ignore[assignment]
        self._counts[kind, method] += 1
        self.skip(kind, method)
        self._tell(what)

    @property
    def remaining_seconds(self) -> float | None:
        """What is left takes so long; None while nothing was seen."""
        if not self._counts:
            return None
        return float(sum(count * self._each(kind) for kind, count in self._left.items() if count > 0))

    def _each(self, kind: _Kind) -> float:
        """Seconds for one of a kind, or of what is most like it."""
        alike = [kind] if kind in self._counts else [each for each in self._counts if each[0] == kind[0]]
        known = alike or list(self._counts)
        return sum(self._seconds[each] for each in known) / sum(self._counts[each] for each in known)

    def _tell(self, what: str) -> None:
        left = sum(count for count in self._left.values() if count > 0)
        self._on_progress(self._done, self._done + left, what, self.remaining_seconds)
