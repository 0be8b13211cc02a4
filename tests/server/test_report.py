"""All about one patch, how long a repair takes, and what a patch changed, with an actor for a worker."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from star.patch import Factors, Patch, Rows
from star_lsp.moved import moved
from star_lsp.patch_file import deltas, identity
from star_lsp.sound import unsound
from star_lsp.store import Case, Store
from tests.server import actor
from tests.server.client import Client, Message, Refused
from tests.server.fake_engine import Session

BASE, URI = "base-qwen2.5-coder-0.5b", "file:///work/a.py"
LINES = "".join(f"line_{number}\n" for number in range(30))


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    actor.hire(tmp_path, monkeypatch)
    with Session(tmp_path) as made:
        actor.script(made.model, "solve")
        yield made


@pytest.fixture
def client(session: Session) -> Client:
    return session.ready({"repair": {"schedule": "manual"}})


@pytest.fixture
def store(session: Session) -> Iterator[Store]:
    """The same store as another process has it."""
    made = Store(session.data)
    yield made
    made.close()


def add(store: Store, name: str = "total", **fields: Any) -> Case:
    about = {"prefix": f"{LINES}{name} = ", "suffix": f"\n{LINES}", "expected": "max(y)", "rejected": "y"}
    return store.add_case(**(about | fields))


def patched(
    store: Store, *cases: Case, rows: Any = None, verdict: Any = None, base: str = BASE, **about: Any
) -> str:
    """An active patch; ``rows`` are the norms of what it moves, by layer."""
    id_ = store.new_patch_id()
    tensors = {}
    for layer, norms in (rows or {1: [3.0]}).items():
        delta = np.zeros((len(norms), 4), np.float32)
        delta[:, 2] = norms
        tensors |= {f"{layer}.neurons": np.arange(len(norms)) * 10, f"{layer}.delta": delta}
    save_file(tensors, store.patch_path(id_), {"format": "1", "base": base, "manifest": "{}"})
    solved = [case.id for case in cases]
    fields = {"digest": id_, "revision": "r", "failed": {}, "verdict": verdict or {}}
    store.activate(id_, base=base, solved=solved, **(fields | about))
    return id_


def test_what_a_file_is_and_moves_is_told_of_keys_as_of_rows(tmp_path: Path) -> None:
    keys = torch.tensor([[2**14, -(2**14), 0], [0, 0, 2**14]], dtype=torch.int16)
    values = torch.zeros(2, 8).index_fill(1, torch.tensor([0]), 6.0)
    rows = Rows(1, torch.tensor([4]), values[:1].clone())
    some, every = torch.tensor([2, 5, 9]), torch.arange(3)  # the latter are named by no file
    fine = values + 2.0**-20
    patch = Patch("base", (
        rows, Factors(3, some, keys, fine), Factors(5, every, keys.clone(), fine.clone()),
        Factors(6, some, keys, values), Factors(7, torch.arange(4), keys[:, [0, 1, 2, 2]], values),
    ))  # fmt: skip
    assert [len(each.tensors) for each in patch.rows] == [2, 3, 3, 4, 4], "the last two are packed"
    patch.save(tmp_path / "p.safetensors")
    assert identity(tmp_path / "p.safetensors") == ("base", patch.digest)
    one, other, last, packed, unnamed = moved(tmp_path / "p.safetensors", 48)
    assert (one.layer, one.norm, other.layer, other.neurons) == (1, 6.0, 3, 3)
    for each, wanted in ((other, [2, 5, 9]), (last, [0, 1, 2]), (packed, [2, 5, 9]), (unnamed, [0, 1, 2, 3])):
        assert {neuron.neuron: round(neuron.norm, 4) for neuron in each.most} == dict.fromkeys(wanted, 3.0)


GOOD: dict[str, Any] = {
    "3.neurons": np.arange(4, dtype=np.int32),
    "3.packed": np.ones((2, 3), np.uint8),
    "3.mantissas": np.ones((2, 8), np.int8),
    "3.exponents": np.zeros(2, np.int8),
}

HOSTILE: dict[str, dict[str, Any]] = {
    "exponents of no dimension": {"3.exponents": np.int8(0)},
    "neurons of no dimension": {"3.neurons": np.int32(0)},
    "keys of other neurons": {"3.neurons": np.arange(300_000, dtype=np.int32)},
    "keys of no dimension": {"3.packed": np.uint8(0)},
    "values of another key": {"3.mantissas": np.ones((1, 8), np.int8)},
    "exponents of other keys": {"3.exponents": np.zeros(200_000, np.int8)},
    "wide keys": {"3.packed": np.ones((2, 3), np.int64)},
    "whole numbers that are none": {"3.mantissas": np.ones((2, 8), np.float32)},
    "more bytes than keys have": {"3.packed": np.ones((2, 4), np.uint8)},
    "something else": {"3.delta": np.ones((4, 8), np.float32)},
    "another thing": {"other": np.ones(1, np.float32)},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_is_no_patch_is_told_as_such_before_it_takes_memory(what: str, tmp_path: Path) -> None:
    about = {"format": "4", "base": "base", "manifest": "{}"}
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_file(GOOD, good, about)
    save_file({name: np.asarray(each) for name, each in (GOOD | HOSTILE[what]).items()}, bad, about)
    _, digest = identity(good)
    assert unsound(good, digest) is None
    assert [each.layer for each in moved(good, 48)] == [3]
    assert unsound(bad, digest)
    for read in (identity, lambda path: list(deltas(path))):
        with pytest.raises(ValueError, match=r"layer 3|no patch has"):
            read(bad)


# -- showPatch


def test_a_patch_is_shown_with_its_cases_and_what_it_moves(
    session: Session, client: Client, store: Store
) -> None:
    (session.model / "config.json").write_text(
        json.dumps({"num_hidden_layers": 24, "intermediate_size": 999})
    )
    case = add(store, uri=URI, line=30, character=8, language="python")
    patch = patched(store, case, rows={20: [1.0, 3.0, 2.0], 7: [4.0] * 20}, verdict={"steps": 3})
    found = client.command("showPatch", patchId=patch)
    assert found["patch"] == client.command("listPatches")[0]
    assert (found["patch"]["id"], found["patch"]["verdict"]) == (patch, {"steps": 3})
    (context,) = found["cases"]
    assert context["case"] == client.case(case.id)
    assert context["case"]["position"] == {"line": 30, "character": 8}
    above, below = context["prefix"].split("\n"), context["suffix"].split("\n")
    assert (len(above), above[0], above[-1]) == (20, "line_11", "total = ")
    assert below == ["", *(f"line_{number}" for number in range(9))]
    assert found["depth"] == 24
    first, second = found["layers"]
    assert (first["layer"], first["neurons"], first["width"]) == (7, 20, 999)
    assert first["norm"] == pytest.approx(20**0.5 * 4)
    assert len(first["most"]) == 12
    assert (second["layer"], second["neurons"]) == (20, 3)
    assert second["most"] == [
        {"neuron": 10, "norm": 3.0},
        {"neuron": 20, "norm": 2.0},
        {"neuron": 0, "norm": 1.0},
    ]
    assert found["bytes"] == store.patch_path(patch).stat().st_size
    assert found["comparison"] is None


def test_a_case_that_was_deleted_is_left_out_and_a_model_that_is_gone_has_as_many_layers_as_are_known(
    client: Client, store: Store
) -> None:
    case, gone = add(store), add(store, "other")
    patch = patched(store, case, gone, rows={5: [1.0, 2.0]}, base="of a model that was removed")
    store.deactivate([patch], [case.id, gone.id])
    store.delete_case(gone.id)
    found = client.command("showPatch", patchId=patch)
    assert [each["case"]["id"] for each in found["cases"]] == [case.id]
    assert (found["depth"], found["layers"][0]["width"]) == (6, 11)


def test_a_patch_without_its_file_is_said_with_the_remedy(client: Client, store: Store) -> None:
    patch = patched(store, add(store))
    store.deactivate([patch], [])
    store.patch_path(patch).write_bytes(b"rows")
    with pytest.raises(Refused, match=f"The file of patch {patch} cannot be read .*; take a good copy"):
        client.command("showPatch", patchId=patch)
    store.patch_path(patch).unlink()
    found = client.command("showPatch", patchId=patch)  # of many that are not active, the oldest have none
    assert (found["layers"], found["bytes"], len(found["cases"])) == ([], 0, 1)
    active = patched(store, add(store))
    store.patch_path(active).unlink()
    with pytest.raises(Refused, match=rf"{active} is not there any more \(.*\).*repair its cases"):
        client.command("showPatch", patchId=active)
    with pytest.raises(Refused, match="There is no patch p0"):
        client.command("showPatch", patchId="p0")


# -- estimate


def verdict(seconds: float, cases: int) -> Message:
    return {"seconds": seconds, "cases": [{"id": f"c{number}"} for number in range(cases)]}


def test_without_any_repair_an_estimate_goes_by_what_is_usual(client: Client, store: Store) -> None:
    cases = [add(store, name).id for name in "ab"]
    assert client.command("estimate") == {"seconds": 20.0, "cases": 2}
    assert client.command("estimate", cases=[*cases[:1], *cases[:1]]) == {"seconds": 10.0, "cases": 1}
    with pytest.raises(Refused, match="There is no case c0"):
        client.command("estimate", cases=["c0"])


def test_an_estimate_is_the_median_of_the_last_ten_repairs_for_each_case(
    client: Client, store: Store
) -> None:
    add(store)
    for _ in range(5):
        patched(store, verdict=verdict(1000, 1))
    for _ in range(5):
        patched(store, verdict=verdict(12, 4))
    for _ in range(5):
        patched(store, verdict=verdict(5, 1))
    assert client.command("estimate") == {"seconds": 4.0, "cases": 1}


def test_what_one_system_solves_again_takes_its_time_too(client: Client, store: Store) -> None:
    pending, solved = add(store, "a"), add(store, "b")
    patched(store, solved, verdict=verdict(4, 1))
    client.until(lambda: len(client.command("listPatches")) == 1, "it is seen")
    assert client.command("estimate", cases=[pending.id]) == {"seconds": 8.0, "cases": 1}


def test_nothing_to_repair_takes_no_time(client: Client) -> None:
    assert client.command("estimate") == {"seconds": 0.0, "cases": 0}


# -- compare


def heard(session: Session) -> Any:
    return actor.heard(session.model)[-1]


def test_a_comparison_is_answered_kept_and_shown(session: Session, client: Client, store: Store) -> None:
    case = add(store)
    patch = patched(store, case)
    found = client.command("compare", patchId=patch)["comparison"]
    assert found == [
        {
            "kind": "flagged",
            "caseId": case.id,
            "where": "here",
            "prefix": "p",
            "suffix": "s",
            "expected": "max(y)",
            "before": "old",
            "after": "max(y)",
        }
    ]
    assert client.command("showPatch", patchId=patch)["comparison"] == found
    client.until_state("ready")
    values = [told["value"] for told in client.of("$/progress")]
    assert values[0]["title"] == f"Comparing without and with {patch}"
    assert values[0]["cancellable"]
    assert values[-1] == {"kind": "end", "message": "1 of 1 places are written otherwise"}
    assert [each["active"] for each in client.command("listPatches")] == [True], "nothing else has changed"


def test_an_active_patch_is_taken_out_and_a_reverted_one_is_put_behind(
    session: Session, client: Client, store: Store
) -> None:
    patches = [patched(store, add(store, name)) for name in "abc"]
    first, second, third = [str(store.patch_path(patch)) for patch in patches]
    client.command("compare", patchId=patches[1])
    assert (heard(session)["history"], heard(session)["compare"]) == (
        [first, third],
        [first, second, third],
    )
    store.deactivate([patches[1]], store.patch(patches[1]).cases)
    client.command("compare", patchId=patches[1])
    assert (heard(session)["history"], heard(session)["compare"]) == (
        [first, third],
        [first, third, second],
    )


def test_at_most_four_cases_are_compared(session: Session, client: Client, store: Store) -> None:
    cases = [add(store, name) for name in "abcdef"]
    client.command("compare", patchId=patched(store, *cases))
    assert [each["id"] for each in heard(session)["teach"]] == [case.id for case in cases[:4]]


def test_a_comparison_waits_for_its_turn_and_asked_for_twice_is_made_once(
    session: Session, client: Client, store: Store
) -> None:
    actor.script(session.model, "sleep", "solve")
    patch, case = patched(store, add(store, "a")), add(store, "b")
    client.command("repairAll")
    client.until_case(case.id, "repairing")
    ask = {"command": "star.compare", "arguments": [{"patchId": patch}]}
    answers = [client.ask("workspace/executeCommand", ask) for _ in range(2)]
    client.command("repairAll", cases=[case.id])  # what waits is not dropped for it
    assert client.command("status")["queue"] == 1
    assert not answers[0].there
    client.command("cancelRepair", caseId=case.id)
    assert answers[0].get() == answers[1].get()
    client.until_state("ready")
    assert sum(job["compare"] is not None for job in actor.heard(session.model)) == 1


def test_a_comparison_is_cancelled_by_its_progress_and_nothing_of_it_is_kept(
    session: Session, client: Client, store: Store
) -> None:
    actor.script(session.model, "sleep")
    patch = patched(store, add(store))
    ask = {"command": "star.compare", "arguments": [{"patchId": patch}]}
    answer = client.ask("workspace/executeCommand", ask)
    client.until(lambda: actor.heard(session.model), "it runs")
    token = client.until(lambda: client.of("$/progress"), "progress")[0]["token"]
    assert client.command("status")["working"]["title"] == f"Comparing without and with {patch}"
    client.notify("window/workDoneProgress/cancel", {"token": token})
    with pytest.raises(Refused, match="The comparison was cancelled; ask for it again when you like"):
        answer.get()
    assert client.command("showPatch", patchId=patch)["comparison"] is None


def test_a_comparison_that_fails_says_why(session: Session, client: Client, store: Store) -> None:
    actor.script(session.model, "fail", "solve")
    patch = patched(store, add(store))
    with pytest.raises(Refused, match=r"No memory\."):
        client.command("compare", patchId=patch)
    assert client.command("compare", patchId=patch)["comparison"]


def test_what_cannot_be_compared_is_said_with_the_remedy(client: Client, store: Store) -> None:
    foreign = patched(store, add(store, "a"), base="another")
    case = add(store, "b")
    gone = patched(store, case)
    store.deactivate([gone], [case.id])
    store.delete_case(case.id)
    for patch, said in (
        ("p0", "There is no patch p0"),
        (foreign, "for another model than the one in use; restart with that model"),
        (gone, "All cases of patch .* were deleted, so there is no place to compare at"),
    ):
        with pytest.raises(Refused, match=said):
            client.command("compare", patchId=patch)
    store.patch_path(gone).unlink()
    with pytest.raises(Refused, match=r"is not there any more .* take it from a backup"):
        client.command("compare", patchId=gone)
