"""``star-lsp revert``, ``repair`` and ``patches``: what they ask of the worker and what they tell."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from star_lsp.settings import Settings
from star_lsp.store import Case, Store
from tests.server import actor
from tests.server.shell import Run

MODEL = "qwen2.5-coder-0.5b"


class Shell:
    """The command line on a store of its own, its worker an actor."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
        self.model = folder / "models" / MODEL
        self.model.mkdir(parents=True)
        about = {"format": 1, "fingerprint": "b"}
        (self.model / "star-model.json").write_text(json.dumps(about))
        self.store = Store(folder / "data")
        self.run = run
        for name, value in (("HOME", folder), ("MODELS", folder / "models")):
            monkeypatch.setenv(f"STAR_LSP_{name}", str(value))

    def case(self, name: str) -> Case:
        return self.store.add_case(
            prefix=f"{name} = ", suffix="\n", expected="1", rejected="2", model=Settings().model
        )

    def solved(self, name: str, verdict: Any = None) -> Case:
        """A case with an active patch of its own."""
        case, patch = self.case(name), self.store.new_patch_id()
        self.store.patch_path(patch).write_bytes(b"rows")
        self.store.activate(
            patch, base="b", digest=patch, revision="r", solved=[case.id], failed={}, verdict=verdict or {}
        )
        return self.store.case(case.id)

    def script(self, *acts: str) -> None:
        actor.script(self.model, *acts)

    @property
    def heard(self) -> list[Any]:
        return actor.heard(self.model)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Shell:
    made = Shell(tmp_path, monkeypatch, run)
    actor.hire(tmp_path, monkeypatch)
    return made


def test_a_revert_checks_what_is_left_and_solves_again_what_leaned_on_it(shell: Shell) -> None:
    gone, left = shell.solved("a"), shell.solved("b")
    shell.script("break", "solve")
    status, out, err = shell.run("revert", gone.id)
    assert status == 0, err
    assert f"Checked: 1 of 1 cases no longer solved: {left.id}." in out
    assert "50 % at work" in err
    check, repair = shell.heard
    assert check["check"]
    assert [each["id"] for each in repair["teach"]] == [left.id]
    assert repair["history"] == [str(shell.store.patch_path(str(left.patch)))]
    again = shell.store.case(left.id)
    assert (again.status, again.patch == left.patch) == ("solved", False)
    assert shell.store.case(gone.id).status == "reverted"


def test_a_revert_tells_all_of_it_as_json(shell: Shell) -> None:
    gone, left = shell.solved("a"), shell.solved("b")
    shell.script("break", "unsolved")
    status, out, _ = shell.run("revert", str(gone.patch), "--json")
    told = json.loads(out)
    assert status == 1
    assert told == {
        "revision": told["revision"],
        "patchId": gone.patch,
        "patchIds": [gone.patch],
        "checked": 1,
        "broken": [left.id],
        "solvedAgain": [],
        "pending": [left.id],
    }


def test_a_revert_says_that_all_is_well(shell: Shell) -> None:
    gone, _ = shell.solved("a"), shell.solved("b")
    shell.script("solve")
    status, out, _ = shell.run("revert", gone.id)
    assert status == 0
    assert "Checked: all other cases that were solved are so still: 1." in out


def test_a_revert_asks_nothing_where_nothing_leaned_or_it_is_told_not_to(shell: Shell) -> None:
    first, second, third = shell.solved("a"), shell.solved("b"), shell.solved("c")
    shell.script("break")
    assert shell.run("revert", third.id)[0] == 0
    assert shell.run("revert", first.id, "--no-check")[0] == 0
    assert shell.heard == []
    assert shell.store.unchecked("b") == [], "nor does a server that starts"
    assert shell.store.case(second.id).status == "solved"


