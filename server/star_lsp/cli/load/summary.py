"""Figures of a run: whether all editors waited alike, what went wrong, and what grew."""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from star_lsp.cli.latency.replay import Request
from star_lsp.cli.latency.summary import Wait, wait
from star_lsp.cli.load.moment import Moment

__all__ = ["TARGETS", "Load", "Window", "growth", "markdown", "ratio", "told", "waited"]

#: What must hold, in the units of the table.
TARGETS = {
    "errors": 0.0,
    "ratio": 2.0,
    "growth": 1.0,
    "handles": 0.0,
    "windowMegabytes": 100.0,
    "windowSeconds": 1.0,
}
#: Until then a server warms up: at most, and at most this share of a run.
_WARM_SECONDS, _WARM_SHARE = 120.0, 0.2
#: Growth is from the first share of what comes after to the last one of the same length.
_ENDS = 0.1
#: What the reason of a case has whose patch the gate did not let through.
_BLOCKED = "The gate refused"
_WRITTEN = re.compile(r"writes (['\"]).*\1;", re.DOTALL)
_NUMBER = re.compile(r"\d[\d.]*")


@dataclass(frozen=True, slots=True)
class Window:
    """What a second editor window cost, whose server ran already.

    Attributes:
        introduced_seconds: From the start of its process to the answer to ``initialize``.
        first_seconds: From the start of its process to its first completion.
        more_bytes: Memory of its process that is no file's, and what the server took more of such.
        characters: Of the file that it opened.
        at_once: From a request to its answer, in one file after another that has just been opened.
        later: The same where the cursor has rested for a second at the place.
    """

    introduced_seconds: float
    first_seconds: float
    more_bytes: int
    characters: int
    at_once: tuple[float, ...] = ()
    later: tuple[float, ...] = ()


@dataclass(slots=True)
class Load:
    """All that a run has measured so far."""

    editors: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    #: Keys that were hit, by all: a character that is typed, or the one that takes a suggestion.
    keys: int = 0
    flagged: int = 0
    reverted: int = 0
    #: What became of the flagged cases, by their status.
    cases: dict[str, int] = field(default_factory=dict)
    #: That went live, whether or not they were taken back; one may solve several cases.
    patches: int = 0
    #: Why cases failed, one for each.
    reasons: list[str] = field(default_factory=list)
    window: Window | None = None

    def add(self, request: Request) -> None:
        """Take down a request; a key came before it unless a file was just opened."""
        self.requests.append(request)
        self.keys += request.kind != "cold"


def waited(request: Request) -> bool:
    """Whether its answer was waited for, however long it took: when a file is opened, and at a line's end."""
    return request.kind == "cold" or not request.left


def ratio(load: Load) -> float | None:
    """The worst editor's p95 by the best one's, of the requests whose answer was waited for."""
    found = [
        one.milliseconds
        for name in load.editors
        if (one := wait([each for each in load.requests if each.server == name and waited(each)], 95))
    ]
    return max(found) / min(found) if len(found) > 1 and min(found) > 0 else None


def growth(moments: Sequence[Moment], of: Callable[[Moment], float]) -> tuple[float, float] | None:
    """A measure after the warm-up and at the end, as medians; None where the run was too short to tell."""
    if not moments:
        return None
    last = moments[-1].seconds
    warm = min(_WARM_SECONDS, _WARM_SHARE * last)
    width = _ENDS * (last - warm)
    early = [of(each) for each in moments if warm <= each.seconds <= warm + width]
    late = [of(each) for each in moments if each.seconds >= last - width]
    if not early or not late or len(moments) < 3:
        return None
    return statistics.median(early), statistics.median(late)


def told(load: Load) -> dict[str, object]:
    """All figures, for JSON; times in milliseconds, memory in bytes."""
    return {
        "editors": {name: _editor(load, name) for name in load.editors},
        "keys": load.keys,
        "seconds": load.moments[-1].seconds if load.moments else 0.0,
        "ratio": ratio(load),
        "errors": load.errors,
        "flagged": load.flagged,
        "reverted": load.reverted,
        "cases": load.cases,
        "repaired": _repaired(load),
        "patches": load.patches,
        "reasons": dict(Counter(map(_alike, load.reasons))),
        "growth": {name: growth(load.moments, of) for name, of in _MEASURES.items()},
        "end": asdict(load.moments[-1]) if load.moments else None,
        "window": asdict(load.window) if load.window else None,
        "targets": TARGETS,
    }


def markdown(load: Load) -> str:
    """The two tables: editors, and measures with what must hold."""
    first = [["editor", "requests", "answered", "p50, ms", "p95, ms", "waited for", "p50, ms", "p95, ms"]]
    for name in load.editors:
        mine = [each for each in load.requests if each.server == name]
        patient = [each for each in mine if waited(each)]
        first.append(
            [
                name,
                str(len(mine)),
                str(sum(each.answered for each in mine)),
                *(_text(wait(mine, percent)) for percent in (50, 95)),
                str(len(patient)),
                *(_text(wait(patient, percent)) for percent in (50, 95)),
            ]
        )
    second = [["measure", "seen", "target"], *_rows(load)]
    return "\n\n".join(map(_table, (first, second)))


