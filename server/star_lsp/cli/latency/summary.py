"""Figures of a run: how long a developer waited, what was right, what it cost; and ratios to the peer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from star_lsp.cli.latency.cost import Cost
from star_lsp.cli.latency.rates import Rates
from star_lsp.cli.latency.replay import Request

__all__ = [
    "ASKED",
    "KINDS",
    "SHARES",
    "WITHOUT_MODEL_MILLISECONDS",
    "Measured",
    "Wait",
    "markdown",
    "told",
    "wait",
]

KINDS = ("cold", "next keystroke", "after accept", "at rest", "during repair", "after repair")
#: Those of a developer at work; with the others every key is one that nobody would type.
_TYPED = KINDS[:3]
#: Of the keys, those that typed anything but what was shown. Where most answers come from memory, the
#: percentiles of all keys compare nothing that a developer can see; these do.
ASKED = "next keystroke, model asked"
SHARES = (50, 95, 99)
#: An answer that is there sooner cannot have run a model of this size, not even over one token.
WITHOUT_MODEL_MILLISECONDS = 15.0


@dataclass(slots=True)
class Measured:
    """All that a run has measured so far, by server."""

    servers: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    costs: dict[str, Cost] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    #: Of our own model, from a patch's file to weights that are served.
    swap_milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A time until the suggestion; only a lower bound of it where not ``exact``."""

    milliseconds: float
    exact: bool

    def __str__(self) -> str:
        """In milliseconds, with ``>`` for a bound."""
        digits = 1 if self.milliseconds < 100 else 0
        return f"{'' if self.exact else '> '}{self.milliseconds:,.{digits}f}"


def wait(requests: Sequence[Request], percent: float) -> Wait | None:
    """The nearest-rank percentile of the times, None of none.

    A request that was taken back would have taken longer than it was waited for: so above the first of these
    the percentile is only known to be no less.
    """
    waits = sorted(each.milliseconds for each in requests)
    if not waits:
        return None
    found = waits[max(0, math.ceil(percent / 100 * len(waits)) - 1)]
    return Wait(found, all(each.answered or each.milliseconds > found for each in requests))


def of(measured: Measured, server: str, kind: str | None = None) -> list[Request]:
    """The requests to a server, of one kind or of all."""
    mine = [each for each in measured.requests if each.server == server]
    if kind == ASKED:
        return [each for each in mine if each.kind == "next keystroke" and not _quick(each)]
    return [each for each in mine if each.kind == kind or (kind is None and each.kind in _TYPED)]


def _quick(request: Request) -> bool:
    return request.answered and request.milliseconds < WITHOUT_MODEL_MILLISECONDS


def without_model(requests: Sequence[Request]) -> float | None:
    """The share of requests that were answered sooner than a model can run."""
    if not requests:
        return None
    return sum(map(_quick, requests)) / len(requests)


def accepted(requests: Sequence[Request]) -> float | None:
    """The share of the ground truth's characters that were accepted rather than typed."""
    truth = sum(each.left for each in requests if each.kind == "cold")
    return sum(each.accepted for each in requests) / truth if truth else None


def told(measured: Measured) -> dict[str, object]:
    """All figures, for JSON; times in milliseconds, memory in bytes, ratios ours by the peer's."""
    return {
        "servers": {name: _told(measured, name) for name in measured.servers},
        "repairs": {name: value for name, value, _ in _targets(measured)},
        "withoutModelMilliseconds": WITHOUT_MODEL_MILLISECONDS,
        "ratios": {
            name: ratio for name, _, ratio in [*_waits(measured), *_measures(measured)] if ratio is not None
        },
    }


def markdown(measured: Measured) -> str:
    """The two tables."""
    names = measured.servers
    ours, *peers = names
    head = ["kind", *(f"{name}: answered" for name in names)]
    head += [f"{name} p{percent}, ms" for name in names for percent in SHARES]
    head += [f"p{percent}, {ours} / {peer}" for peer in peers for percent in SHARES[:2]]
    rows = [head, ["---"] * len(head)]
    for kind in _ROWS:
        asked = [of(measured, name, kind) for name in names]
        row = [kind, *(f"{sum(each.answered for each in of_)} of {len(of_)}" for of_ in asked)]
        row += [_text(wait(of_, percent)) for of_ in asked for percent in SHARES]
        row += [
            _text(_ratio(wait(asked[0], percent), wait(of_, percent)))
            for of_ in asked[1:]
            for percent in SHARES[:2]
        ]
        rows.append(row)
    second = [["measure", *names, *(f"{ours} / {peer}" for peer in peers)]]
    second.append(["---"] * len(second[0]))
    for name, values, ratio in _measures(measured):
        second.append([name, *map(_text, values), *([_text(ratio)] if peers else [])])
    third = [["of our own, a repair being made", "seen", "target"], ["---"] * 3]
    for name, value, target in _targets(measured):
        third.append([name, _text(value), f"≤ {target:g}"])
    tables = (rows, second, third)
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in table) for table in tables)


# -- rows ----------------------------------------------------------------------------------------------------

