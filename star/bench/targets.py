"""What the default method must reach, and whether a run shows that it does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from star.bench.results import Line
from star.bench.tables import Summary, data_sets, lifelong, summaries

__all__ = ["OURS", "Judged", "judged"]

OURS = "ours"
_PEERS_BY_NAME = ("mint", "sgd")
_TUNED = ("sgd", "adamw")


@dataclass(frozen=True, slots=True)
class Judged:
    """One target: what was asked for, what was seen, and whether that is enough."""

    measure: str
    target: str
    seen: str
    met: Literal["yes", "no", "not measured"]


def judged(lines: Sequence[Line]) -> list[Judged]:
    """Every target, against the lines of one run; what no line tells is "not measured"."""
    found = summaries(lines)
    tables = [_solved, _robust, _siblings, _neighbours, _unrelated, _cost, _patch]
    rows = [row for table in tables for row in table(found)]
    return [*rows[:-2], *_infilling(lines), *_lifelong(lines), rows[-2], *_batch(lines), rows[-1]]


def _row(measure: str, target: str, seen: Sequence[tuple[str, bool]]) -> Judged:
    """A row of what was seen; every part of it must be met."""
    if not seen:
        return Judged(measure, target, "–", "not measured")
    met = all(good for _, good in seen)
    return Judged(measure, target, "; ".join(dict.fromkeys(told for told, _ in seen)), "yes" if met else "no")


def _of(found: Sequence[Summary], data: str, method: str) -> Summary | None:
    return next((each for each in found if (each.data, each.method) == (data, method)), None)


def _ours(found: Sequence[Summary], key: str) -> Iterator[tuple[Summary, float]]:
    """The default method's figures, one for each data set that has this one."""
    for each in found:
        if each.method == OURS and (value := each.value(key)) is not None:
            yield each, value


def _simple(
    found: Sequence[Summary], key: str, write: Callable[[float], str], good: Callable[[float], bool]
) -> list[tuple[str, bool]]:
    return [(f"{each.data} {write(value)}", good(value)) for each, value in _ours(found, key)]


def _percent(value: float) -> str:
    return f"{value:.1f} %"


def _solved(found: Sequence[Summary]) -> Iterator[Judged]:
    seen = _simple(found, "solved", _percent, lambda value: value >= 99.0)
    yield _row("solved, flagged contexts of each data set", "≥ 99 %", seen)
    against = []
    for data in data_sets(found):
        ours = _of(found, data, OURS)
        for name in _PEERS_BY_NAME:
            peer = _of(found, data, name)
            if ours and peer:
                mine, theirs = ours.value("solved") or 0.0, peer.value("solved") or 0.0
                against.append((f"{data} {_percent(mine)}, {name} {_percent(theirs)}", mine > theirs))
    yield _row("solved, against MINT and SGD", "above both on each data set", against)


def _robust(found: Sequence[Summary]) -> Iterator[Judged]:
    seen = _simple(found, "robust", _percent, lambda value: value >= 90.0)
    yield _row("robustness of a solved case", "≥ 90 %", seen)


def _siblings(found: Sequence[Summary]) -> Iterator[Judged]:
    for key, least in (("near", 80.0), ("distant", 50.0)):
        seen = []
        for each, value in _ours(found, key):
            kept = each.value("neighbours")
            if kept is not None:
                told = f"{each.data} {_percent(value)} at {_percent(kept)} of neighbours"
                seen.append((told, value >= least and kept >= 98.0))
        yield _row(
            f"{key} siblings that were wrong and become right",
            f"≥ {least:.0f} % with ≥ 98 % of neighbours unchanged",
            seen,
        )
        yield _row(
            f"{key} siblings, against peers", "above every peer at equal specificity", _above(found, key)
        )


def _above(found: Sequence[Summary], key: str) -> list[tuple[str, bool]]:
    """Whether a peer that keeps as many neighbours wins more siblings."""
    seen = []
    for ours, value in _ours(found, key):
        kept = ours.value("neighbours")
        peers = [each for each in found if each.data == ours.data and each.method != OURS]
        rivals = [
            (theirs, each.method)
            for each in peers
            if (theirs := each.value(key)) is not None
            and kept is not None
            and (each.value("neighbours") or 0.0) >= kept
        ]
        if rivals:
            best, name = max(rivals)
            seen.append((f"{ours.data} {_percent(value)}, {name} {_percent(best)}", value > best))
        elif peers:
            seen.append((f"{ours.data} {_percent(value)}, no peer keeps as many neighbours", True))
    return seen