def _rows(load: Load) -> list[list[str]]:
    end = load.moments[-1] if load.moments else None
    worst = ratio(load)
    seconds, keys = (end.seconds, load.keys) if end else (0.0, 0)
    became = ", ".join(f"{count} {what}" for what, count in _repaired(load).items())
    rows = [
        ["time; keys hit", f"{seconds:,.0f} s; {keys:,}", ""],
        ["errors", str(len(load.errors)), "0"],
        ["worst editor's p95 by the best one's, of what was waited for", _text(worst), "≤ 2"],
        ["flagged; taken back", f"{load.flagged}; {load.reverted}", ""],
        ["repair of the flagged cases; patches", f"{became}; {load.patches}", ""],
    ]
    alike = Counter(map(_alike, load.reasons))
    rows += [[f"not repaired, {count} times", _line(reason), ""] for reason, count in alike.most_common(5)]
    for name, of in _MEASURES.items():
        ends = growth(load.moments, of)
        if name.endswith("Bytes"):
            seen = f"{ends[0] / 1e6:,.1f} → {ends[1] / 1e6:,.1f} MB{_percent(*ends)}" if ends else "–"
        else:
            seen = f"{ends[0]:,.0f} → {ends[1]:,.0f}" if ends else "–"
        target = _WANTED.get(name, "")
        rows.append([f"{_NAMES[name]}, after warm-up → at the end", seen, target])
    if load.moments:
        most = max(each.worker_bytes for each in load.moments)
        rows.append(["memory of the repairing process (USS), at most", f"{most / 1e6:,.0f} MB", ""])
    if (window := load.window) is not None:
        rows.append(["second window: more memory", f"{window.more_bytes / 1e6:,.1f} MB", "≤ 100 MB"])
        seen = f"{window.first_seconds:.2f} s ({window.introduced_seconds:.2f} s to `initialize`"
        seen += f"; a file of {window.characters} characters)"
        rows.append(["second window: start of its process to its first completion", seen, "≤ 1 s"])
        for what, firsts in (("at once", window.at_once), ("after 1 s", window.later)):
            if firsts:
                name = f"second window: first completion in a file that it opens, asked for {what}"
                rows.append([name, _firsts(firsts), "≤ 1 s"])
    for error, count in Counter(load.errors).most_common(5):
        rows.append([f"error, {count} times", _line(error), ""])
    return rows


def _firsts(seconds: Sequence[float]) -> str:
    within, most = sum(each <= TARGETS["windowSeconds"] for each in seconds), sorted(seconds)
    told = f"median {statistics.median(seconds):.2f} s, p90 {most[int(0.9 * (len(most) - 1) + 0.5)]:.2f} s"
    return f"{told}, {within} of {len(seconds)} within 1 s"


def _repaired(load: Load) -> dict[str, int]:
    """What became of the flagged cases. One whose repair was taken back had been solved."""
    blocked = sum(_BLOCKED in each for each in load.reasons)
    solved, reverted = load.cases.get("solved", 0), load.cases.get("reverted", 0)
    return {
        "succeeded": solved + reverted,
        "blocked by the gate": blocked,
        "failed": len(load.reasons) - blocked,
        "not at their end": sum(load.cases.values()) - solved - reverted - len(load.reasons),
    }


def _alike(reason: str) -> str:
    """A reason without its numbers, and without the code that the model wrote."""
    return _NUMBER.sub("N", _WRITTEN.sub("writes something else;", reason))


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("|", "/")[:160]


_MEASURES: Mapping[str, Callable[[Moment], float]] = {
    "residentBytes": lambda each: each.resident_bytes,
    "anonymousBytes": lambda each: each.anonymous_bytes,
    "handles": lambda each: each.handles,
    "threads": lambda each: each.threads,
    "storeBytes": lambda each: each.store_bytes,
}
_NAMES = {
    "residentBytes": "memory of the server (RSS)",
    "anonymousBytes": "what of it is no file's, such as the mapped weights'",
    "handles": "open handles of the server",
    "threads": "threads of the server",
    "storeBytes": "store, patches and logs",
}
_WANTED = {"residentBytes": "< 1 % more", "anonymousBytes": "< 1 % more", "handles": "no more"}


def _editor(load: Load, name: str) -> dict[str, object]:
    mine = [each for each in load.requests if each.server == name]
    patient = [each for each in mine if waited(each)]
    return {
        "requests": len(mine),
        "answered": sum(each.answered for each in mine),
        **{f"p{percent}": _wait(wait(mine, percent)) for percent in (50, 95)},
        "waitedFor": {
            "requests": len(patient),
            **{f"p{percent}": _wait(wait(patient, percent)) for percent in (50, 95)},
        },
    }


def _wait(found: Wait | None) -> dict[str, object] | None:
    return {"milliseconds": found.milliseconds, "exact": found.exact} if found else None


def _percent(before: float, after: float) -> str:
    return f" ({100 * (after - before) / before:+.2f} %)" if before else ""


def _text(value: Wait | float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, Wait) else f"{value:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lined = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lined)