def test_a_revert_without_repair_leaves_what_is_broken_pending(shell: Shell) -> None:
    gone, left = shell.solved("a"), shell.solved("b")
    shell.script("break")
    status, out, _ = shell.run("revert", gone.id, "--no-repair")
    assert status == 0
    assert f"Pending again: {left.id} (star-lsp repair)." in out
    case = shell.store.case(left.id)
    assert (case.status, case.reason) == ("pending", f"No longer solved without patch {gone.patch}.")
    assert str(case.reason) in shell.run("cases", left.id)[1]


def test_a_check_that_fails_is_said_and_the_revert_stands(shell: Shell) -> None:
    gone, left = shell.solved("a"), shell.solved("b")
    shell.script("fail")
    status, out, err = shell.run("revert", gone.id)
    assert status == 1
    assert f"Reverted {gone.id}" in out
    assert "What is left could not be checked (a server does it, as soon as one runs): No memory." in err
    assert [shell.store.case(case.id).status for case in (gone, left)] == ["reverted", "solved"]
    assert shell.store.unchecked("b") == [gone.patch]


def test_a_repair_makes_the_check_that_is_due_first_and_repairs_what_that_finds(shell: Shell) -> None:
    gone, left, asked = shell.solved("a"), shell.solved("b"), shell.case("c")
    assert shell.run("cases", "undo", gone.id)[0] == 0  # which leaves the check to others
    shell.script("break", "solve")
    status, out, err = shell.run("repair", asked.id)
    assert status == 0, err
    assert f"Checked what is left without {gone.patch}: 1 of 1 cases no longer solved: {left.id}." in err
    check, repair = shell.heard
    assert check["check"]
    assert [each["id"] for each in repair["teach"]] == [asked.id, left.id]
    assert shell.store.unchecked("b") == []
    assert [case.status for case in shell.store.cases()] == ["solved", "solved"]
    assert all(case.id in out for case in (left, asked))


def test_a_repair_with_nothing_pending_makes_the_check_that_is_due(shell: Shell) -> None:
    gone, _ = shell.solved("a"), shell.solved("b")
    assert shell.run("cases", "undo", gone.id)[0] == 0
    shell.script("fail", "solve")
    status, _, err = shell.run("repair")
    assert status == 1
    assert "What is left could not be checked (a server does it, as soon as one runs): No memory." in err
    status, out, err = shell.run("repair")
    assert (status, "so still: 1." in err, "nothing to repair" in out) == (0, True, True)
    assert shell.run("repair")[0] == 0
    assert len(shell.heard) == 2


def test_a_repair_names_every_case_that_failed_and_why(shell: Shell) -> None:
    cases = [shell.case(name) for name in "abc"]
    shell.script("unsolved")
    status, out, _ = shell.run("repair", "--method", "star")
    assert status == 1
    assert f"{', '.join(case.id for case in cases)}: Too hard." in out
    assert shell.heard[0]["method"] == "star"
    assert shell.run("repair", "--all", "--method", "mine")[0] == 2


