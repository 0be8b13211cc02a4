"""``star-lsp bench load``: what is counted and how it is told; and a small load on a tiny model."""

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from star_lsp.cli.latency.replay import Request
from star_lsp.cli.load.editor import SETTINGS
from star_lsp.cli.load.moment import Moment, moment
from star_lsp.cli.load.summary import Load, Window, growth, markdown, ratio, told, waited
from tests import mendable
from tests.server.shell import Run

#: A day's; fewer where there is no hour for it.
KEYS = int(os.environ.get("STAR_LSP_KEYS", "200000"))
REQUEST = Request("editor-1", "t", "cold", 100.0, True, 4, 0, 10)
MOMENT = Moment(0.0, 0, 400, 300, 0, 20, 0, 5, 1000)


def _moments(resident: Sequence[int], step: float = 10.0) -> list[Moment]:
    return [
        replace(MOMENT, seconds=step * number, resident_bytes=bytes_)
        for number, bytes_ in enumerate(resident)
    ]


# -- figures


def test_a_key_is_whatever_comes_before_a_request_but_the_opening_of_a_file() -> None:
    load = Load()
    for kind in ("cold", "next keystroke", "after accept", "next keystroke"):
        load.add(replace(REQUEST, kind=kind))  # type: ignore[arg-type]
    assert load.keys == 3


def test_only_the_first_request_in_a_file_and_the_last_of_its_line_are_waited_for() -> None:
    key = replace(REQUEST, kind="next keystroke")
    assert [waited(each) for each in (REQUEST, key, replace(key, left=0))] == [True, False, True]


def test_the_ratio_is_the_worst_editors_p95_by_the_best_ones() -> None:
    load = Load(["editor-1", "editor-2", "editor-3"])
    for name, milliseconds in (("editor-1", 100.0), ("editor-2", 300.0), ("editor-3", 200.0)):
        load.add(replace(REQUEST, server=name, milliseconds=milliseconds))
        # What the next key took back says only how fast one types.
        load.add(replace(REQUEST, server=name, kind="next keystroke", milliseconds=9_999.0, answered=False))
    assert ratio(load) == 3.0
    assert ratio(Load(["editor-1"], [REQUEST])) is None


def test_growth_leaves_the_warm_up_out_and_is_not_told_of_a_run_too_short_for_it() -> None:
    assert growth(_moments([100, *[400] * 29, 404, 404, 404]), lambda each: each.resident_bytes) == (400, 404)
    assert growth(_moments([100, 400]), lambda each: each.resident_bytes) is None
    assert growth([], lambda each: each.resident_bytes) is None


def test_the_tables_hold_every_figure_and_the_first_errors() -> None:
    window = Window(0.4, 0.8, 30_000_000, 120, (0.5, 0.7, 1.2), (0.1, 0.3, 0.2))
    load = Load(["editor-1"], [REQUEST], _moments([400] * 20), ["a | b", "a | b"], window=window)
    first, second = markdown(load).split("\n\n")
    for table in (first, second):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    for part in (
        "| errors | 2 | 0 |",
        "(+0.00 %)",
        "30.0 MB",
        "0.80 s",
        "median 0.70 s, p90 1.20 s, 2 of 3",
        "| error, 2 times | a / b |",
    ):
        assert part in second
    assert json.loads(json.dumps(told(load)))["growth"]["handles"] == [20, 20]
    assert markdown(Load())


def test_repairs_are_told_by_what_became_of_them_and_why() -> None:
    gate = "The gate refused the patch: {} of 275 tokens unchanged, 95.0% asked for."
    reasons = [
        gate.format(250),
        gate.format(251),
        "After 16 steps the model still writes 'a | b'; allow more.",
    ]
    load = Load(cases={"solved": 2, "reverted": 3, "failed": 3, "pending": 1}, patches=4, reasons=reasons)
    table = markdown(load)
    assert "5 succeeded, 2 blocked by the gate, 1 failed, 1 not at their end; 4 |" in table
    assert "| not repaired, 2 times | The gate refused the patch: N of N tokens" in table
    assert (
        "| not repaired, 1 times | After N steps the model still writes something else; allow more. |"
        in table
    )


def test_a_look_at_a_server_that_has_ended_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    found = moment(ended.pid, tmp_path, 1.0, 2)
    assert (found.resident_bytes, found.handles, found.store_bytes) == (0, 0, 5)


def test_pages_of_a_file_that_was_read_are_resident_but_nobodys_own(tmp_path: Path) -> None:
    size = 32 << 20
    (tmp_path / "weights").write_bytes(bytes(size))
    before = moment(os.getpid(), tmp_path, 0.0, 0)
    with (tmp_path / "weights").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as seen:
        for start in range(0, size, mmap.PAGESIZE):
            assert not seen[start]
        after = moment(os.getpid(), tmp_path, 0.0, 0)
    assert after.resident_bytes - before.resident_bytes > size * 0.9
    assert after.anonymous_bytes - before.anonymous_bytes < size * 0.1


def test_keys_without_fast_are_a_usage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    ran = run("bench", "load", "--data", tmp_path / "rows.jsonl", "--keys", "5")
    assert ran.status == 2
    assert "--keys goes with --fast" in ran.err


