"""A whole run on a tiny model: what is measured, in which order, and how it goes on."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from star.bench.data import Context, Role, Row
from star.bench.measure import samples
from star.bench.methods import Variant, star_variant
from star.bench.plan import Data, Pace, Plan, apart
from star.bench.results import Line, Results
from star.bench.run import Bench, run
from star.case import Case
from star.errors import Cancelled, CaseError
from star.gate import Limits
from star.model import CodeModel
from star.patch import install
from star.repair import Star, repair
from star.result import Budget
from star.stop import StopRule
from tests import tiny

GOOD = Star(layers="2/4", pattern="none", margin=0.1, rate=0.1)
TIMID = replace(GOOD, rate=1e-9, grow=1.0)


def grids(name: str) -> Sequence[Variant]:
    """Two methods: one that has nothing to choose, and one that must find its rate."""
    if name == "ours":
        return [star_variant(name, GOOD, {})]
    return [star_variant(name, TIMID, {"rate": 1e-9}), star_variant(name, GOOD, {"rate": 0.1})]


def _context(name: str, expected: str, role: Role = "flagged") -> Context:
    return Context(name, f"def f(x):\n    {name} = ", "\n", expected, role)


def row(name: str, expected: str = "x+1") -> Row:
    """A row with one near sibling and one neighbour."""
    siblings = (_context(f"{name}_near", expected, "near"), _context(f"far{name}", "y", "distant"))
    return Row(name, _context(name, expected), siblings, (_context(f"q{name}", "z", "neighbour"),))


def bench(model: CodeModel, **more: Any) -> Bench:
    def put(context: Context) -> Case:
        if "refuse" in context.id:
            raise CaseError("Nothing stands before this place.")
        stop = StopRule.at(context.prefix, context.suffix)
        return Case(context.id, model.encode(context.prefix), stop.trim(context.expected), stop)

    unrelated = samples(model, [("import os\n", "os.getcwd()\n"), ("x = [", "1, 2]\n")])
    return Bench(model, put, unrelated, limits=Limits(0.0, 100.0), grids=grids, **more)


def plan(**more: Any) -> Plan:
    data = Data("one/test", (row("a"), row("b"), row("c")), (row("t"), row("u")))
    return replace(Plan((data,), ("ours", "peer"), Budget(40), tuning_rows=1), **more)


def lines(results: Results, kind: str) -> list[Line]:
    return list(results.find(kind=kind))


def test_every_method_has_every_row_and_rows_are_interleaved(one: CodeModel, tmp_path: Path) -> None:
    results = Results(tmp_path, {"same": {}})
    run(bench(one), plan(), results)
    order = [(line["row"], line["method"]) for line in lines(results, "repair")]
    rows = list(dict.fromkeys(name for name, _ in order))
    assert sorted(rows) == ["a", "b", "c"]
    assert order == [(name, method) for name in rows for method in ("ours", "peer")]
    for line in lines(results, "repair"):
        assert line["solved"] is True
        assert line["exactBefore"] < line["exactAfter"] == 100.0
        assert 0 <= line["unchanged"] <= 1
        assert line["kl"] > 0
        assert line["near"][1] == line["distant"][1] == line["neighbours"][1] == 1
        assert line["robust"][1] > 0
        assert line["passes"] > line["steps"] > 0
        assert line["seconds"] > 0
        assert line["patchBytes"] > 0
        assert line["seed"] == 0
        assert line["data"] == "one/test"
    assert one.patches == ()


def test_tuning_chooses_on_rows_of_its_own(one: CodeModel, tmp_path: Path) -> None:
    results = Results(tmp_path, {"same": {}})
    run(bench(one), plan(), results)
    assert {line["row"] for line in lines(results, "trial")} <= {"t", "u"}
    assert len(lines(results, "trial")) == 2, "two variants on one tuning row"
    tuned = {line["method"]: line for line in lines(results, "tuned")}
    assert tuned["peer"]["settings"] == {"rate": 0.1}
    assert [(seen["settings"], seen["solved"]) for seen in tuned["peer"]["seen"]] == [
        ({"rate": 1e-9}, 0),
        ({"rate": 0.1}, 1),
    ]
    assert tuned["ours"]["settings"] == {}
    assert {line["settings"].get("rate") for line in lines(results, "repair")} == {None, 0.1}


def test_a_row_among_the_figures_is_never_a_tuning_row() -> None:
    here, there = apart([Data("x", (row("a"), row("b")), (row("b"), row("c"))), Data("y", (), (row("a"),))])
    assert [each.id for each in here.tuning] == ["c"]
    assert [each.id for each in here.figures] == ["a", "b"]
    assert there.tuning == ()


def test_only_rows_that_the_base_gets_wrong_are_repaired_and_only_so_many(tmp_path: Path) -> None:
    taught = tiny.model("qwen2", seed=0)
    install(taught, [repair(taught, [bench(taught).put(row("a").flagged)], Budget(60), method=GOOD).patch])
    model = CodeModel(taught.network, tiny.tokenizer(), "taught")  # whose base has learnt row a already
    data = Data("d", (row("a"), row("refuse"), row("b", "os"), row("c", "os"), row("d", "os")))
    results = Results(tmp_path, {"same": {}})
    run(bench(model), plan(data=(data,), methods=("ours",), limit=2), results)
    repaired = [line["row"] for line in lines(results, "repair")]
    assert len(repaired) == 2
    assert not {"a", "refuse"} & set(repaired)
    run(bench(model), plan(data=(data,), methods=("ours",), limit=None), results)
    base = {line["row"]: line for line in lines(results, "base")}
    assert base["a"]["solved"] is True
    assert base["refuse"]["refused"].startswith("Nothing")
    assert {line["row"] for line in lines(results, "repair")} <= {"b", "c", "d"}


class _Stop:
    """Says stop when it was asked so often."""

    def __init__(self, after: float) -> None:
        self.after = after
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked > self.after


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_run_that_was_stopped_goes_on_and_measures_nothing_twice(
    one: CodeModel, tmp_path: Path, share: float
) -> None:
    wanted, never = plan(batch=2, lifelong=2), _Stop(math.inf)
    whole = Results(tmp_path / "whole", {"same": {}})
    run(bench(one), wanted, whole, cancelled=never)
    cut = Results(tmp_path / "cut", {"same": {}})
    with pytest.raises(Cancelled):
        run(bench(one), wanted, cut, cancelled=_Stop(share * never.asked))
    assert one.patches == ()
    again = Results(tmp_path / "cut", {"same": {}})
    run(bench(one), wanted, again)

    def measured(results: Results) -> list[Any]:
        kinds = ("base", "trial", "tuned", "repair", "batch", "lifelong-step", "lifelong")
        skip = ("seconds", "singleSeconds", "memoryBytes", "gated")
        return sorted(
            str({name: value for name, value in line.items() if name not in skip})
            for line in results.lines
            if line["kind"] in kinds
        )

    assert measured(again) == measured(whole)
    before = len(again.lines)
    run(bench(one), wanted, again)
    assert len(again.lines) == before


def test_a_batch_is_held_against_the_single_repairs_of_the_same_rows(one: CodeModel, tmp_path: Path) -> None:
    results = Results(tmp_path, {"same": {}})
    run(bench(one), plan(batch=2, methods=("ours",)), results)
    (line,) = lines(results, "batch")
    assert line["solved"][1] == 2
    single = [each["seconds"] for each in lines(results, "repair") if each["row"] in line["rows"]]
    assert len(single) == 2
    assert line["singleSeconds"] == pytest.approx(sum(single))


def test_a_batch_of_ours_is_also_held_against_single_repairs_gate_and_all(
    one: CodeModel, tmp_path: Path
) -> None:
    results = Results(tmp_path, {"same": {}})
    run(replace(bench(one), limits=Limits(0.0, 100.0)), plan(batch=2, methods=("ours",)), results)
    (line,) = lines(results, "batch")
    gated = line["gated"]
    assert gated["solved"] == [2, 2]
    assert gated["singlesLive"] == 2
    assert gated["seconds"] > 0 < gated["singleSeconds"]
    assert one.patches == ()


def test_a_lifelong_run_looks_at_neighbours_unrelated_code_and_infilling(
    one: CodeModel, tmp_path: Path
) -> None:
    results = Results(tmp_path, {"same": {}})
    made = bench(one, infilling=lambda model: (len(model.patches), 7))
    run(made, plan(lifelong=3, lifelong_methods=("ours",)), results)
    (base,) = lines(results, "infilling")
    assert base["infilling"] == [0, 7]
    found = lines(results, "lifelong")
    assert [line["repairs"] for line in found] == [1, 3]
    assert found[-1]["solved"][1] == 3
    assert (found[0]["neighbours"][1], found[0]["neighboursTaught"][1]) == (3, 1)
    assert found[-1]["live"] == 3
    patches, _ = found[-1]["infilling"]
    assert 1 <= patches <= 3, "a case that another's repair has solved needs no patch of its own"
    assert found[-1]["kl"] > 0
    cases = [line["case"] for line in lines(results, "lifelong-step")]
    assert sorted(cases) == ["one/test/a", "one/test/b", "one/test/c"]


@pytest.mark.parametrize(
    ("measures", "absent"),
    [
        ({"effectiveness"}, ("near", "distant", "neighbours", "robust")),
        ({"effectiveness", "generalization"}, ("neighbours", "robust")),
        ({"effectiveness", "robustness"}, ("near", "distant", "neighbours")),
    ],
)
def test_no_more_is_measured_than_is_asked_for(
    one: CodeModel, tmp_path: Path, measures: set[str], absent: tuple[str, ...]
) -> None:
    results = Results(tmp_path, {"same": {}})
    run(bench(one), plan(methods=("ours",), limit=1, measures=frozenset(measures)), results)
    (line,) = lines(results, "repair")
    assert {name for name in ("near", "distant", "neighbours", "robust") if not line[name][1]} == set(absent)
    assert line["kl"] is None


def test_a_lifelong_run_can_be_had_without_single_repairs(one: CodeModel, tmp_path: Path) -> None:
    results, told = Results(tmp_path, {"same": {}}), list[tuple[int, int]]()
    wanted = plan(methods=("ours",), lifelong=2, singles=False)
    run(bench(one), wanted, results, lambda done, total, *_: told.append((done, total)))
    assert not lines(results, "repair")
    assert len(lines(results, "lifelong-step")) == 2
    assert told[-1][0] == told[-1][1]


def test_progress_counts_up_to_the_end_and_knows_what_is_left(one: CodeModel, tmp_path: Path) -> None:
    told: list[tuple[int, int, str, float | None]] = []
    wanted = plan(batch=2, lifelong=2)

    def on_progress(done: int, total: int, what: str, left: float | None) -> None:
        told.append((done, total, what, left))

    run(bench(one), wanted, Results(tmp_path, {"same": {}}), on_progress)
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    done, total, _, left = told[-1]
    assert done == total
    assert left == 0.0
    assert all(done <= total for done, total, *_ in told)
    assert any("a by ours" in what for _, _, what, _ in told)


def test_what_is_left_is_told_by_what_is_most_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("star.bench.plan.time.monotonic", lambda: float(next(clock)))
    pace = Pace(lambda *_: None)
    pace.plan("repair", "ours", 3)
    pace.plan("repair", "mint", 2)
    assert pace.remaining_seconds is None
    with pace.one("repair", "ours", "x"):
        pass
    assert pace.remaining_seconds == 2 * 10 + 2 * 10
    with pace.one("repair", "mint", "x"):
        next(clock)
        next(clock)
    assert pace.remaining_seconds == 2 * 10 + 30
