"""Figures as inline SVG that takes its colours from the page: readable in light and in dark."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from star.bench.results import Line
from star.bench.stats import Interval
from star.bench.tables import Summary, data_sets, lifelong
from star.errors import BenchError

__all__ = ["SERIES", "Figure", "figures"]

#: Colours of series that the page must define as ``--series-1`` and so on.
SERIES = 8
#: What is drawn in these colours is afterwards drawn in the page's: no page is told what white is.
_INK, _FAINT = "#010203", "#040506"
_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":")
#: Typed loosely: matplotlib is there or not, and mypy must hold either way.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "star-lsp",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot: what it is called, what it says to those who do not see it, and the SVG."""

    title: str
    about: str
    svg: str


def figures(lines: Sequence[Line], found: Sequence[Summary]) -> list[Figure]:
    """The plots that a run has figures for.

    Raises:
        BenchError: matplotlib is not installed.
    """
    drawn: list[Figure] = []
    names = list(dict.fromkeys([*(each.method for each in found), *lifelong(lines)]))
    looks = {name: _Look(name, index) for index, name in enumerate(names)}
    for data in data_sets(found):
        mine = [each for each in found if each.data == data]
        drawn += _frontier(data, mine, looks, len(drawn))
    drawn += _curves(lifelong(lines), looks, len(drawn))
    for data in data_sets(found):
        mine = [each for each in found if each.data == data]
        drawn += _bars(data, mine, looks, len(drawn))
    return drawn


