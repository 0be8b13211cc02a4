"""``star-lsp bench latency``: what is typed, what is accepted, how it is told; and a run on a tiny model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from star.errors import BenchError
from star_lsp.cli.latency.cost import Cost
from star_lsp.cli.latency.figure import draw
from star_lsp.cli.latency.llama import Layouted, Typed
from star_lsp.cli.latency.rates import Rates
from star_lsp.cli.latency.replay import Document, Request, Suggestion, acceptable, gaps, replay
from star_lsp.cli.latency.summary import (
    ASKED,
    KINDS,
    Measured,
    accepted,
    markdown,
    of,
    told,
    wait,
    without_model,
)
from star_lsp.cli.latency.trace import Trace, of_source, traces
from star_lsp.prompt import Limits
from tests import mendable, tiny
from tests.server.shell import Run


def _rows(path: Path, *rows: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def _request(**changes: Any) -> Request:
    return replace(Request("star-lsp", "t", "next keystroke", 100.0, True, 4, 0, 10), **changes)


# -- traces


def test_a_row_is_typed_into_the_blank_line_that_its_solution_leaves(tmp_path: Path) -> None:
    row = {"prompt": "def f():\n", "suffix": "    return x\n", "canonical_solution": "    x = 1\n"}
    (trace,) = traces([_rows(tmp_path / "rows.jsonl", row)], 5, 0)
    assert (trace.prefix, trace.truth, trace.suffix) == ("def f():\n", "    x = 1", "\n    return x\n")


def test_a_line_of_a_source_file_is_typed_where_it_was() -> None:
    source = "# a comment that is long\nvalue = compute(1)\nx = 1\nother = compute(2)\n"
    found = of_source(source, "app", 9, 0)
    assert sorted(each.truth for each in found) == ["other = compute(2)", "value = compute(1)"]
    assert all(each.prefix + each.truth + each.suffix == source for each in found)


def test_the_same_seed_draws_the_same_lines_and_another_seed_other_ones() -> None:
    source = "\n".join(f"value_{number} = {number}" for number in range(50))
    assert of_source(source, "app", 5, 1) == of_source(source, "app", 5, 1)
    assert of_source(source, "app", 5, 1) != of_source(source, "app", 5, 2)


def test_a_file_with_nothing_to_type_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("x\n", "utf-8")
    with pytest.raises(BenchError, match="give a longer file"):
        traces([path], 1, 0)


# -- the developer


@pytest.mark.parametrize(
    ("text", "rest", "taken"),
    [
        ("x = 1", "x = 1 + 2", True),
        ("x = 1", "x = 1", True),
        ("x = 12", "x = 1", False),
        ("x", "x = 1", False),
        ("", "x = 1", False),
        ("y = 1", "x = 1", False),
    ],
)
def test_a_suggestion_is_accepted_when_all_of_it_is_what_comes_next(
    text: str, rest: str, taken: bool
) -> None:
    assert acceptable(text, rest) is taken


def test_a_person_hits_a_key_each_120_to_250_ms_and_the_same_seed_hits_them_alike() -> None:
    human = list(islice(gaps("human", "a"), 50))
    assert all(gap is not None and 0.12 <= gap <= 0.25 for gap in human)
    assert human == list(islice(gaps("human", "a"), 50))
    assert list(islice(gaps("fast", "a"), 3)) == [None] * 3


def test_the_cursor_is_counted_in_utf_16_units() -> None:
    document = Document("u", "a\n😀b", "").typed("c")
    assert (document.line, document.character) == (1, 4)


class _Played:
    """Suggests what a play says at each text left of the cursor; answers to the rest never come."""

    name = "played"

    def __init__(self, play: dict[str, str], silent: bool = False) -> None:
        self.text, self.taken, self.cancelled = "", list[str](), 0
        self._play, self._silent = play, silent

    async def open(self, document: Document) -> None:
        self.text = document.prefix

    async def insert(self, document: Document, text: str) -> None:
        assert document.prefix == self.text, "what is typed reaches the server in order"
        self.text += text

    async def complete(self, document: Document) -> Suggestion:
        if self._silent and 0 < len(document.prefix) < 3:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        return Suggestion(self._play.get(document.prefix, ""), document.prefix)

    async def accept(self, suggestion: Suggestion) -> None:
        self.taken.append(suggestion.id)


def _replayed(server: _Played, truth: str, gap: float | None = None) -> list[Request]:
    async def all_() -> list[Request]:
        between = iter([gap] * 99)
        return [each async for each in replay(Trace("t", "", "\n", truth), server, between)]

    return asyncio.run(all_())


def test_a_developer_types_until_a_suggestion_is_right_then_takes_all_of_it_and_goes_on() -> None:
    server = _Played({"": "no", "x": " = ", "x = ": "12"})
    found = _replayed(server, "x = 12")
    assert [each.kind for each in found] == ["cold", "next keystroke", "after accept", "after accept"]
    assert [each.accepted for each in found] == [0, 3, 2, 0]
    assert [each.left for each in found] == [6, 5, 2, 0]
    assert server.text == "x = 12"
    assert server.taken == ["x", "x = "]


def test_a_request_that_is_not_answered_before_the_next_key_is_taken_back() -> None:
    server = _Played({}, silent=True)
    found = _replayed(server, "abc", 0.01)
    assert [each.answered for each in found] == [True, False, False, True]
    assert server.cancelled == 2


# -- the peer


def test_the_peer_reads_the_line_that_is_typed_behind_all_else(tmp_path: Path) -> None:
    layouted = Layouted(tiny.folder(tmp_path / "tiny"), Limits())
    before = layouted.prompt(Document("u", "a = 1\nb", "\nc = 2\n"))
    after = layouted.prompt(Document("u", "a = 1\nb =", "\nc = 2\n"))
    assert after.ids[: len(before.ids)] == before.ids
    assert after.prefix == "a = 1\nb ="


def test_the_peer_shows_on_what_is_typed_as_shown_and_is_asked_for_all_else() -> None:
    typed, document = Typed(), Document("u", "x", "\n")
    typed.keep(document, " = 1")
    assert typed.at(document) == " = 1"
    assert typed.at(document.typed(" =")) == " 1"
    assert typed.at(document.typed(" = 1")) is None
    assert typed.at(document.typed(" -")) is None
    assert typed.at(replace(document, suffix="")) is None
    assert typed.at(Document("u", "", "\n")) is None
    typed.keep(document, "")
    assert typed.at(document) == ""


# -- figures


def test_percentiles_are_times_that_were_measured() -> None:
    requests = [_request(milliseconds=float(each)) for each in range(1, 101)]
    assert [str(wait(requests, percent)) for percent in (50, 95, 99)] == ["50.0", "95.0", "99.0"]
    assert wait([], 50) is None


def test_a_percentile_above_a_request_that_was_taken_back_is_a_lower_bound() -> None:
    requests = [_request(milliseconds=each) for each in (2.0, 3.0, 900.0)]
    requests.append(_request(milliseconds=150.0, answered=False))
    assert [str(wait(requests, percent)) for percent in (25, 50, 75, 99)] == ["2.0", "3.0", "> 150", "> 900"]


def test_what_is_accepted_is_counted_against_the_truth_and_once_for_each_document() -> None:
    requests = [_request(kind="cold", accepted=4, left=10), _request(accepted=1, left=6)]
    assert accepted(requests) == 0.5
    assert accepted([]) is None


def test_only_an_answer_can_have_been_given_without_the_model() -> None:
    requests = [_request(milliseconds=1.0), _request(milliseconds=1.0, answered=False), _request()]
    assert without_model(requests) == pytest.approx(1 / 3)


def _measured() -> Measured:
    requests = [
        _request(milliseconds=50.0),
        _request(milliseconds=1.0),
        _request(server="llama.cpp", milliseconds=200.0),
        _request(server="llama.cpp", kind="cold", milliseconds=9.0, answered=False),
    ]
    costs = {"star-lsp": Cost(2.0, 10**9, 10**9, 0, 10**9), "llama.cpp": Cost(4.0, 10**9, 10**9, 0, 10**9)}
    rates = {"star-lsp": Rates(160.0, 10.0), "llama.cpp": Rates(80.0, 20.0)}
    return Measured(["star-lsp", "llama.cpp"], requests, costs, rates)


def test_ratios_are_ours_by_the_peers_and_only_where_both_are_known() -> None:
    ratios: Any = told(_measured())["ratios"]
    assert ratios["next keystroke, model asked p50"] == 0.25
    assert ratios["prefill, tokens/s"] == 2.0
    assert ratios["decode, tokens/s"] == 0.5
    assert ratios["processor time, s"] == 0.5
    assert not any(name.startswith("cold") for name in ratios)


def test_times_that_nobody_can_tell_apart_have_the_ratio_one() -> None:
    requests = [_request(milliseconds=3.0), _request(server="llama.cpp", milliseconds=0.01)]
    ratios: Any = told(Measured(["star-lsp", "llama.cpp"], requests))["ratios"]
    assert ratios["next keystroke p50"] == 1.0


def test_keys_that_the_model_was_asked_for_are_told_apart_from_those_that_memory_answered() -> None:
    assert [each.milliseconds for each in of(_measured(), "star-lsp", ASKED)] == [50.0]


def test_the_tables_have_a_row_for_each_kind_and_a_column_for_each_figure() -> None:
    for measured in (_measured(), replace(_measured(), servers=["star-lsp"]), Measured(["star-lsp"])):
        first, second, third = markdown(measured).split("\n\n")
        for table in (first, second, third):
            assert len({line.count("|") for line in table.splitlines()}) == 1
        assert "| after repair | 0 of 0 |" in first


@pytest.mark.bench  # which alone needs the library of plots
def test_the_plot_has_a_panel_for_each_kind_that_was_asked() -> None:
    svg = draw(_measured())
    assert "next keystroke" in svg
    assert "after accept" not in svg
    assert draw(Measured(["star-lsp"])).startswith("<?xml")


# -- a run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mendable.folder(tmp_path_factory.mktemp("models") / "mendable")


@pytest.mark.process
def test_a_row_is_typed_into_a_real_server_and_told(run: Run, model: Path, tmp_path: Path) -> None:
    row = {"prompt": "ab = ", "suffix": "", "canonical_solution": "one\n"}
    out = tmp_path / "out"
    ran = run(
        "bench", "latency", "--data", _rows(tmp_path / "rows.jsonl", row), "--model", model,
        "--pace", "fast", "--out", out, "--json",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    lines = [json.loads(line) for line in (out / "latency.jsonl").read_text("utf-8").splitlines()]
    assert [(each["kind"], each["accepted"]) for each in lines] == [("cold", 3), ("after accept", 0)]
    ours = ran.json["servers"]["star-lsp"]
    assert ours["accepted"] == 1.0
    assert ours["decodeTokensPerSecond"] > 0
    assert ours["serverBytes"] > 0
    assert "| cold | 1 of 1 |" in (out / "latency.md").read_text("utf-8")
    assert "<svg" in (out / "latency.svg").read_text("utf-8")


@pytest.mark.process
def test_a_wrong_suggestion_is_repaired_while_one_types_and_the_same_keys_are_timed(
    run: Run, model: Path, tmp_path: Path
) -> None:
    row = {"prompt": "ab = ", "suffix": "", "canonical_solution": "two\n"}
    out = tmp_path / "out"
    ran = run(
        "bench", "latency", "--data", _rows(tmp_path / "rows.jsonl", row), "--model", model,
        "--pace", "fast", "--out", out, "--json", "--repairs", "1",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    kinds = [json.loads(line)["kind"] for line in (out / "latency.jsonl").read_text("utf-8").splitlines()]
    assert kinds.count("at rest") >= kinds.count("during repair") > 0
    assert kinds[-1] == "after repair"
    repairs = ran.json["repairs"]
    assert repairs["a revision swapped in, ms"] > 0
    # A tiny model mostly answers as fast as memory does, and then there is nothing to compare.
    slower = repairs["median wait for the model during a repair / at rest"]
    assert slower is None or slower > 0
    # Keys that nobody would type count among no developer's.
    typed = sum(kind in KINDS[:3] for kind in kinds)
    told_ = ran.json["servers"]["star-lsp"]["kinds"]
    assert sum(told_[each]["requests"] for each in told_ if each in KINDS[:3]) == typed
    assert "| a revision swapped in, ms |" in (out / "latency.md").read_text("utf-8")


def test_what_a_repair_costs_is_told_by_the_same_keys_where_the_model_ran() -> None:
    rest = [_request(kind="at rest", milliseconds=each) for each in (100.0, 5.0, 100.0, 900.0)]
    during = [_request(kind="during repair", milliseconds=each) for each in (110.0, 600.0, 110.0)]
    after = [_request(kind="after repair", milliseconds=150.0)]
    measured = Measured(["star-lsp"], [*rest, *during, *after], swap_milliseconds=3.0)
    repairs: Any = told(measured)["repairs"]
    assert repairs["median wait for the model during a repair / at rest"] == pytest.approx(1.1)
    assert repairs["first suggestion after a repair / at rest, medians"] == pytest.approx(1.5)
    assert "| a revision swapped in, ms | 3.00 | ≤ 100 |" in markdown(measured)
    assert without_model(of(measured, "star-lsp")) is None


#: llama.cpp as its wheel presents it, with a model that always writes the same.
_WHEEL = """
from types import SimpleNamespace

