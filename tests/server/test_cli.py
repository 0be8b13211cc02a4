"""The command line, on a tiny model and a real repairing process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from star.history import earlier_bases
from star_lsp.store import Store
from tests import mendable
from tests.server.shell import Ran, Run

pytestmark = pytest.mark.process


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one tiny model, under the name of the default one."""
    folder = tmp_path_factory.mktemp("models")
    mendable.folder(folder / "qwen2.5-coder-0.5b")
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STAR_LSP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STAR_LSP_MODELS", str(models))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home / "data")


def written(path: Path, *cases: object) -> Path:
    """A file of cases."""
    path.write_text("".join(json.dumps(case) + "\n" for case in cases), "utf-8")
    return path


def add(store: Store, expected: str = "one", prefix: str = "a = ") -> str:
    return store.add_case(prefix=prefix, suffix="\n", expected=expected, rejected="two", language="python").id


# -- listing ---------------------------------------------------------------------------------------------


def test_cases_are_listed_shown_and_deleted(run: Run, store: Store) -> None:
    one, two = add(store, "one"), add(store, "[bold]three")
    assert [case["id"] for case in run("cases", "--json").json] == [one, two]
    assert run("cases", "--json", "--status", "failed").json == []
    listed = run("cases")
    assert one in listed.out
    assert "[bold]three" in listed.out, "code is no markup"
    assert run("cases", one, "--json").json["prefix"] == "a = "
    assert run("cases", "show", two).out.count("[bold]three") == 1
    assert run("cases", "delete", one, "c-none").status == 2
    assert run("cases", "delete", one, "--json").json == {"deleted": [one]}
    assert [case.id for case in store.cases()] == [two]


def test_an_unknown_id_is_refused_in_one_sentence(run: Run) -> None:
    for command in (("cases", "x"), ("patches", "x"), ("revert", "x"), ("repair", "x")):
        ran = run(*command)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith("star-lsp: ")
        assert "`star-lsp " in ran.err


def test_a_repair_that_was_cut_off_is_pending_again_when_anything_is_listed(run: Run, store: Store) -> None:
    store.set_status([add(store)], "repairing")
    assert run("cases", "--json").json[0]["status"] == "pending"


def test_status_tells_what_is_here(run: Run, store: Store, home: Path, models: Path) -> None:
    add(store)
    found = run("status", "--json").json
    assert found["model"]["installed"] is True
    assert found["cases"]["pending"] == 1
    assert found["patches"] == {"all": 0, "active": 0}
    assert found["folders"] == {"data": str(home / "data"), "models": str(models)}
    assert len(found["revision"]) == 16
    other = run("status", "--json", "--model", "none").json
    assert (other["model"]["installed"], other["revision"]) == (False, None)
    assert "none runs; an editor starts one" in run("status").out


def test_every_command_says_what_it_does(run: Run) -> None:
    listed = run("--help").out
    for command in ("cases", "complete", "demo", "model", "patches", "repair", "revert", "status"):
        assert command in listed
        assert "Usage: star-lsp" in run(command, "--help").out
    assert "_STAR_LSP_COMPLETE" in listed