def test_a_patch_is_shown_with_its_verdict_and_with_what_was_tried_before(shell: Shell) -> None:
    method = {"mode": "batch", "margin": 3.0, "rate": 0.005}
    verdict = {
        "asked": {"method": "ours", "strength": "gentle"},
        "cases": [
            {"id": "c1", "solved": True, "before": "old", "after": "new", "reason": None},
            {"id": "c2", "solved": False, "before": "2", "after": "3", "reason": "It contradicts case c3."},
            {"id": "c3", "solved": False, "before": "2", "after": "3", "reason": "It contradicts case c2."},
        ],
        "steps": 12,
        "seconds": 3.4,
        "sizeBytes": 1_234_567,
        "layers": [
            {"layer": layer, "neurons": 540, "norm": 0.5, "largest": 0.25} for layer in (20, 21)
        ],
        "gate": {
            "passed": True, "cases": 7, "still_solved": 7, "accepted": 5, "accepted_unchanged": 5,
            "positions": 800, "unchanged": 0.9925, "kl": 3.1e-4, "broken": [], "reasons": [],
            "limits": {"min_unchanged": 0.95, "max_kl": 0.05},
        },
        "method": method,
        "attempts": [
            {"method": method | {"rate": 0.01}, "steps": 5, "solved": 1, "cases": 3, "passed": False,
             "reasons": ["mean KL 0.2, at most 0.05 allowed"]},
            {"method": method, "steps": 4, "solved": 0, "cases": 3, "passed": True, "reasons": []},
        ],
    }  # fmt: skip
    case = shell.solved("a", verdict)
    status, out, _ = shell.run("patches", "show", str(case.patch))
    assert status == 0
    for line in (
        ["c1", "✓", "old", "new"],
        ["c2", "✗"],
        ["c2: It contradicts case c3."],
        ["c3: It contradicts case c2."],
        ["earlier cases still solved", "7 of 7"],
        ["accepted completions unchanged", "5 of 5"],
        ["tokens unchanged, of 800", "99.2%", "≥ 95.0%"],
        ["mean KL", "0.00031", "≤ 0.05"],
        ["12 steps, 3 s; 2 layers, 1080 neurons in all, 1.2 MB on disk"],
        ["method ours, gentle"],
        ["with mode batch, margin 3, rate 0.005"],
        ["rate 0.01", "5", "1 of 3", "mean KL 0.2, at most 0.05 allowed"],
        ["the same", "4", "0 of 3", "not all were solved"],
    ):
        assert [each for each in out.splitlines() if all(part in each for part in line)], (line, out)
    assert json.loads(shell.run("patches", "show", str(case.patch), "--json")[1])["verdict"] == verdict


def test_a_patch_is_shown_with_the_neurons_that_moved_most_and_how_it_compares(shell: Shell) -> None:
    case = shell.solved("a")
    patch = str(case.patch)
    assert "take a good copy of it" in shell.run("patches", patch)[1]
    rows = {"7.neurons": np.array([3, 9]), "7.delta": np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)}
    save_file(rows, shell.store.patch_path(patch), {"format": "1", "base": "b", "manifest": "{}"})
    place = {"caseId": case.id, "prefix": "", "suffix": ""}
    flagged = {"kind": "flagged", "where": "here", "expected": "1", "before": "2", "after": "1"}
    neighbour = {"kind": "neighbour", "where": "1 line below", "expected": None, "before": "x", "after": "x"}
    shell.store.keep_comparison(patch, [place | flagged, place | neighbour])
    status, out, _ = shell.run("patches", patch)
    assert status == 0
    for line in (
        ["7", "3 (5), 9 (1)"],
        ["✓", "flagged: here", "2", "1"],
        ["✓", "neighbour: 1 line below", "x", "the same"],
    ):
        assert [each for each in out.splitlines() if all(part in each for part in line)], (line, out)
    told = json.loads(shell.run("patches", patch, "--json")[1])
    assert told["comparison"] == [place | flagged, place | neighbour]


def test_a_flag_is_undone_and_what_its_patch_was_for_besides_is_pending_again(shell: Shell) -> None:
    pending, solved, other = shell.case("a"), shell.case("b"), shell.case("c")
    patch = shell.store.new_patch_id()
    shell.store.patch_path(patch).write_bytes(b"rows")
    shell.store.activate(
        patch, base="b", digest="d", revision="r", solved=[solved.id, other.id], failed={}, verdict={}
    )
    assert f"{pending.id} was pending, and is forgotten" in shell.run("cases", "undo", pending.id)[1]
    told = json.loads(shell.run("cases", "undo", solved.id, "--json")[1])
    assert told == {"was": "solved", "pending": [other.id]}
    assert [(case.id, case.status) for case in shell.store.cases()] == [(other.id, "pending")]
    assert not shell.store.patch(patch).active
    assert shell.run("cases", "undo", solved.id)[0] == 2


def test_what_leaned_on_a_flag_that_is_undone_is_left_for_a_server_to_check(shell: Shell) -> None:
    gone, left = shell.solved("a"), shell.solved("b")
    assert shell.run("cases", "undo", gone.id)[0] == 0
    assert shell.store.unchecked("b") == [gone.patch]
    assert shell.store.case(left.id).status == "solved"
    assert shell.heard == []