class CommonParams:
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = (SimpleNamespace() for _ in range(3))

class Server:
    def __init__(self, params):
        print("loading", params.model.path)

    def handle_completions(self, asked, on_chunk):
        timings = {"prompt_per_second": 50.0, "predicted_per_second": 25.0}
        for text in ("on", "e", "\\n", "two") if asked["prompt"] else ():
            if on_chunk({"choices": [{"text": text, "finish_reason": None}], "timings": timings}):
                return
"""


@pytest.mark.process
def test_the_same_is_typed_into_the_peer_under_the_same_stop_rule(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "wheel"
    wheel.mkdir()
    (wheel / "xllamacpp.py").write_text(_WHEEL, "utf-8")
    monkeypatch.syspath_prepend(wheel)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(wheel), os.environ.get("PYTHONPATH", "")]))
    row = {"prompt": "ab = ", "suffix": "", "canonical_solution": "one\n"}
    file, out = _rows(tmp_path / "rows.jsonl", row, row), tmp_path / "out"
    ran = run(
        "bench", "latency", "--data", file, "--model", model, "--pace", "fast", "--out", out, "--json",
        "--peer", "llama.cpp", "--gguf", file,
    )  # fmt: skip
    assert ran.status == 0, ran.err
    lines = [json.loads(line) for line in (out / "latency.jsonl").read_text("utf-8").splitlines()]
    order = list(dict.fromkeys((each["trace"], each["server"]) for each in lines))
    assert [server for _, server in order] == ["star-lsp", "llama.cpp", "llama.cpp", "star-lsp"]
    assert len({trace for trace, _ in order[:2]}) == 1
    assert {each["suggested"] for each in lines if each["kind"] == "cold"} == {3}
    servers, ratios = ran.json["servers"], ran.json["ratios"]
    assert servers["llama.cpp"]["prefillTokensPerSecond"] == 50.0
    assert servers["llama.cpp"]["serverBytes"] > 0
    assert ratios["characters of the truth accepted, %"] == 1.0


@pytest.mark.process
def test_ctrl_c_leaves_what_was_measured(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "x = 1\n", "suffix": "", "canonical_solution": "zz = " + "q" * 40 + "\n"}] * 40
    file, out = _rows(tmp_path / "rows.jsonl", *rows), tmp_path / "out"
    started = subprocess.Popen(
        [sys.executable, "-m", "star_lsp", "bench", "latency", "--rows", "40", "--data", file,
         "--model", model, "--out", out],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        until, lines = time.monotonic() + 120, out / "latency.jsonl"
        while time.monotonic() < until and not (lines.exists() and lines.read_text("utf-8")):
            time.sleep(0.02)
        started.send_signal(signal.SIGINT)
        said, error = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 130, error
    assert said == ""
    assert f"what was measured is in {out}" in error.replace("\n", " ")
    assert "stopped before its end" in (out / "latency.md").read_text("utf-8")


def test_a_peer_without_its_model_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    ran = run("bench", "latency", "--data", _rows(tmp_path / "rows.jsonl", {}), "--peer", "llama.cpp")
    assert ran.status == 2
    assert "--gguf" in ran.err


def test_a_library_that_is_absent_is_named_with_the_way_to_have_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "star_lsp.cli.latency.command.find_spec", lambda name: None if name == "xllamacpp" else 1
    )
    file = _rows(tmp_path / "rows.jsonl", {})
    ran = run("bench", "latency", "--data", file, "--peer", "llama.cpp", "--gguf", file, "--out", tmp_path)
    assert ran.status == 2
    assert "xllamacpp" in ran.err
    assert "pip install 'star-lsp[bench]'" in ran.err
