"""Does the program still work with what a model wrote into it?"""

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from star.bench.infill import Infilling, passes, rate, read
from star.errors import BenchError, Cancelled

ROW = Infilling(
    task_id="Double/L0",
    entry_point="double",
    prompt="def double(x):\n",
    suffix="    return y\n",
    canonical_solution="    y = 2 * x\n",
    test="def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\n",
)


def _quick(completion: str, seconds: float = 5) -> bool:
    started = time.monotonic()
    passed = passes(ROW, completion, seconds)
    assert time.monotonic() - started < seconds + 3
    return passed


def test_the_right_line_passes_as_an_editor_has_it() -> None:
    assert (ROW.context.expected, ROW.context.suffix) == ("    y = 2 * x", "\n    return y\n")
    assert _quick(ROW.context.expected)


def test_a_hole_in_the_middle_of_a_line_is_filled_there() -> None:
    row = Infilling(
        "a", "f", "def f(x):\n    return ", " + 1\n", "x", "def check(f):\n    assert f(1) == 2\n"
    )
    assert row.context.suffix == " + 1\n"
    assert passes(row, "x")


@pytest.mark.parametrize(
    "line",
    ["y = 3 * x", "y = ", "return", "y = undefined", "import sys; sys.exit(0)", "import os; os._exit(0)"],
)
def test_what_is_wrong_does_not_pass_nor_what_leaves_before_the_test_is_over(line: str) -> None:
    assert not _quick(f"    {line}")


def test_printing_is_no_answer() -> None:
    assert _quick("    y = 2 * x; print('#' * 100_000)")
    assert not _quick("    y = 1; print('#' * 100_000)")


def test_an_endless_loop_is_ended() -> None:
    assert not _quick("    while True: pass", seconds=1)


def test_a_program_that_takes_all_memory_is_ended() -> None:
    assert not _quick("    y = 2 * x + 0 * len(bytearray(1 << 34))")


@pytest.mark.parametrize(
    "line",
    [
        "import os\n    while True: os.fork()",
        "import subprocess; subprocess.Popen(['sleep', '60']); y = 2 * x",
        "import socket; socket.create_connection(('127.0.0.1', 9)); y = 2 * x",
        "open('/tmp/star-infill-test', 'w'); y = 2 * x",
        "import os; os.mkdir('a'); y = 2 * x",
    ],
)
def test_a_program_starts_nothing_writes_nothing_and_reaches_nobody(line: str) -> None:
    assert not _quick(f"    {line}")
    assert not Path("/tmp/star-infill-test").exists()


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="no sessions here")
def test_what_a_program_started_nevertheless_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from star.bench import infill

    driver = infill._DRIVER.replace('"NPROC": 0', '"CORE": 0').replace("sys.addaudithook(deny)", "")
    assert driver.count("NPROC") + driver.count("addaudithook") == 0
    monkeypatch.setattr(infill, "_DRIVER", driver)
    line = (
        "import os, time\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(60)\n    y = 2 * x"
    )
    assert not _quick(f"    {line}", seconds=1)  # it holds the pipe open
    mine = [each for each in psutil.process_iter() if "STAR_INFILL" in _environment(each)]
    assert mine == []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def test_a_rate_runs_nothing_twice() -> None:
    known: dict[str, bool] = {}
    rows = [ROW, ROW]
    assert rate(rows, lambda context: context.expected, known) == (2, 2)
    assert list(known.values()) == [True]
    known["Double/L0     y = 9"] = True  # it was remembered, not run
    assert rate(rows, lambda _context: "    y = 9", known) == (2, 2)
    assert rate([], lambda context: context.expected) == (0, 0)
    with pytest.raises(Cancelled):
        rate(rows, lambda context: context.expected, cancelled=lambda: True)


def test_rows_are_read_from_a_file_as_published(tmp_path: Path) -> None:
    names = ("task_id", "entry_point", "prompt", "suffix", "canonical_solution", "test")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({name: getattr(ROW, name) for name in names}), "utf-8")
    assert read(path) == (ROW,)
    path.write_text("{}", "utf-8")
    with pytest.raises(BenchError, match="line 1, has no field 'task_id'"):
        read(path)