# -- a run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mendable.folder(tmp_path_factory.mktemp("models") / "mendable")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Lines of which the tiny model suggests the half rightly, and the other wrongly."""
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(16):
            name, value = f"{'abcd'[number // 4]}{'abcd'[number % 4]}", ("one", "two")[number % 2]
            row = {"prompt": f"{name} = ", "suffix": "", "canonical_solution": f"{value}\n"}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(prefix="s") as folder:
        yield Path(folder)


@pytest.mark.process
def test_three_editors_and_their_repairs_go_on_for_ten_seconds_without_an_error(
    run: Run, model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    ran = run(
        "bench", "load", "--data", rows, "--model", model, "--editors", "3", "--minutes", "0.17",
        "--flag-every", "1", "--out", out, "--json",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    found: Any = ran.json
    assert found["errors"] == []
    assert list(found["editors"]) == ["editor-1", "editor-2", "editor-3"]
    assert all(each["answered"] for each in found["editors"].values())
    assert found["keys"] > 20
    assert found["flagged"] >= 1
    assert sum(found["cases"].values()) >= 1
    assert found["ratio"] is not None
    before, after = found["growth"]["residentBytes"]
    assert after < before * 1.1
    assert found["window"]["more_bytes"] < 100_000_000
    assert len(found["window"]["at_once"]) == len(found["window"]["later"]) >= 1
    kinds = {json.loads(line)["kind"] for line in (out / "load.jsonl").read_text("utf-8").splitlines()}
    assert kinds == {"request", "moment"}
    assert "run to its end" in (out / "load.md").read_text("utf-8")


@pytest.mark.process
def test_typing_at_speed_ends_after_the_keys_that_were_asked_for(
    run: Run, model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ran = run(
        "bench", "load", "--data", rows, "--model", model, "--editors", "1", "--fast", "--keys", "30",
        "--flag-every", "0", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    assert 30 <= ran.json["keys"] <= 31
    assert (ran.json["flagged"], ran.json["ratio"], ran.json["window"]) == (0, None, None)


@pytest.mark.process
@pytest.mark.parametrize(
    ("number", "behind"), [(signal.SIGINT, False), (signal.SIGHUP, False), (signal.SIGTERM, True)]
)
def test_whoever_ends_a_load_has_what_was_measured_and_no_server_or_file_of_it_stays(
    number: signal.Signals, behind: bool, model: Path, rows: Path, tmp_path: Path, short: Path
) -> None:
    out = tmp_path / "out"
    # What a shell starts behind itself ignores Ctrl-C.
    before = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"] if behind else []
    started = subprocess.Popen(
        [*before, sys.executable, "-m", "star_lsp", "bench", "load", "--data", rows, "--model", model,
         "--editors", "2", "--out", out],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(short)},
    )  # fmt: skip
    try:
        until, lines = time.monotonic() + 120, out / "load.jsonl"
        while time.monotonic() < until and not (lines.exists() and '"request"' in lines.read_text("utf-8")):
            assert started.poll() is None
            time.sleep(0.05)
        (about,) = short.glob("star-lsp-load-*/data/server/*/server.json")
        server = psutil.Process(json.loads(about.read_text("utf-8"))["pid"])
        assert server.is_running()
        started.send_signal(number)
        said, error = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 130, error
    assert said == ""
    assert f"what was measured is in {out}" in error.replace("\n", " ")
    assert "stopped before its end" in (out / "load.md").read_text("utf-8")
    assert not server.is_running()
    assert not list(short.glob("star-lsp-load-*"))


@pytest.fixture
def mended(tmp_path: Path) -> Path:
    """A model that is wrong in every line of ``wrong``, each first letter a matter of its own; in int8."""
    made = mendable.folder(tmp_path / "models" / "each", each=True)
    about = json.loads((made / "star-model.json").read_text("utf-8"))
    (made / "star-model.json").write_text(json.dumps(about | {"weights": "int8"}), "utf-8")
    return made


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for letter, (_, value) in mendable.VALUES.items():
            for other in "abcd":
                row = {"prompt": f"{letter}{other} = ", "suffix": "", "canonical_solution": f"{value}\n"}
                file.write(json.dumps(row) + "\n")
    return path


@pytest.mark.long
@pytest.mark.process
def test_a_day_of_typing_and_of_repairs_that_come_and_go_leaves_the_server_as_small_as_it_was(
    run: Run, mended: Path, wrong: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # What so small a model makes of other code is no habit that a gate could look after.
    monkeypatch.setitem(SETTINGS, "gate", {"minUnchanged": 0.0, "maxKl": 100.0, "sampleSize": 0})
    ran = run(
        "bench", "load", "--data", wrong, "--rows", "32", "--model", mended, "--editors", "2", "--fast",
        "--keys", str(KEYS), "--flag-every", "10", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    found: Any = ran.json
    assert found["errors"] == []
    assert found["keys"] >= KEYS
    # Enough that the oldest had to make room for new ones, again and again.
    assert found["patches"] > 8
    assert found["reverted"] > 4
    before, after = found["growth"]["residentBytes"]
    assert after < before * 1.01
    before, after = found["growth"]["handles"]
    assert after <= before
    assert found["end"]["store_bytes"] < 10_000_000
