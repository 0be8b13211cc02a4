"""A run that is cut off goes on, and never mixes with another."""

import json
from pathlib import Path

import pytest

from star.bench.machine import commit, machine, versions
from star.bench.results import Results, read
from star.errors import BenchError

HEAD = {"same": {"base": "tiny", "limit": 3}}


def test_what_was_measured_is_found_again(tmp_path: Path) -> None:
    with_one = Results(tmp_path / "new", HEAD)
    with_one.add({"kind": "repair", "method": "ours", "row": "a", "solved": True})
    again = Results(tmp_path / "new", HEAD)
    assert again.first(kind="repair", row="a") == {
        "kind": "repair", "method": "ours", "row": "a", "solved": True,
    }  # fmt: skip
    assert again.first(kind="repair", row="b") is None
    assert [line["kind"] for line in read(tmp_path / "new")] == ["run", "repair", "resumed"]


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    results = Results(tmp_path, HEAD)
    results.add({"kind": "repair", "row": "a", "text": "line\u2028separator \r and \ud800"})
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    for cut in (1, 5, len(whole.splitlines()[-1])):
        path.write_bytes(whole + whole.splitlines(keepends=True)[-1][:-cut])
        assert [line["kind"] for line in read(tmp_path)] == ["run", "repair"]
        Results(tmp_path, HEAD).add({"kind": "repair", "row": "b"})
        found = [line["kind"] for line in read(tmp_path)]
        assert found == ["run", "repair", "resumed", "repair"]
    path.write_bytes(b"")
    assert not list(Results(tmp_path, HEAD).find(kind="repair"))


def test_another_run_in_the_folder_is_refused_with_what_differs(tmp_path: Path) -> None:
    Results(tmp_path, HEAD)
    with pytest.raises(BenchError, match=r"limit 3 there and 4 here.*--fresh"):
        Results(tmp_path, {"same": {"base": "tiny", "limit": 4}})
    with pytest.raises(BenchError, match=r'base "tiny" there and "other" here'):
        Results(tmp_path, {"same": {"base": "other", "limit": 3}})


def test_beginning_anew_puts_the_earlier_run_aside(tmp_path: Path) -> None:
    Results(tmp_path, HEAD).add({"kind": "repair", "row": "a"})
    (tmp_path / "lifelong").mkdir()
    fresh = Results(tmp_path, {"same": {"base": "other"}}, fresh=True)
    assert not list(fresh.find(kind="repair"))
    assert not (tmp_path / "lifelong").exists()
    kept = (tmp_path / "results.jsonl.1").read_text().splitlines()
    assert json.loads(kept[-1])["row"] == "a"
    assert (tmp_path / "lifelong.1").is_dir()


def test_a_damaged_line_and_a_folder_without_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no results"):
        read(tmp_path)
    (tmp_path / "results.jsonl").write_text('{"kind": "run", "same": {}}\nnonsense\n{"kind": "repair"}\n')
    with pytest.raises(BenchError, match="Line 2"):
        read(tmp_path)
    (tmp_path / "results.jsonl").write_text('{"kind": "repair"}\n')
    with pytest.raises(BenchError, match="not the results of a run"):
        read(tmp_path)


def test_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    line = Results(tmp_path, HEAD).add({"kind": "repair", "kl": float("nan"), "pair": (float("inf"), 1)})
    assert line == {"kind": "repair", "kl": None, "pair": [None, 1]}
    assert read(tmp_path)[-1] == line


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="--out"):
        Results(tmp_path / "file" / "under", HEAD)


def test_the_machine_and_the_versions_are_told(tmp_path: Path) -> None:
    found = machine()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memoryBytes"] > 1e8
    assert {"python", "torch", "numpy"} <= set(versions())
    assert commit(tmp_path) is None
    here = commit(Path(__file__).parent)
    assert here is None or len(here.removesuffix("+")) == 40