def test_the_shell_completes_ids(home: Path, store: Store) -> None:
    case = add(store)
    environment = {"COMP_WORDS": "star-lsp cases c", "COMP_CWORD": "2", "_STAR_LSP_COMPLETE": "bash_complete"}
    ran = subprocess.run(
        [sys.executable, "-c", "from star_lsp.cli import main; main()"],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"plain,{case}" in ran.stdout, ran.stderr


# -- repairing -------------------------------------------------------------------------------------------


def test_a_bad_file_names_every_problem_by_its_line_and_stores_nothing(
    run: Run, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "cases.jsonl"
    good = b'{"prefix": "a", "expected": "b"}\n'
    file.write_bytes(good + b'\nx\n[]\n{"prefix": 1}\n{"prefix": "a", "expected": "b", "sufix": "c"}\n\xff\n')
    ran = run("repair", "--cases", file, "--json")
    assert (ran.status, ran.out) == (2, "")
    for problem in (
        "6 problems",
        "line 3: is not JSON",
        "line 4: is not an object",
        "line 5: expected is missing",
        "line 5: prefix must be a string, not 1",
        "line 6: there is no field sufix; did you mean suffix?",
        "line 7: is not UTF-8",
    ):
        assert problem in ran.err
    assert store.cases() == []
    assert run("repair", "--cases", tmp_path / "none.jsonl").status == 2
    file.write_bytes(b"\n")
    assert "holds no case" in run("repair", "--cases", file).err
    assert run("repair", "--cases", file, "--all").status == 2
    assert (
        run("repair", "--cases", written(file, {"prefix": "a", "expected": "b"}), "--model", "no").status == 2
    )
    assert store.cases() == []


def test_repair_revert_and_repair_again(run: Run, store: Store, tmp_path: Path, models: Path) -> None:
    # Two cases from a file, as one patch.
    first = run("status", "--json").json["revision"]
    cases = [{"prefix": f"{name} = ", "suffix": "\n", "expected": "two", "extra": 1} for name in ("ab", "cd")]
    file = written(tmp_path / "cases.jsonl", *cases)
    done = run("repair", "--cases", file, "--json")
    assert done.status == 0, done.err
    assert "step 1" in done.err
    one, two = done.lines
    assert set(one) == {"id", "solved", "before", "after", "steps", "seconds", "patchId", "reason"}
    assert (one["after"], two["after"]) == ("two", "two")
    assert one["before"] == "one"
    assert one["reason"] is None
    assert one["patchId"] == two["patchId"]
    assert [case.status for case in store.cases()] == ["solved", "solved"]

    # What the engine of the server now writes there.
    place = tmp_path / "a.py"
    place.write_bytes("\ufeffab = \r\n".encode())
    shown = run("complete", f"{place}:1:6", "--json").json
    assert (shown["text"], shown["reason"]) == ("two", None)
    assert shown["revision"] == run("status", "--json").json["revision"] != first
    assert shown["milliseconds"] > 0

    # The verdict, for people.
    told = run("patches", one["patchId"]).out
    assert "mean KL divergence" in told
    assert one["id"] in told
    assert run("patches", "--json").json[0]["cases"] == [one["id"], two["id"]]

    # One of the two is reverted: the other is solved again by itself.
    reverted = run("revert", one["id"], "--json")
    assert reverted.status == 0, reverted.err
    assert reverted.json["solvedAgain"] == [two["id"]]
    assert {case.id: case.status for case in store.cases()} == {one["id"]: "reverted", two["id"]: "solved"}
    (active,) = [patch for patch in store.patches() if patch.active]
    assert run("revert", one["patchId"]).status == 2, "it is not active any more"
    last = run("revert", active.id)
    assert last.status == 0
    assert first in last.out
    assert run("status", "--json").json["revision"] == first


def test_after_a_revert_every_case_that_counts_as_solved_is_what_the_model_writes(
    run: Run, store: Store, tmp_path: Path
) -> None:
    cases = [{"prefix": f"{name} = ", "suffix": "\n", "expected": "two"} for name in ("ab", "cd", "ef")]
    file = written(tmp_path / "cases.jsonl", *cases)
    assert run("repair", "--cases", file, "--one-by-one").status == 0
    first, *others = [case.id for case in store.cases()]
    reverted = run("revert", first, "--json")
    assert reverted.status == 0, reverted.err
    assert reverted.json["checked"] == 2
    assert set(reverted.json["solvedAgain"]) == set(reverted.json["broken"])
    assert [store.case(id_).status for id_ in (first, *others)] == ["reverted", "solved", "solved"]
    place = tmp_path / "a.py"
    for name in ("cd", "ef"):
        place.write_text(f"{name} = \n")
        assert run("complete", f"{place}:1:6", "--json").json["text"] == "two"


def test_what_one_model_has_learnt_is_taught_to_another_and_each_keeps_its_own(
    run: Run, store: Store, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "both"
    monkeypatch.setenv("STAR_LSP_MODELS", str(both))
    for name in ("qwen2.5-coder-0.5b", "other"):
        shutil.copytree(models / "qwen2.5-coder-0.5b", both / name)
    about = json.loads((both / "other" / "star-model.json").read_text())
    (both / "other" / "star-model.json").write_text(json.dumps(about | {"fingerprint": "other"}))
    file = written(tmp_path / "cases.jsonl", {"prefix": "ab = ", "suffix": "\n", "expected": "two"})
    (first,) = run("repair", "--cases", file, "--json").lines
    told = run("status", "--json", "--model", "other").json
    assert (told["cases"]["solved"], told["casesOfOtherModels"], told["untaught"]) == (0, 1, 1)
    hint = "1 of other models, 1 of them not taught to this one (star-lsp repair --model other --all)"
    assert hint in run("status", "--model", "other").out
    told = run("status", "--json").json
    assert (told["cases"]["solved"], told["casesOfOtherModels"], told["untaught"]) == (1, 0, 0)

    # When it is asked for, and once.
    assert "star-lsp repair --model other --all teaches them" in run("repair", "--model", "other").out
    taught = run("repair", "--model", "other", "--all", "--json")
    (second,) = taught.lines
    assert (taught.status, second["solved"], second["before"]) == (0, True, "one"), taught.err
    assert first["id"] != second["id"]
    assert first["patchId"] != second["patchId"]
    assert run("repair", "--model", "other", "--all", "--json") == Ran(0, "", "")
    for command in ("patches", "cases"):
        listed = [line.strip() for line in run(command).out.splitlines()]
        assert listed.index("qwen2.5-coder-0.5b") < listed.index("other"), "a list for each model"
    assert len({patch["base"] for patch in run("patches", "--json").json}) == 2
    assert [case["model"] for case in run("cases", "--json").json] == ["qwen2.5-coder-0.5b", "other"]

    # What one of them has to learn again is nothing to the other.
    store.set_status([second["id"]], "pending")
    assert run("repair", "--all", "--json") == Ran(0, "", "")
    assert run("revert", second["id"], "--json").status == 0
    assert store.case(first["id"]).patch == first["patchId"]


def test_a_dry_run_tells_what_is_solved_and_what_is_not_and_keeps_nothing(
    run: Run, store: Store, tmp_path: Path
) -> None:
    long = {"prefix": "x = ", "expected": "y" * 200}
    fine = {"prefix": "ab = ", "suffix": "\n", "expected": "two"}
    file = written(tmp_path / "cases.jsonl", long, fine)
    ran = run("repair", "--cases", file, "--one-by-one", "--dry-run", "--json")
    assert ran.status == 1, "not all are solved"
    assert [line["solved"] for line in ran.lines] == [False, True]
    assert "at most 64" in ran.lines[0]["reason"]
    assert ran.lines[1]["patchId"] is None
    assert (store.cases(), store.patches(), [*store.patches_folder.iterdir()]) == ([], [], [])
    assert run("repair", "--json") == Ran(0, "", ""), "nothing is pending"


def test_what_was_repaired_with_earlier_int8_weights_is_repaired_anew_and_by_a_dry_run_left_alone(
    run: Run, store: Store, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(models / "qwen2.5-coder-0.5b", tmp_path / "models" / "qwen2.5-coder-0.5b")
    about = json.loads((folder / "star-model.json").read_text())
    (folder / "star-model.json").write_text(json.dumps(about | {"weights": "int8"}))
    monkeypatch.setenv("STAR_LSP_MODELS", str(folder.parent))
    case, (earlier,) = add(store, "two", "ab = "), earlier_bases("mendable", "int8")
    patch = store.new_patch_id()
    store.patch_path(patch).write_bytes(b"")
    store.activate(patch, base=earlier, digest="d", revision="r", solved=[case], failed={}, verdict={})
    before = (store.cases(), store.patches())
    (dry,) = run("repair", "--dry-run", "--json").lines
    assert dry["id"] == case
    assert (store.cases(), store.patches()) == before
    (done,) = run("repair", "--json").lines
    assert done["id"] == case, "and no copy of it, as of another model's"
    assert store.active(earlier) == []


def test_ctrl_c_leaves_the_cases_pending_and_no_process(run: Run, store: Store, home: Path) -> None:
    cases = [add(store, prefix=f"{letter} = ") for letter in "abcdefghijklmnopqrst"]
    started = subprocess.Popen(
        [sys.executable, "-P", "-m", "star_lsp", "repair", "--one-by-one", *cases],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stderr is not None
    assert started.stderr.readline(), "it began"
    (worker,) = _children(started.pid)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=20)
    assert started.returncode == 130, err
    assert "Traceback" not in err
    assert {store.case(case).status for case in cases} <= {"pending", "solved", "failed"}
    assert store.case(cases[-1]).status == "pending"
    until(lambda: not Path(f"/proc/{worker}").exists())


def until(so: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end
        time.sleep(0.05)


def _children(pid: int) -> Sequence[int]:
    import psutil

    until(lambda: bool(psutil.Process(pid).children()))
    return [child.pid for child in psutil.Process(pid).children()]


# -- completing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("a.py", "write FILE:LINE:COL"),
        ("a.py:1", "write FILE:LINE:COL"),
        ("a.py:x:1", "write FILE:LINE:COL"),
        ("none.py:1:1", "cannot be read (No such file"),
        (".:1:1", "cannot be read (Is a directory"),
        ("a.py:0:1", "name one from 1 to 2"),
        ("a.py:3:1", "name one from 1 to 2"),
        ("a.py:1:8", "name one from 1 to 7"),
        ("a.py:1:6", "inside a character"),
        ("latin.py:1:1", "is not UTF-8 (at byte 0)"),
        ("b:c.py:9:1", "b:c.py has 1 lines"),
    ],
)
def test_a_place_that_is_none_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("x = 😀\n", "utf-8")
    Path("b:c.py").write_text("x", "utf-8")
    Path("latin.py").write_bytes(b"\xe4")
    ran = run("complete", place)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.startswith("star-lsp: ")


def test_a_file_with_secrets_is_answered_with_the_reason(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=", "utf-8")
    found = run("complete", f"{tmp_path / '.env'}:1:5", "--json").json
    assert found["text"] == ""
    assert "excluded" in found["reason"]
