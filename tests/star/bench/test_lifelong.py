"""One repair on top of another, on disk after each, and looked at on the way."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from star.bench.lifelong import LifelongRun, NextRepair, Repaired, mended, on_top
from star.bench.results import Results
from star.case import Case
from star.decode import write
from star.errors import BenchError, Cancelled
from star.gate import Limits, Sample
from star.model import CodeModel
from star.patch import Patch, Rows, install, load
from star.repair import Star, repair
from star.result import Budget
from tests import tiny

METHOD = Star(layers="2/4", pattern="none", margin=0.1)
EASY = Limits(min_unchanged=0.0, max_kl=100.0)


def _cases(model: CodeModel, count: int) -> list[Case]:
    return [tiny.case(model, "x+1", f"def f(x):\n    y{n} = ", id=f"c{n}") for n in range(count)]


def _patch(model: CodeModel, number: int) -> Patch:
    delta = torch.full((1, model.width), 1e-3 * (number + 1))
    return Patch(model.fingerprint, (Rows(0, torch.tensor([number]), delta),))


def _fake(model: CodeModel, refused: Sequence[int] = (), stop: int = 1000) -> NextRepair:
    """A repair that does nothing much, and refuses some."""

    def repaired(history: tuple[Patch, ...], earlier: Sequence[Case], cases: Sequence[Case]) -> Repaired:
        (case,) = cases
        number = int(case.id[1:])
        if number == stop:
            raise Cancelled
        assert model.patches == history, "the history is installed"
        assert [each.id for each in earlier] == [f"c{n}" for n in range(number) if n not in refused]
        if number in refused:
            return Repaired(history, False, 1, ("no",))
        return Repaired((*history, _patch(model, number)), True, 1)

    return repaired


def _run(model: CodeModel, folder: Path, count: int, following: NextRepair) -> tuple[Results, list[int]]:
    results, looked = Results(folder, {"same": {}}), list[int]()

    def look(number: int) -> dict[str, object]:
        looked.append(number)
        return {"neighbours": [1, 1], "unchanged": None, "kl": None}

    LifelongRun(model, results, "star-batch-1/4", {}, _cases(model, count), following, look).go()
    return results, looked


def test_it_is_looked_at_after_1_10_50_100_200_and_the_last(one: CodeModel, tmp_path: Path) -> None:
    results, looked = _run(one, tmp_path, 12, _fake(one))
    assert looked == [1, 10, 12]
    found = list(results.find(kind="lifelong"))
    assert [line["repairs"] for line in found] == looked
    assert [line["live"] for line in found] == looked
    assert found[-1]["solved"][1] == 12
    assert found[-1]["patchBytes"] == 12 * _patch(one, 0).size_bytes
    assert one.patches == ()


def test_a_refused_repair_changes_nothing_and_counts_as_a_case(one: CodeModel, tmp_path: Path) -> None:
    results, _ = _run(one, tmp_path, 4, _fake(one, refused=(1, 3)))
    (last,) = results.find(kind="lifelong", repairs=4)
    assert (last["live"], last["solved"][1]) == (2, 4)
    steps = list(results.find(kind="lifelong-step"))
    assert [line["live"] for line in steps] == [True, False, True, False]
    assert steps[1]["history"] == steps[0]["history"]
    assert steps[3]["reasons"] == ["no"]


def test_a_run_that_was_cut_off_goes_on_from_its_patches(one: CodeModel, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        _run(one, tmp_path / "a", 6, _fake(one, refused=(1,), stop=3))
    assert one.patches == ()
    half, looked = _run(one, tmp_path / "a", 6, _fake(one, refused=(1,)))
    whole, _ = _run(one, tmp_path / "b", 6, _fake(one, refused=(1,)))
    assert looked == [6], "what was looked at before is not looked at again"

    def told(results: Results) -> list[list[object]]:
        names = ("number", "case", "live", "history")
        return [[line[name] for name in names] for line in results.find(kind="lifelong-step")]

    assert told(half) == told(whole)
    for name in list(whole.find(kind="lifelong-step"))[-1]["history"]:
        mine, other = (load(tmp_path / run / "lifelong/star-batch-1of4" / name, one) for run in "ab")
        assert mine.digest == other.digest
    _, again = _run(one, tmp_path / "a", 6, _fake(one, stop=0))
    assert again == [], "nothing is done twice"


def test_a_checkpoint_that_was_cut_off_is_looked_at_when_the_run_goes_on(
    one: CodeModel, tmp_path: Path
) -> None:
    results = Results(tmp_path, {"same": {}})

    def cut(number: int) -> dict[str, object]:
        raise Cancelled

    run = partial(LifelongRun, one, results, "m", {}, _cases(one, 2), _fake(one))
    with pytest.raises(Cancelled):
        run(cut).go()
    assert not list(results.find(kind="lifelong"))
    run(lambda number: {}).go()
    assert [line["repairs"] for line in results.find(kind="lifelong")] == [1, 2]


def test_patches_that_left_the_history_leave_the_disk(one: CodeModel, tmp_path: Path) -> None:
    def replacing(history: tuple[Patch, ...], earlier: Sequence[Case], cases: Sequence[Case]) -> Repaired:
        (case,) = cases
        return Repaired((_patch(one, int(case.id[1:])),), True)

    results, _ = _run(one, tmp_path, 3, replacing)
    kept = sorted(path.name for path in (tmp_path / "lifelong" / "star-batch-1of4").iterdir())
    assert kept == list(results.find(kind="lifelong-step"))[-1]["history"]
    assert len(kept) == 1


def test_a_patch_that_is_gone_is_named(one: CodeModel, tmp_path: Path) -> None:
    _run(one, tmp_path, 2, _fake(one))
    next((tmp_path / "lifelong" / "star-batch-1of4").iterdir()).unlink()
    with pytest.raises(BenchError, match="is gone"):
        _run(one, tmp_path, 3, _fake(one))


# -- on top of all, and the gate -------------------------------------------------------------------------


def test_real_repairs_stand_on_one_another(one: CodeModel, tmp_path: Path) -> None:
    samples = [Sample(one.encode("import os\n"), 1)]
    following = on_top(one, partial(repair, method=METHOD), Budget(60), samples, EASY)
    results, _ = _run(one, tmp_path, 2, following)
    (last,) = results.find(kind="lifelong", repairs=2)
    assert last["solved"] == [2, 2]
    assert last["live"] == 2


def test_the_gate_keeps_out_what_breaks_an_earlier_case_or_moves_too_much(one: CodeModel) -> None:
    first, second = tiny.case(one, id="a"), tiny.case(one, "y", id="b")  # they contradict each other
    method = partial(repair, method=METHOD)
    history = on_top(one, method, Budget(60), [], EASY)((), [], [first]).history
    install(one, history)
    refused = on_top(one, method, Budget(60), [], EASY)(history, [first], [second])
    assert (refused.history, refused.live) == (history, False)
    assert "earlier cases" in refused.reasons[0]
    install(one, history)
    let_in = on_top(one, method, Budget(60), [], None)(history, [first], [second])
    assert let_in.live
    install(one, let_in.history)
    assert write(one, second) == "y"
    install(one, ())
    sample = Sample(one.encode("def f(x):\n    return x\n"), 1)
    strict = on_top(one, method, Budget(60), [sample], Limits(min_unchanged=0.0, max_kl=0.0))
    assert "mean KL" in strict((), [], [first]).reasons[0]


def test_a_case_that_was_not_solved_does_not_go_live(one: CodeModel) -> None:
    found = on_top(one, partial(repair, method=METHOD), Budget(0), [], EASY)((), [], [tiny.case(one)])
    assert (found.history, found.live) == ((), False)
    assert "not solved" in found.reasons[0]


def test_a_repair_as_the_server_does_it_is_given_up_after_its_time(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("star.bench.lifelong._SECONDS", 0.0)
    timid = replace(METHOD, rate=1e-9, grow=1.0)
    found = mended(one, Budget(10**9), [], EASY, method=timid)((), [], [tiny.case(one)])
    assert (found.history, found.live) == ((), False)
