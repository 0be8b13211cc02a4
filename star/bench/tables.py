"""The lines of a run as figures: a row for each method on each data set, every figure with its interval."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from star.bench.results import Line
from star.bench.stats import Interval, mean, ratio

__all__ = ["COLUMNS", "Column", "Summary", "data_sets", "lifelong", "methods", "summaries", "told"]

Cell = Interval | None


@dataclass(frozen=True, slots=True)
class Column:
    """One figure: what it is called, how it is made of the repairs of one method, how it is written."""

    key: str
    title: str
    of: Callable[[Sequence[Line]], Cell]
    #: Digits after the point; None: as a power of ten.
    digits: int | None = 1
    about: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What one method came to on one data set."""

    data: str
    method: str
    settings: Mapping[str, object]
    rows: int
    cells: Mapping[str, Cell]

    def value(self, key: str) -> float | None:
        """A figure without its interval; None: not measured."""
        cell = self.cells[key]
        return None if cell is None else cell.value


def summaries(lines: Iterable[Line]) -> list[Summary]:
    """A summary for each method on each data set, in the order in which they were measured."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line["kind"] == "repair":
            groups.setdefault((line["data"], line["method"]), []).append(line)
    return [
        Summary(
            data, method, group[-1]["settings"], len(group), {each.key: each.of(group) for each in COLUMNS}
        )
        for (data, method), group in groups.items()
    ]


def data_sets(found: Iterable[Summary]) -> list[str]:
    """The data sets there are figures of, each once."""
    return list(dict.fromkeys(each.data for each in found))


def methods(lines: Iterable[Line]) -> list[str]:
    """The methods there are figures of, each once."""
    kinds = ("repair", "lifelong", "batch")
    return list(dict.fromkeys(line["method"] for line in lines if line["kind"] in kinds))


def lifelong(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The checkpoints of each method's lifelong run, in order."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        if line["kind"] == "lifelong":
            found.setdefault(line["method"], []).append(line)
    return {name: sorted(rows, key=lambda line: int(line["repairs"])) for name, rows in found.items()}


def told(cell: Cell, digits: int | None = 1) -> str:
    """A figure and its interval for people; a dash where nothing was measured."""
    if cell is None:
        return "–"
    if not math.isfinite(cell.value):
        return "∞"
    value, low, high = (_number(each, digits) for each in (cell.value, cell.low, cell.high))
    return value if low == high == value else f"{value} ({low} to {high})"


def _number(value: float, digits: int | None) -> str:
    if digits is None:
        return "0" if value == 0 else f"{value:.1e}"
    return f"{value:.{digits}f}"


# -- how each figure is made -------------------------------------------------------------------------------


def _share(key: str) -> Callable[[Sequence[Line]], Cell]:
    """Percent of pairs such as ``[won, wrong]``, rows drawn whole: the contexts of one row are alike."""

    def of(lines: Sequence[Line]) -> Cell:
        pairs = [line[key] for line in lines if line.get(key) is not None]
        if not sum(total for _, total in pairs):
            return None
        return ratio([100.0 * some for some, _ in pairs], [total for _, total in pairs])

    return of


def _mean(key: str, scale: float = 1.0) -> Callable[[Sequence[Line]], Cell]:
    def of(lines: Sequence[Line]) -> Cell:
        values = [scale * line[key] for line in lines if line.get(key) is not None]
        return mean(values) if values else None

    return of


def _kl(lines: Sequence[Line]) -> Cell:
    """Mean KL; where it was looked at and is no number, the model was wrecked: not nothing, but no bound."""
    looked = [line for line in lines if line.get("unchanged") is not None]
    if any(line.get("kl") is None for line in looked):
        return Interval(math.inf, math.inf, math.inf, len(looked))
    return _mean("kl")(looked)


COLUMNS = (
    Column("solved", "solved %", _mean("solved", 100.0), about="written exactly, by greedy decoding"),
    Column("exactBefore", "EM before", _mean("exactBefore"), about="token ExactMatch, %"),
    Column("exactAfter", "EM after", _mean("exactAfter"), about="token ExactMatch, %"),
    Column("near", "near %", _share("near"), about="near siblings that were wrong and became right"),
    Column("distant", "distant %", _share("distant"), about="distant siblings likewise"),
    Column("robust", "robust %", _share("robust"), about="altered flagged contexts right, of solved rows"),
    Column("neighbours", "neighbours %", _share("neighbours"), about="neighbours' completions unchanged"),
    Column("unchanged", "argmax %", _mean("unchanged", 100.0), 2, "HumanEval tokens whose argmax stays"),
    Column("kl", "KL", _kl, None, "HumanEval, mean in nats a token"),
    Column("steps", "steps", _mean("steps")),
    Column("seconds", "s", _mean("seconds"), 2, "seconds of one repair"),
    Column("passes", "passes", _mean("passes"), about="forward passes over the same tokens"),
    Column("patch", "MB", _mean("patchBytes", 1e-6), 2, "size of the patch"),
    Column("memory", "peak MB", _mean("memoryBytes", 1e-6), 0, "memory on top of the model's"),
)