def _neighbours(found: Sequence[Summary]) -> Iterator[Judged]:
    seen = _simple(found, "neighbours", _percent, lambda value: value >= 98.0)
    yield _row("neighbours' completions unchanged", "≥ 98 %", seen)


def _unrelated(found: Sequence[Summary]) -> Iterator[Judged]:
    seen = _simple(found, "unchanged", lambda v: f"{v:.2f} %", lambda value: value >= 99.6)
    yield _row("HumanEval solutions, argmax unchanged", "≥ 99.6 %", seen)
    seen = _simple(found, "kl", lambda v: f"{v:.1e}", lambda value: value <= 2e-4)
    yield _row("HumanEval solutions, mean KL", "≤ 2e-4", seen)
    against = []
    for ours, kl in _ours(found, "kl"):
        solved = ours.value("solved") or 0.0
        peers = [each for name in _TUNED if (each := _of(found, ours.data, name))]
        # A peer that solves less has an easier time to stay close: only its equals are compared.
        equal = [each for each in peers if (each.value("solved") or 0.0) >= solved - 1.0] or peers
        known = [(theirs, each.method) for each in equal if (theirs := each.value("kl")) is not None]
        if known:
            best, name = min(known)
            against.append((f"{ours.data} {kl:.1e}, {name} {best:.1e}", kl <= best / 8))
    yield _row("mean KL, against the best of SGD and AdamW at equal solved rate", "≤ 1/8", against)


def _cost(found: Sequence[Summary]) -> Iterator[Judged]:
    seen = _simple(found, "passes", lambda v: f"{v:.1f}", lambda value: value <= 12.0)
    for ours, seconds in _ours(found, "seconds"):
        mint = _of(found, ours.data, "mint")
        if mint and (theirs := mint.value("seconds")) is not None:
            times = theirs / max(seconds, 1e-9)
            seen.append((f"{ours.data} {times:.1f} times faster than mint", times >= 3.0))
    yield _row(
        "cost of one repair, without the gate", "≤ 12 forward passes, ≥ 3 times faster than MINT", seen
    )


def _patch(found: Sequence[Summary]) -> Iterator[Judged]:
    seen = _simple(found, "patch", lambda v: f"{v:.2f} MB", lambda value: value <= 2.0)
    yield _row("patch of one repair", "≤ 2 MB", seen)


def _infilling(lines: Sequence[Line]) -> Iterator[Judged]:
    base = next((line for line in lines if line["kind"] == "infilling"), None)
    after = [
        line for line in lifelong(lines).get(OURS, []) if line.get("infilling") and line["repairs"] == 100
    ]
    seen = []
    for line in after:
        if base is None:
            break
        now, then = (100.0 * some / max(of, 1) for some, of in (line["infilling"], base["infilling"]))
        told = f"{_percent(now)} after {line['repairs']} repairs, {_percent(then)} before"
        seen.append((told, now >= then - 1.0))
    yield _row("infilling pass rate after 100 repairs", "within 1 point of the base", seen)


def _lifelong(lines: Sequence[Line]) -> Iterator[Judged]:
    seen = []
    for line in lifelong(lines).get(OURS, [])[-1:]:
        solved, of = line["solved"]
        kept, neighbours = line["neighbours"] or (0, 0)
        told = f"after {of}: {_percent(100 * solved / max(of, 1))} solved"
        seen.append((told, of >= 200 and solved >= 0.95 * of))
        if neighbours:
            seen.append((f"{_percent(100 * kept / neighbours)} of neighbours", kept >= 0.95 * neighbours))
    yield _row(
        "lifelong, 200 repairs", "≥ 95 % of all cases still solved, ≥ 95 % of neighbours unchanged", seen
    )


def _batch(lines: Sequence[Line]) -> Iterator[Judged]:
    seen = []
    for line in lines:
        if line["kind"] == "batch" and line["method"] == OURS:
            # As the server repairs, gate and all, where that was measured.
            seen_as = line.get("gated", line)
            solved, of = seen_as["solved"]
            share = seen_as["seconds"] / max(seen_as["singleSeconds"], 1e-9)
            gate = ", gate and all," if "gated" in line else ""
            told = (
                f"{line['data']} {of} cases{gate} in {share:.2f} of the time, {_percent(100 * solved / of)}"
            )
            seen.append((told, of >= 20 and share <= 1 / 3 and solved >= 0.95 * of))
    yield _row("batch of 20 from the base", "≤ 1/3 of the time of single repairs, solved ≥ 95 %", seen)
