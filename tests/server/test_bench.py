"""``star-lsp bench`` on a tiny model: measured, stopped, gone on with, and told."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from star.case import Case
from star.errors import CaseError
from star.model import CodeModel
from star_lsp.cli.benching import put_as_served
from tests import mendable, tiny
from tests.server.shell import Run

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mendable.folder(tmp_path_factory.mktemp("models") / "mendable")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAR_LSP_HOME", str(tmp_path / "home"))


def _context(name: str, expected: str, **more: str) -> dict[str, str]:
    return {"prefix": f"{name} = ", "suffix": "\n", "expected": expected, **more}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows like those of api-drift: the model writes ``one`` and is taught ``two``."""
    rows = [
        {
            "id": f"row-{name}",
            "flagged": _context(name, "two"),
            "siblings": [_context(f"{name}a", "two", distance="near")],
            "neighbours": [{**_context("zz", "x"), "baseline": "one"}],
        }
        for name in ("ab", "cd", "ef", "gh")
    ]
    path = tmp_path / "drift" / "dev.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def humaneval(tmp_path: Path) -> Path:
    path = tmp_path / "HumanEval.jsonl"
    rows = [{"prompt": "ab = ", "canonical_solution": "one\n"}, {"prompt": "x", "canonical_solution": "yz\n"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def infilling(tmp_path: Path) -> Path:
    path = tmp_path / "infilling.jsonl"
    row = {
        "task_id": "t/0", "entry_point": "f", "prompt": "one = two = 1\ndef f():\n    return 1\nab = ",
        "suffix": "", "canonical_solution": "one\n", "test": "def check(f):\n    assert f() == 1\n",
    }  # fmt: skip
    path.write_text(json.dumps(row) + "\n", "utf-8")
    return path


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def test_methods_are_measured_on_a_file_and_told(
    run: Run, model: Path, data: Path, humaneval: Path, infilling: Path, tmp_path: Path
) -> None:
    asked = [
        "bench", "repair", "--data", data, "--model", model, "--method", "ours", "--method", "sgd",
        "--humaneval", humaneval, "--infilling", infilling, "--lifelong", "2", "--batch", "2",
        "--tuning-rows", "1", "--out", tmp_path / "results",
    ]  # fmt: skip
    ran = run(*asked, "--json")
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert {each["method"] for each in told["methods"]} == {"ours", "sgd"}
    assert {each["data"] for each in told["methods"]} == {"drift/dev"}
    ours = told["methods"][0]
    assert (ours["rows"], ours["solved"]["value"]) == (2, 100.0)
    assert ours["kl"]["value"] > 0
    assert len(told["targets"]) > 10
    assert "what must hold" in Path(told["table"]).read_text("utf-8").lower()
    assert "<svg" in Path(told["page"]).read_text("utf-8")
    found = _lines(tmp_path / "results")
    assert found[0]["kind"] == "run"
    assert found[0]["machine"]["cores"] >= 1
    assert found[0]["same"]["base"] == "mendable"
    tuning = {line["row"] for line in found if line["kind"] == "trial"}
    figures = {line["row"] for line in found if line["kind"] == "repair"}
    assert len(figures) == 2
    assert not tuning & figures
    assert [line["infilling"][1] for line in found if line["kind"] in ("infilling", "lifelong")] == [1, 1, 1]
    assert {line["kind"] for line in found} >= {"base", "tuned", "batch", "lifelong-step"}
    count = len(found)
    assert run(*asked).status == 0, "a run that is over is told again"
    assert [line["kind"] for line in _lines(tmp_path / "results")][count:] == ["resumed"]
    assert "ours" in run("bench", "report", tmp_path / "results").out


def test_another_run_in_the_folder_is_refused_and_a_fresh_one_puts_it_aside(
    run: Run, model: Path, data: Path, tmp_path: Path
) -> None:
    asked = [
        "bench", "repair", "--data", data, "--model", model, "--method", "ours", "--limit", "1",
        "--measure", "effectiveness", "--out", tmp_path,
    ]  # fmt: skip
    assert run(*asked).status == 0
    refused = run(*asked, "--seed", "1")
    assert refused.status == 2
    assert "seed 0 there and 1 here" in refused.err
    assert run(*asked, "--seed", "1", "--fresh").status == 0
    assert (tmp_path / "results.jsonl.1").exists()


def test_what_does_not_fit_is_refused_before_the_model_is_loaded(
    run: Run, data: Path, tmp_path: Path
) -> None:
    asked = ["bench", "repair", "--data", data, "--out", tmp_path / "r", "--model", "none"]
    for more, said in (
        (["--method", "sdg"], "no method sdg"),
        (["--recipe", "tldr"], "field"),
        (["--method", "sgd", "--lifelong", "2"], "--lifelong-method ours"),
        (["--no-singles", "--batch", "2"], "leave out --no-singles"),
        (["--method", "ours"], "not installed"),
    ):
        ran = run(*asked, *more)
        assert ran.status == 2, more
        assert said in ran.err
        assert ran.out == ""
    assert "holds no results" in run("bench", "report", tmp_path).err


def test_a_missing_library_is_named_with_its_extra(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("star_lsp.cli.benching.find_spec", lambda name: None)
    ran = run("bench", "repair", "--data", data, "--out", tmp_path / "r", "--method", "lora")
    assert ran.status == 2
    assert "matplotlib and peft" in ran.err
    assert "star-lsp[bench]" in ran.err


def test_two_runs_do_not_mix(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"):
        ran = run("bench", "repair", "--data", data, "--model", model, "--out", tmp_path)
    assert (ran.status, "Another run" in ran.err) == (2, True)


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(
    run: Run, model: Path, data: Path, tmp_path: Path
) -> None:
    for attempt in range(5):  # on a machine that is busy it may be done before it is stopped
        folder = tmp_path / f"results {attempt}"
        asked = [
            "bench", "repair", "--data", str(data), "--model", str(model), "--method", "ours",
            "--rows", "all", "--lifelong", "4", "--out", str(folder),
        ]  # fmt: skip
        started = subprocess.Popen(
            [sys.executable, "-m", "star_lsp", *asked],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            until = time.monotonic() + 120
            while time.monotonic() < until and '"repair"' not in _text(folder):
                time.sleep(0.02)
            started.send_signal(signal.SIGINT)
            said, error = started.communicate(timeout=60)
        finally:
            started.kill()
        if started.returncode:
            break
    assert started.returncode == 130, error
    assert said == ""
    assert f"what was measured is in {folder}" in error.replace("\n", " ")
    measured = [line for line in _lines(folder) if line["kind"] == "repair"]
    assert run(*asked).status == 0
    after = [line for line in _lines(folder) if line["kind"] == "repair"]
    assert after[: len(measured)] == measured
    assert len(after) == 4


def _text(folder: Path) -> str:
    path = folder / "results.jsonl"
    return path.read_text("utf-8") if path.exists() else ""


def test_a_context_is_put_as_the_server_puts_it() -> None:
    from star.bench.data import Context
    from star_lsp import prompt

    made = tiny.model("qwen2")
    put = put_as_served(made)
    case = put(Context("a", "x = ", ")\n", "1)"))
    layout = prompt.layout_of(made.token_id)
    built = prompt.build(made.encode, layout, "x = ", ")\n", prompt.Limits())
    assert isinstance(case, Case)
    assert case.prompt == built.ids
    assert case.expected == case.stop.trim("1)")
    with pytest.raises(CaseError, match="at most 64"):
        put(Context("a", "x = ", "\n", "1" * 65))
    assert isinstance(made, CodeModel)


def test_the_commands_say_what_they_do(run: Run) -> None:
    assert "repair" in run("bench", "--help").out
    told = run("bench", "repair", "--help").out
    assert "Usage: star-lsp bench repair" in told
    assert "--humaneval" in told


def test_what_the_command_lets_one_choose_is_what_there_is() -> None:
    """The command line is loaded without torch, so it repeats a few names."""
    from star.bench.data import RECIPES
    from star.bench.plan import MEASURES
    from star_lsp.cli.bench import repair_

    choices = {each.name: getattr(each.type, "choices", ()) for each in repair_.params}
    assert set(choices["measures"]) == set(MEASURES)
    assert set(choices["recipe"]) == {"auto", *RECIPES}
