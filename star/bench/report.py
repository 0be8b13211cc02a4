"""A run for people: tables in Markdown, and one page with plots that needs nothing from outside."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from star.bench.plots import SERIES, Figure, figures
from star.bench.results import Line, read
from star.bench.stats import difference
from star.bench.tables import COLUMNS, data_sets, lifelong, summaries, told
from star.bench.targets import OURS, judged
from star.errors import BenchError

__all__ = ["Table", "html", "markdown", "tables", "write"]

#: A table: its caption, its header, its rows; the first cell of a row names it.
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]

#: Told apart in light and in dark, and by people who see colours otherwise (Okabe and Ito's, adapted).
_LIGHT = ("#0072b2", "#c04a00", "#007a5a", "#a8427f", "#8a6d00", "#2f7fb5", "#5b5b9e", "#4d4d4d")
_DARK = ("#5cb8f0", "#ff8f4d", "#35c79a", "#e08abf", "#e6c235", "#8fd0f5", "#aaaaf0", "#bdbdbd")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write(folder: Path) -> tuple[Path, Path]:
    """The Markdown file and the page that are made of a folder's results, anew.

    Raises:
        BenchError: there are no results, matplotlib is not installed, or the folder cannot be written.
    """
    lines = read(folder)
    table, page = folder / "report.md", folder / "report.html"
    try:
        table.write_text(markdown(lines), "utf-8")
        page.write_text(html(lines), "utf-8")
    except OSError as error:
        raise BenchError(
            f"The report cannot be written to {folder} ({error.strerror}); make room there."
        ) from error
    return table, page


def tables(lines: Sequence[Line]) -> list[Table]:
    """All tables of a report."""
    found = summaries(lines)
    made: list[Table] = []
    targets = [[each.measure, each.target, each.seen, each.met] for each in judged(lines)]
    made.append((f"What must hold, for the method {OURS}", ("measure", "target", "seen", "met"), targets))
    for data in data_sets(found):
        mine = [each for each in found if each.data == data]
        shown = [column for column in COLUMNS if any(each.cells[column.key] for each in mine)]
        rows = [
            [each.method, *(told(each.cells[column.key], column.digits) for column in shown)] for each in mine
        ]
        caption = f"{data}: one repair each of {_counts(each.rows for each in mine)} (95 % intervals)"
        made.append((caption, ("method", *(column.title for column in shown)), rows))
    made += [*_against(lines), *_batches(lines), *_lifelong(lines), *_tuned(lines)]
    return made


def markdown(lines: Sequence[Line]) -> str:
    """The tables, and what the run was made on."""
    parts = ["# Repair benchmark", *(f"- {row}" for row in about(lines))]
    for caption, header, rows in tables(lines):
        parts += ["", f"## {caption}", "", _line(header), _line(["---"] * len(header))]
        parts += [_line(row) for row in rows]
    parts += ["", *(f"- {column.title}: {column.about}" for column in COLUMNS if column.about)]
    return "\n".join(parts) + "\n"


def html(lines: Sequence[Line]) -> str:
    """One page: figures, tables and what the run was made on; no script, nothing from outside."""
    found = summaries(lines)
    body = [
        "<h1>Repair benchmark</h1>",
        "<ul>",
        *(f"<li>{escape(row)}</li>" for row in about(lines)),
        "</ul>",
    ]
    made = [_table(table) for table in tables(lines)]
    drawn = [_figure(figure) for figure in figures(lines, found)]
    body += [*made[:1], *drawn, *made[1:], "<h2>The columns</h2>", "<dl>"]
    body += [
        f"<dt>{escape(column.title)}</dt><dd>{escape(column.about)}</dd>"
        for column in COLUMNS
        if column.about
    ]
    return "\n".join([_head(), *body, "</dl>", "</main>", "</body>", "</html>", ""])


def about(lines: Sequence[Line]) -> list[str]:
    """What was run on what, in sentences."""
    head = lines[0]
    machine, same = head.get("machine", {}), head.get("same", {})
    said = [
        f"model: {head.get('model', '?')}, base {str(same.get('base', '?'))[:12]}",
        f"machine: {machine.get('cpu', '?')}, {machine.get('cores', '?')} cores, "
        f"{machine.get('memoryBytes', 0) / 1e9:.0f} GB, {machine.get('threads', '?')} threads",
        "versions: " + ", ".join(f"{name} {number}" for name, number in head.get("versions", {}).items()),
        f"commit: {head.get('commit') or 'none'}",
        f"begun: {head.get('at', '?')}",
        "arguments: " + ", ".join(f"{name} {value}" for name, value in same.items() if name != "base"),
    ]
    resumed = [line for line in lines if line["kind"] == "resumed"]
    if resumed:
        said.append(f"resumed {len(resumed)} times, last {resumed[-1].get('at', '?')}")
        if any(line.get("machine") != machine for line in resumed):
            said.append("resumed on another machine or with other threads: seconds do not compare")
    for line in lines:
        if line["kind"] == "base" and line.get("refused"):
            said.append(f"left out: {line['data']} {line['row']}: {line['refused']}")
    return said


def _counts(rows: Iterable[int]) -> str:
    found = sorted(set(rows))
    return f"{found[0]} rows" if len(found) == 1 else f"{found[0]} to {found[-1]} rows (unfinished)"


def _against(lines: Sequence[Line]) -> list[Table]:
    """Differences on the very same rows: surer than two figures with an interval each."""
    by: dict[tuple[str, str], dict[str, Line]] = {}
    for line in lines:
        if line["kind"] == "repair":
            by.setdefault((line["data"], line["method"]), {})[line["row"]] = line
    rows = []
    for (data, method), theirs in by.items():
        ours = by.get((data, OURS), {})
        shared = [row for row in ours if row in theirs]
        if method == OURS or not shared:
            continue
        cells = []
        for key, scale, digits in _PAIRED:
            pairs = [(ours[row].get(key), theirs[row].get(key)) for row in shared]
            known = [(scale * a, scale * b) for a, b in pairs if a is not None and b is not None]
            mine, other = [a for a, _ in known], [b for _, b in known]
            cells.append(told(difference(mine, other), digits) if known else "–")
        rows.append([f"{data}: {OURS} − {method}", str(len(shared)), *cells])
    header = ("difference", "rows", "solved, points", "EM after, points", "KL", "s", "passes")
    return [("Paired differences (95 % intervals)", header, rows)] if rows else []


_PAIRED = (
    ("solved", 100.0, 1), ("exactAfter", 1.0, 1), ("kl", 1.0, None), ("seconds", 1.0, 2), ("passes", 1.0, 1),
)  # fmt: skip


def _batches(lines: Sequence[Line]) -> list[Table]:
    rows = []
    for line in lines:
        if line["kind"] != "batch":
            continue
        name = f"{line['data']}: {line['method']}"
        gated = [(f"{name}, gate and all", line["gated"])] if line.get("gated") else []
        for label, each in ((name, line), *gated):
            rows.append(
                [
                    label, _pair(each["solved"]), f"{each['seconds']:.1f}", f"{each['singleSeconds']:.1f}",
                    f"{each['seconds'] / max(each['singleSeconds'], 1e-9):.2f}",
                    str(line["steps"]), f"{line['patchBytes'] / 1e6:.2f}",
                ]
            )  # fmt: skip
    header = ("batch", "solved", "s as one system", "s one by one", "share", "steps", "MB")
    return [("Batch: cases as one system, against one repair each", header, rows)] if rows else []


def _lifelong(lines: Sequence[Line]) -> list[Table]:
    rows = []
    for name, points in lifelong(lines).items():
        for line in points:
            share, kl = line.get("unchanged"), line.get("kl")
            rows.append(
                [
                    f"{name}, {line['repairs']}", _pair(line["solved"]), str(line["live"]),
                    _pair(line.get("neighboursTaught")), _pair(line.get("neighbours")),
                    "–" if share is None else f"{100 * share:.2f}",
                    "–" if share is None else "∞" if kl is None else f"{kl:.1e}",
                    _pair(line.get("infilling")), f"{line['seconds']:.0f}", f"{line['patchBytes'] / 1e6:.1f}",
                ]
            )  # fmt: skip
    header = (
        "method, repairs", "still solved", "cases live", "neighbours of those taught", "all neighbours",
        "argmax %", "KL", "infilling", "s so far", "MB",
    )  # fmt: skip
    return [("Lifelong: repairs one after another on one model", header, rows)] if rows else []


def _tuned(lines: Sequence[Line]) -> list[Table]:
    rows = [
        [
            line["method"], _settings(line["settings"]),
            "; ".join(f"{_settings(seen['settings'])}: {seen['solved']} of {seen['of']}"
                      for seen in line.get("seen", [])) or "nothing to choose, or not tuned",
        ]
        for line in lines
        if line["kind"] == "tuned"
    ]  # fmt: skip
    header = ("method", "settings", "solved on the tuning rows")
    return [("The settings that each method was given", header, rows)] if rows else []


def _settings(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "the default's"


def _pair(pair: Sequence[int] | None) -> str:
    """Some of many, and the share."""
    if not pair or not pair[1]:
        return "–"
    return f"{pair[0]} of {pair[1]} ({100 * pair[0] / pair[1]:.1f} %)"


# -- Markdown and HTML ---------------------------------------------------------------------------------------


def _line(cells: Sequence[str]) -> str:
    shown = (cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(shown)} |"


def _table(table: Table) -> str:
    caption, header, rows = table

    def row(cells: Sequence[str], first: Callable[[str], str], rest: str) -> str:
        named, *others = cells
        return (
            "<tr>"
            + first(named)
            + "".join(f"<{rest}>{escape(cell)}</{rest[:2]}>" for cell in others)
            + "</tr>"
        )

    head = row(header, lambda cell: f'<th scope="col">{escape(cell)}</th>', 'th scope="col"')
    body = [row(cells, lambda cell: f'<th scope="row">{escape(cell)}</th>', "td") for cells in rows]
    # A wide table scrolls in a region that the keyboard reaches.
    return "\n".join(
        [
            f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}"><table>',
            f"<caption>{escape(caption)}</caption>", f"<thead>{head}</thead>", "<tbody>", *body,
            "</tbody></table></div>",
        ]
    )  # fmt: skip


def _figure(figure: Figure) -> str:
    return f"<figure>{figure.svg}<figcaption>{escape(figure.title)}</figcaption></figure>"


def _head() -> str:
    def colours(values: Sequence[str]) -> str:
        return " ".join(f"--series-{index}: {value};" for index, value in enumerate(values[:SERIES], 1))

    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Repair benchmark</title>
<style>
:root {{ color-scheme: light dark; {colours(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {colours(_DARK)} }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; margin: 0; }}
main {{ max-width: 76rem; margin: 0 auto; padding: 1rem; }}
figure {{ margin: 2rem 0; overflow-x: auto; }}
svg {{ width: 100%; height: auto; max-width: 60rem; min-width: 30rem; }}
svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
.wide {{ overflow-x: auto; margin: 2rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding: .3rem 0; }}
th, td {{ text-align: left; padding: .25rem .7rem; border-bottom: 1px solid; }}
dt {{ font-weight: 600; }}
</style>
</head>
<body>
<main>"""
