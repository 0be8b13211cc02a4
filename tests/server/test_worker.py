"""The repairing process listens, says why it cannot begin, and does not outlive its parent."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import tiny

pytestmark = pytest.mark.process

WORKER = [sys.executable, "-P", "-m", "star_lsp.worker"]


def start(model: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*WORKER, str(model), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the end of the input has to do")
def test_a_worker_dies_with_its_parent_even_suspended_in_the_middle_of_its_imports(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys, time;"
        f"words = [*{WORKER!r}, {str(tmp_path)!r}, str(os.getpid())];"
        "child = subprocess.Popen(words, stdin=subprocess.PIPE);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        assert json.loads(parent.stdout.readline()) == {"kind": "tied"}  # it imports now, for seconds
        worker.suspend()
        parent.kill()
        parent.wait()
    psutil.wait_procs([worker], 5)
    assert not worker.is_running()


def test_a_worker_of_another_parent_does_not_begin(tmp_path: Path) -> None:
    found = subprocess.run([*WORKER, str(tmp_path), str(os.getppid())], stdin=subprocess.DEVNULL, timeout=10)
    assert found.returncode == 1


def test_a_model_that_cannot_be_read_is_said_and_a_job_is_answered_on_a_clean_line(tmp_path: Path) -> None:
    """Both in one, as each start of a worker takes seconds."""
    bad = start(tmp_path)
    good = start(tiny.folder(tmp_path / "tiny"))
    teach = {"prefix": "x = ", "suffix": "\n"}
    job = {
        "kind": "job",
        "id": "r1",
        "history": [],
        "teach": [
            teach | {"id": "long", "expected": "12345"},
            teach | {"id": "c", "expected": "y"},
            *(teach | {"id": id_, "prefix": "q = ", "expected": id_} for id_ in ("p1", "p2")),
        ],
        "accepted": [teach | {"id": "a", "prefix": "z = ", "expected": "1"}],
        "max_tokens": 4,
        "min_unchanged": 0.0,
        "max_kl": 100.0,
        "max_steps": 100,
        "out": str(tmp_path / "patch.safetensors"),
        "ask_before": True,
    }
    cancelled = job | {"id": "r2", "teach": [teach | {"id": "d", "expected": "v"}]}
    hold = [teach | {"id": id_, "expected": expected} for id_, expected in (("c", "y"), ("gone", "#%"))]
    check = job | {"id": "r3", "teach": [], "history": [job["out"]], "hold": hold, "check": True}
    compare = job | {"id": "r4", "teach": [job["teach"][1]], "compare": [job["out"]]}
    assert good.stdin is not None
    assert good.stdout is not None
    assert json.loads(good.stdout.readline()) == {"kind": "tied"}
    words = [json.dumps(job), "cancel r2", *(json.dumps(each) for each in (cancelled, check, compare)), ""]
    good.stdin.write("\n".join(words).encode())
    good.stdin.flush()
    answers = []
    while len(answers) < 4:
        message = json.loads(good.stdout.readline())
        if message["kind"] == "alive":
            continue
        if message["kind"] == "progress":
            assert message["job"] in ("r1", "r3", "r4")
        else:
            answers.append(message)
    report, failed, checked, compared = answers
    long, solved, *pair = report["cases"]
    assert [case["reason"] for case in pair] == [
        f"It contradicts case {other}: another text is expected at the same place; "
        "delete or revert one of the two."
        for other in ("p2", "p1")
    ]
    assert checked["verdict"]["gate"]["broken"] == ["gone"]
    assert long["reason"] == (
        "The expected text has 5 tokens and a completion at most 4; "
        "shorten it, or raise completion.maxTokens."
    )
    assert (solved["solved"], solved["after"]) == (True, "y")
    assert solved["before"] not in (None, "y")
    assert report["digest"]
    flagged = compared["compared"][0]
    assert (flagged["kind"], flagged["case"], flagged["expected"]) == ("flagged", "c", "y")
    assert (flagged["before"], flagged["after"]) == (solved["before"], "y")
    assert compared["digest"] is None, "nothing goes live by it"
    assert stat.S_IMODE((tmp_path / "patch.safetensors").stat().st_mode) == 0o600
    assert (failed["kind"], failed["job"], failed["cancelled"]) == ("failed", "r2", True)
    good.stdin.close()
    assert good.wait(10) == 0  # the end of the input is the end of the parent
    good.stdout.close()
    out, _ = bad.communicate(timeout=60)
    tied, message = [json.loads(line) for line in out.splitlines()]
    assert tied == {"kind": "tied"}
    assert (message["kind"], message["job"], message["cancelled"]) == ("failed", "", False)
    assert bad.returncode == 1


def test_whoever_is_asked_whether_to_go_on_says_once_in_a_while_that_it_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    from star_lsp import attempts, jobs

    monkeypatch.setattr(attempts, "_ALIVE_SECONDS", 0.0)
    out = io.BytesIO()
    worker = attempts.Worker(tiny.folder(tmp_path / "tiny"), out)
    worker.do(jobs.Job("r1", (), (jobs.Teach("c", "x = ", "\n", "y"),), max_tokens=4, max_steps=2))
    kinds = [json.loads(line)["kind"] for line in out.getvalue().splitlines()]
    assert kinds[-1] == "report"
    assert kinds.count("alive") > 5
