"""A run: every method on every row, row by row, so that what is compared was measured side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from star.bench.cost import counted
from star.bench.data import Row, select
from star.bench.many import batch, lifelong
from star.bench.measure import Watched, effect, watch
from star.bench.methods import Trial, Variant, tune
from star.bench.plan import OnProgress, Plan
from star.bench.results import Line, Results
from star.bench.session import Bench, Session, about
from star.bench.watch import Watch, wanted, writes
from star.errors import Cancelled, CaseError
from star.patch import installed

__all__ = ["Bench", "run"]


def run(
    bench: Bench,
    plan: Plan,
    results: Results,
    on_progress: OnProgress = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Measure all that is planned and not in the results yet.

    Raises:
        Cancelled: between two passes; what was finished is kept.
        BenchError: results cannot be written.
    """
    session = Session(bench, plan, results, on_progress, cancelled)
    pace = session.pace
    for data in plan.data:
        most = len(data.figures) if plan.limit is None else min(plan.limit, len(data.figures))
        pace.plan("base", "", most)
        for name in plan.methods if plan.singles else ():
            pace.plan("repair", name, most)
    chosen = {data.name: _failing(session, data.name, data.figures, plan.limit) for data in plan.data}
    session.read_unrelated()
    for name in plan.methods:
        pace.drop("repair", name)
        pace.plan("repair", name, sum(map(len, chosen.values())) if plan.singles else 0)
    variants = _tuned(session)
    for data_name, rows in chosen.items() if plan.singles else ():
        for row in rows:
            _row(session, data_name, row, variants)
    for data_name, rows in chosen.items():
        batch(session, data_name, rows[: plan.batch], variants)
    lifelong(session, chosen, variants)


# -- rows ------------------------------------------------------------------------------------------------


def _failing(session: Session, data: str, rows: Sequence[Row], limit: int | None) -> list[Row]:
    """The first rows, in an order drawn by the seed, that the base gets wrong."""
    found: list[Row] = []
    for row in select(rows, None, session.plan.seed):
        if limit is not None and len(found) >= limit:
            break
        line = session.results.first(kind="base", data=data, row=row.id)
        if line is None:
            with session.pace.one("base", "", f"{data}: what the base writes at {row.id}"):
                line = _looked(session, data, row)
        if not line["solved"] and not line.get("refused"):
            found.append(row)
    session.pace.drop("base", "")
    return found


def _looked(session: Session, data: str, row: Row) -> Line:
    """Whether the base already writes what a row teaches; a row that cannot be put says why."""
    Cancelled.check(session.cancelled)
    line: dict[str, Any] = {"kind": "base", "data": data, "row": row.id}
    try:
        target = wanted(session.model, session.bench.put(row.flagged))
        return session.results.add({**line, "solved": writes(session.model, target)})
    except CaseError as error:
        return session.results.add({**line, "solved": False, "refused": str(error)})


def _watched(session: Session, row: Row, measures: frozenset[str]) -> Watched:
    """A row made ready, with no more of it than is to be measured."""
    if "generalization" not in measures:
        row = replace(row, siblings=())
    if "specificity" not in measures:
        row = replace(row, neighbours=())
    put, seed = session.bench.put, session.plan.seed
    made = watch(session.model, put, row, session.known, session.lowest, seed)
    return made if "robustness" in measures else replace(made, robust=Watch([]))


def _row(session: Session, data: str, row: Row, variants: Mapping[str, Variant]) -> None:
    """One row, by each method that has not had it."""
    watched: Watched | None = None
    for name, variant in variants.items():
        if session.results.first(kind="repair", method=name, data=data, row=row.id):
            session.pace.skip("repair", name)
            continue
        session.method(variant)
        with session.pace.one("repair", name, f"{data}: {row.id} by {name}"):
            watched = watched or _watched(session, row, session.plan.measures)
            line = {"kind": "repair", **about(variant), "data": data, "row": row.id}
            session.results.add({**line, "seed": session.plan.seed, **_repaired(session, variant, watched)})


def _repaired(session: Session, variant: Variant, watched: Watched) -> dict[str, Any]:
    """One repair from the base, and all that it did; its patch is not kept."""
    Cancelled.check(session.cancelled)
    model, case = session.model, watched.flagged.targets[0].case
    method = session.method(variant)
    with counted(model, [case]) as cost:
        result = method(model, [case], session.plan.budget, cancelled=session.cancelled)
    seen = effect(model, watched, result, cost, session.cancelled)
    with installed(model, [*model.patches, result.patch]):
        moved = session.moved()
    return {
        "solved": seen.solved, "after": result.outcomes[0].after,
        "exactBefore": seen.exact_before, "exactAfter": seen.exact_after,
        "near": seen.near, "distant": seen.distant, "robust": seen.robust, "neighbours": seen.neighbours,
        **moved, "steps": seen.steps, "seconds": seen.seconds, "passes": seen.passes,
        "patchBytes": seen.patch_bytes, "memoryBytes": round(1e6 * (cost.peak_mb - cost.start_mb)),
    }  # fmt: skip


# -- tuning ----------------------------------------------------------------------------------------------


def _tuned(session: Session) -> dict[str, Variant]:
    """The variant of each method that is measured: the best on the tuning rows."""
    plan, results = session.plan, session.results
    grids = {name: tuple(session.bench.grids(name)) for name in plan.methods}
    lines = {name: results.first(kind="tuned", method=name) for name in grids}
    missing = [name for name, variants in grids.items() if lines[name] is None and len(variants) > 1]
    rows: dict[str, tuple[str, Row]] = {}
    for data in plan.data if missing else ():
        some = _failing(session, data.name, data.tuning, plan.tuning_rows)
        rows |= {f"{data.name}/{row.id}": (data.name, row) for row in some}
    for name in missing:
        session.pace.plan("trial", name, len(grids[name]) * len(rows))
    watched: dict[str, Watched] = {}

    def trial(variant: Variant, key: str) -> Trial:
        data, row = rows[key]
        if key not in watched:
            watched[key] = _watched(session, row, plan.measures & {"specificity"})
        return _tried(session, variant, data, row, watched[key])

    chosen = {}
    for name, variants in grids.items():
        line = lines[name]
        if line is None:
            best, seen = tune(variants, list(rows), trial)
            line = results.add({"kind": "tuned", **about(best), **seen})
        chosen[name] = next(each for each in variants if dict(each.settings) == line["settings"])
    return chosen


def _tried(session: Session, variant: Variant, data: str, row: Row, watched: Watched) -> Trial:
    """One variant on one tuning row."""
    same = {"kind": "trial", **about(variant), "data": data, "row": row.id}
    line = session.results.first(**same)
    if line is None:
        session.method(variant)
        with session.pace.one("trial", variant.name, f"{data}: tuning {variant.name} on {row.id}"):
            line = session.results.add({**same, **_repaired(session, variant, watched)})
    else:
        session.pace.skip("trial", variant.name)
    kept, of = line["neighbours"]
    # Looked at, and no number: the model was wrecked.
    kl = float("inf") if line["kl"] is None else float(line["kl"])
    return Trial(line["solved"], kl if session.looks_beside else None, kept / of if of else None)