@dataclass(frozen=True, slots=True)
class _Look:
    """How a method looks in every figure of a report: never by its colour alone."""

    name: str
    index: int

    @property
    def colour(self) -> str:
        return _sentinel(self.index % SERIES)

    @property
    def marker(self) -> str:
        return _MARKERS[(self.index + self.index // SERIES) % len(_MARKERS)]

    @property
    def dash(self) -> str:
        return _DASHES[self.index % len(_DASHES)]

    @property
    def label(self) -> str:
        return f"{self.index + 1}  {self.name}"


def _frontier(data: str, found: Sequence[Summary], looks: Mapping[str, _Look], number: int) -> list[Figure]:
    """What a lesson carries over against what it leaves alone: the upper right corner is the goal."""
    panels = [
        (key, title)
        for key, title in (("near", "near siblings"), ("distant", "distant siblings"))
        if any(each.cells[key] and each.cells["neighbours"] for each in found)
    ]
    if not panels:
        return []
    plot, axes, figure = _canvas(len(panels), 4.4, len(found))
    for axis, (key, title) in zip(axes, panels, strict=True):
        for each in found:
            x, y = each.cells["neighbours"], each.cells[key]
            if x is None or y is None:
                continue
            look = looks[each.method]
            axis.errorbar(
                x.value, y.value, xerr=_arms(x), yerr=_arms(y), fmt=look.marker, color=look.colour,
                markersize=7, elinewidth=0.6, label=look.label,
            )  # fmt: skip
            axis.annotate(
                str(look.index + 1), (x.value, y.value), (5, 4), textcoords="offset points", color=_INK
            )
        axis.set(xlabel="neighbours unchanged, %", ylabel=f"{title} that became right, %", title=title)
        axis.set(xlim=(-3, 105), ylim=(-3, 105))
    _legend(axes, figure)
    said = "; ".join(
        f"{each.method}: near {_said(each, 'near')}, distant {_said(each, 'distant')}, "
        f"neighbours {_said(each, 'neighbours')}"
        for each in found
    )
    title = f"{data}: generalization against specificity"
    return [Figure(title, f"{title}. {said}.", _svg(plot, figure, number, title, said))]


def _curves(runs: Mapping[str, Sequence[Line]], looks: Mapping[str, _Look], number: int) -> list[Figure]:
    """What repairs one after another leave of all that was taught, and of all else."""
    panels = [
        (key, title)
        for key, title in (
            ("solved", "cases still solved, %"),
            ("neighbours", "neighbours unchanged, %"),
            ("unchanged", "HumanEval argmax unchanged, %"),
            ("infilling", "infilling pass rate, %"),
        )
        if any(line.get(key) is not None for rows in runs.values() for line in rows)
    ]
    if not runs or not panels:
        return []
    plot, axes, figure = _canvas(len(panels), 3.4, len(runs))
    said = []
    for axis, (key, title) in zip(axes, panels, strict=True):
        for name, rows in runs.items():
            points = [(line["repairs"], _percent(line[key])) for line in rows if line.get(key) is not None]
            if points:
                look = looks[name]
                axis.plot(
                    *zip(*points, strict=True), look.dash, marker=look.marker, color=look.colour,
                    label=look.label,
                )  # fmt: skip
                told = ", ".join(f"{value:.1f} after {count}" for count, value in points)
                said.append(f"{name}, {title}: {told}")
        axis.set(xscale="log", xlabel="repairs", title=title)
        axis.set_ylim(top=101)
        ticks = sorted({line["repairs"] for rows in runs.values() for line in rows})
        axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axis.set_xticks([], minor=True)
    _legend(axes, figure)
    title = "Lifelong repair: what is left after so many repairs on one model"
    told = "; ".join(said)
    return [Figure(title, f"{title}. {told}.", _svg(plot, figure, number, title, told))]


def _bars(data: str, found: Sequence[Summary], looks: Mapping[str, _Look], number: int) -> list[Figure]:
    """What one repair costs."""
    panels = [
        (key, title)
        for key, title in (("seconds", "seconds"), ("passes", "forward passes"), ("patch", "patch, MB"))
        if any(each.cells[key] for each in found)
    ]
    if not panels:
        return []
    plot, axes, figure = _canvas(len(panels), 1.2 + 0.28 * len(found))
    for index, (axis, (key, title)) in enumerate(zip(axes, panels, strict=True)):
        for row, each in enumerate(found):
            cell = each.cells[key]
            if cell:
                look = looks[each.method]
                axis.barh(row, cell.value, xerr=_arms(cell), color=look.colour, ecolor=_INK, height=0.7)
        axis.set_yticks(range(len(found)), [each.method for each in found] if index == 0 else [])
        axis.invert_yaxis()
        axis.set(title=title)
    said = "; ".join(
        f"{each.method}: " + ", ".join(f"{title} {_said(each, key)}" for key, title in panels)
        for each in found
    )
    title = f"{data}: cost of one repair"
    return [Figure(title, f"{title}. {said}.", _svg(plot, figure, number, title, said))]


# -- drawing ---------------------------------------------------------------------------------------------


def _canvas(columns: int, height: float, named: int = 0) -> tuple[Any, Sequence[Any], Any]:
    """The drawing library, panels side by side with room for a legend, and the figure that they are in."""
    height += 0.22 * max(0, math.ceil(named / columns) - 3)
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Drawing
    except ImportError:
        raise BenchError(
            "The report's plots need matplotlib, which is not installed; run: pip install 'star-lsp[bench]'."
        ) from None
    with matplotlib.rc_context(_STYLE):
        drawing = Drawing(figsize=(max(4.6, 3.4 * columns), height), layout="constrained")
        FigureCanvasSVG(drawing)
        axes = drawing.subplots(1, columns, squeeze=False)[0]
        for axis in axes:
            axis.grid(color=_FAINT, linewidth=0.5, alpha=0.35)
            axis.set_axisbelow(True)
    return matplotlib, list(axes), drawing


def _legend(axes: Sequence[Any], figure: Any) -> None:
    """All methods below the panels: one may have been measured for some of them only."""
    known: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    figure.legend(
        known.values(), known, loc="outside lower left", ncols=len(axes), labelcolor=_INK, frameon=False
    )


def _svg(plot: Any, figure: Any, number: int, title: str, about: str) -> str:
    """The drawing as an ``svg`` element: names of its own, no colours of its own, nothing from outside."""
    file = io.BytesIO()
    with plot.rc_context(_STYLE):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    text = file.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style type=\"text/css\">.*?</style>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for index in range(SERIES):
        text = text.replace(_sentinel(index), f"var(--series-{index + 1})")
    text = text.replace(_INK, "currentColor").replace(_FAINT, "currentColor")
    # Several figures stand in one page, and each numbers its parts from one.
    text = re.sub(r"(\bid=\"|url\(#|href=\"#)", rf"\g<1>f{number}-", text)
    head = f"""<title id="t{number}">{escape(title)}</title><desc id="d{number}">{escape(about)}</desc>"""
    text = text.replace(">", f' role="img" aria-labelledby="t{number} d{number}">{head}', 1)
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)


def _sentinel(index: int) -> str:
    return f"#0a0b{index:02x}"


def _arms(cell: Interval) -> list[list[float]]:
    """The arms of an error bar; a resampled interval need not hold its figure."""
    return [[max(0.0, cell.value - cell.low)], [max(0.0, cell.high - cell.value)]]


def _percent(value: float | Sequence[float]) -> float:
    """A share, or some of many, in percent."""
    if isinstance(value, Sequence):
        return 100.0 * value[0] / max(value[1], 1)
    return 100.0 * value


def _said(each: Summary, key: str) -> str:
    value = each.value(key)
    return "not measured" if value is None else f"{value:.1f}"
