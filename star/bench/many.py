"""Many cases: solved together as one system, or one after another on one model."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from star.bench.cost import counted
from star.bench.data import Row, select
from star.bench.lifelong import LifelongRun, NextRepair, mended, on_top
from star.bench.methods import Variant
from star.bench.session import Session, about
from star.bench.watch import Watch, written
from star.case import Case
from star.gate import Limits
from star.patch import Patch, installed

__all__ = ["batch", "lifelong"]


def batch(session: Session, data: str, rows: Sequence[Row], variants: Mapping[str, Variant]) -> None:
    """Measure some rows as one system, against the single repairs of the very same rows in this run."""
    if len(rows) < 2:
        return
    model, results = session.model, session.results
    cases = [session.bench.put(row.flagged) for row in rows]
    for name, variant in variants.items():
        if results.first(kind="batch", method=name, data=data):
            continue
        method = session.method(variant)
        session.pace.plan("batch", name, 1)
        with session.pace.one("batch", name, f"{data}: {len(rows)} cases as one system by {name}"):
            with counted(model, cases) as cost:
                result = method(model, cases, session.plan.budget, cancelled=session.cancelled)
            ids = {row.id for row in rows}
            repairs = results.find(kind="repair", method=name, data=data)
            results.add(
                {
                    "kind": "batch", **about(variant), "data": data, "rows": sorted(ids),
                    "solved": [sum(each.solved for each in result.outcomes), len(rows)],
                    "unsolved": [each.case for each in result.outcomes if not each.solved],
                    "seconds": cost.seconds,
                    "singleSeconds": sum(line["seconds"] for line in repairs if line["row"] in ids),
                    "steps": result.steps, "passes": cost.passes, "patchBytes": result.patch.size_bytes,
                    **(_through_the_gate(session, cases) if name == "ours" else {}),
                }
            )  # fmt: skip


def _through_the_gate(session: Session, cases: Sequence[Case]) -> dict[str, Any]:
    """The same cases as the server repairs them: as one batch from the base, and one after another."""
    if session.bench.limits is None:
        return {}
    repair = _mended(session, session.bench.limits)
    started = time.monotonic()
    together = repair((), [], cases)
    seconds = time.monotonic() - started
    history: tuple[Patch, ...] = ()
    live: list[Case] = []
    started = time.monotonic()
    for case in cases:
        with installed(session.model, history):
            now = repair(history, live, [case])
        history = now.history
        live += [case] if now.live else []
    return {
        "gated": {
            "solved": [together.solved if together.live else 0, len(cases)], "seconds": seconds,
            "singlesLive": len(live), "singleSeconds": time.monotonic() - started,
            "reasons": list(together.reasons),
        }
    }  # fmt: skip


def _mended(session: Session, limits: Limits) -> NextRepair:
    """The default method, as the server does it."""
    return mended(
        session.model, session.plan.budget, session.bench.gate, limits,
        basis=session.basis, cancelled=session.cancelled,
    )  # fmt: skip


def lifelong(session: Session, chosen: Mapping[str, Sequence[Row]], variants: Mapping[str, Variant]) -> None:
    """Repair rows of all data sets, mixed, one after another on one model."""
    plan, bench, model, results = session.plan, session.bench, session.model, session.results
    mixed = [(data, row) for data, rows in chosen.items() for row in rows]
    picked = select(mixed, plan.lifelong, plan.seed)
    names = [name for name in plan.lifelong_methods if name in variants]
    if not picked or not names:
        return
    if bench.infilling and results.first(kind="infilling") is None:
        session.pace.plan("infilling", "", 1)
        with session.pace.one("infilling", "", "infilling by the base"):
            results.add({"kind": "infilling", "infilling": bench.infilling(model)})
    cases = [_case(session, data, row) for data, row in picked]
    beside = [
        Watch([written(model, bench.put(each), session.known) for each in row.neighbours], session.lowest)
        for _, row in picked
    ]

    def look(count: int) -> dict[str, Any]:
        kept = [each.count(model, session.cancelled) for each in beside]
        filled = bench.infilling(model) if bench.infilling else None
        return {
            "neighbours": _sum(kept), "neighboursTaught": _sum(kept[:count]),
            **session.moved(), "infilling": filled,
        }  # fmt: skip

    for name in names:
        variant = variants[name]
        if name == "ours" and bench.limits:
            following = _mended(session, bench.limits)
        else:
            method = session.method(variant)
            following = on_top(model, method, plan.budget, bench.gate, bench.limits, session.cancelled)
        done = sum(1 for _ in results.find(kind="lifelong-step", method=name))
        session.pace.plan("lifelong", name, len(cases) - done)
        run = LifelongRun(
            model, results, name, variant.settings, cases, following, look,
            partial(_doing, session, name, len(cases)), session.cancelled,
        )  # fmt: skip
        run.go()


def _doing(session: Session, name: str, of: int, number: int) -> Any:
    return session.pace.one("lifelong", name, f"lifelong: repair {number} of {of} by {name}")


def _case(session: Session, data: str, row: Row) -> Case:
    """A row's case, by a name that no row of another data set has."""
    return replace(session.bench.put(row.flagged), id=f"{data}/{row.id}")


def _sum(pairs: Sequence[tuple[int, int]]) -> list[int]:
    return [sum(some for some, _ in pairs), sum(of for _, of in pairs)]
