"""The plot of a run: which share of the requests was answered within which time."""

import io
from typing import Any

from star.errors import BenchError
from star_lsp.cli.latency.summary import KINDS, WITHOUT_MODEL_MILLISECONDS, Measured, of

__all__ = ["draw"]

#: A grey that is readable on white and on black; servers differ by more than their colour.
_INK = "#7d7d85"
_LOOKS = (("#0a7f8c", "-"), ("#d0642a", "--"))
#: Typed loosely: matplotlib is there or not, and mypy must hold either way.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "star-lsp",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}
_LEAST_MILLISECONDS = 0.5


def draw(measured: Measured) -> str:
    """An SVG file with a panel for each kind of request that there was.

    A curve ends below one where requests were taken back before their answer.

    Raises:
        BenchError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchError(
            "The report's plot needs matplotlib, which is not installed; run: pip install 'star-lsp[bench]'."
        ) from None
    kinds = [kind for kind in KINDS if any(each.kind == kind for each in measured.requests)] or [KINDS[0]]
    with matplotlib.rc_context(_STYLE):
        drawing = Figure(figsize=(max(4.6, 3.4 * len(kinds)), 3.2), layout="constrained")
        FigureCanvasSVG(drawing)
        axes = drawing.subplots(1, len(kinds), squeeze=False, sharex=True, sharey=True)[0]
        answered = [each.milliseconds for each in measured.requests if each.answered]
        most = 1.5 * max([WITHOUT_MODEL_MILLISECONDS, *answered])
        for axis, kind in zip(axes, kinds, strict=True):
            for server, (colour, dash) in zip(measured.servers, _LOOKS, strict=False):
                asked = of(measured, server, kind)
                times = sorted(max(each.milliseconds, _LEAST_MILLISECONDS) for each in asked if each.answered)
                # From nothing, and on to the right end: one answer is a curve too.
                shown = [_LEAST_MILLISECONDS, *times, most]
                shares = [index / max(1, len(asked)) for index in (*range(len(times) + 1), len(times))]
                axis.step(shown, shares, dash, where="post", color=colour, label=server)
            axis.axvline(WITHOUT_MODEL_MILLISECONDS, color=_INK, linewidth=0.5, linestyle=":")
            axis.grid(color=_INK, linewidth=0.5, alpha=0.35)
            axis.set(xscale="log", xlabel="ms to the suggestion", title=kind, ylim=(0, 1.02))
        axes[0].set_ylabel("share of requests")
        handles, labels = axes[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower left", ncols=len(labels))
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawing.savefig(file, format="svg", metadata=nothing, transparent=True)
    return file.getvalue()