_ROWS = (*KINDS[:2], ASKED, *KINDS[2:])
Row = tuple[str, list[float | None], float | None]


def _measures(measured: Measured) -> list[Row]:
    """A measure, what each server has, and the ratio."""
    asked = [of(measured, name) for name in measured.servers]
    costs = [measured.costs.get(name) for name in measured.servers]
    rates = [measured.rates.get(name) for name in measured.servers]
    share = f"requests answered within {WITHOUT_MODEL_MILLISECONDS:.0f} ms, so without the model, %"
    rows: list[tuple[str, list[float | None]]] = [
        (share, [_percent(without_model(each)) for each in asked]),
        ("characters of the truth accepted, %", [_percent(accepted(each)) for each in asked]),
        ("prefill, tokens/s", [each.prefill if each else None for each in rates]),
        ("decode, tokens/s", [each.decode if each else None for each in rates]),
        ("processor time, s", [each.cpu_seconds if each else None for each in costs]),
        ("memory of the server (RSS), MB", [each.resident_bytes / 1e6 if each else None for each in costs]),
        ("memory of the server (USS), MB", [each.server_bytes / 1e6 if each else None for each in costs]),
        ("memory of its children (USS), MB", [each.children_bytes / 1e6 if each else None for each in costs]),
        ("memory of all (PSS), MB", [each.shared_bytes / 1e6 if each else None for each in costs]),
    ]
    return [(name, values, _quotient(values)) for name, values in rows]


def _targets(measured: Measured) -> list[tuple[str, float | None, float]]:
    """What a repair may cost those who type meanwhile: a measure, what was seen, the most that is wanted.

    A key during the repair is compared with the same one at rest, where the model ran for it: what memory
    answers takes no time in either. The first suggestion after it is compared with that after the same key.
    """
    kinds = {kind: of(measured, measured.servers[0], kind) for kind in KINDS[3:]} if measured.servers else {}
    rest, during, after = (kinds.get(kind, []) for kind in KINDS[3:])
    pairs: list[tuple[Request, Request]] = []
    for trace in dict.fromkeys(each.trace for each in during):
        both = ([each for each in kind if each.trace == trace] for kind in (rest, during))
        pairs += [(at_rest, other) for at_rest, other in zip(*both, strict=False) if not _quick(at_rest)]
    waits = wait([other for _, other in pairs], 50), wait([at_rest for at_rest, _ in pairs], 50)
    first_keys = [next((each for each in rest if each.trace == other.trace), None) for other in after]
    firsts = wait(after, 50), wait([each for each in first_keys if each], 50)
    slower, first = (a.milliseconds / b.milliseconds if a and b else None for a, b in (waits, firsts))
    return [
        ("median wait for the model during a repair / at rest", slower, 1.2),
        ("first suggestion after a repair / at rest, medians", first, 1.5),
        ("a revision swapped in, ms", measured.swap_milliseconds, 100),
    ]


def _waits(measured: Measured) -> list[Row]:
    """The percentiles that both have."""
    rows: list[Row] = []
    for kind in _ROWS:
        for percent in SHARES:
            found = [wait(of(measured, name, kind), percent) for name in measured.servers]
            ratio = _ratio(found[0], found[1]) if len(found) > 1 else None
            rows.append(
                (f"{kind} p{percent}", [each.milliseconds if each else None for each in found], ratio)
            )
    return rows


def _told(measured: Measured, server: str) -> dict[str, object]:
    asked = of(measured, server)
    cost, rates = measured.costs.get(server), measured.rates.get(server)
    return {
        "kinds": {
            kind: {
                "requests": len(mine),
                "answered": sum(each.answered for each in mine),
                **{f"p{percent}": _wait_told(wait(mine, percent)) for percent in SHARES},
            }
            for kind in _ROWS
            if (mine := of(measured, server, kind))
        },
        "withoutModel": without_model(asked),
        "accepted": accepted(asked),
        "prefillTokensPerSecond": rates.prefill if rates else None,
        "decodeTokensPerSecond": rates.decode if rates else None,
        "cpuSeconds": cost.cpu_seconds if cost else None,
        "residentBytes": cost.resident_bytes if cost else None,
        "serverBytes": cost.server_bytes if cost else None,
        "childrenBytes": cost.children_bytes if cost else None,
        "sharedBytes": cost.shared_bytes if cost else None,
    }


def _wait_told(found: Wait | None) -> dict[str, object] | None:
    return {"milliseconds": found.milliseconds, "exact": found.exact} if found else None


def _ratio(ours: Wait | None, peers: Wait | None) -> float | None:
    """None where only a bound is known of one. What memory answers counts alike: nobody sees a difference."""
    if ours is None or peers is None or not (ours.exact and peers.exact):
        return None
    left, right = (max(each.milliseconds, WITHOUT_MODEL_MILLISECONDS) for each in (ours, peers))
    return left / right


def _quotient(values: Sequence[float | None]) -> float | None:
    if len(values) < 2 or values[0] is None or not values[1]:
        return None
    return values[0] / values[1]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _text(value: Wait | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, Wait):
        return str(value)
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
