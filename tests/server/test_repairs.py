"""Repairs as a developer sees them: a real server and a real worker, on a tiny model.

The model and server are shared by the tests of this file; each leaves an empty history behind.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from star_lsp.perform import resume
from star_lsp.store import Store
from tests import tiny
from tests.server.client import Client, Message, Server

pytestmark = pytest.mark.process

SETTINGS: Any = {
    "model": "tiny",
    "autoPull": False,
    "completion": {"maxTokens": 8},
    "repair": {"strength": "gentle", "maxSteps": 100},
    # A random model has no habits that a gate could look after.
    "gate": {"minUnchanged": 0.0, "maxKl": 100.0},
}
#: What a random model takes long to learn, and how long it may try.
HARD, LONG = "qZ#%~^&@", {"strength": "strong", "maxSteps": 256}
URI = "file:///work/a.py"
TEXT = "def f(x):\n    return x + 1\n\n\nprint(f())\n"
#: Places in the text above, each with a completion of its own.
PLACES = [(1, 11), (4, 8), (0, 4), (1, 4), (1, 13), (4, 6), (0, 6), (1, 7), (4, 3), (1, 9), (0, 2), (4, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("repairs")
    tiny.folder(made / "models" / "tiny")
    return made


def start(folder: Path) -> Server:
    """A server on the home and models of this file's tests, with the document open."""
    server = Server(folder / "home", folder / "log", STAR_LSP_MODELS=str(folder / "models"))
    server.client.initialize(SETTINGS)
    server.client.open(URI, TEXT)
    return server


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with start(folder) as made:
        made.client.until_state("ready")
        yield made
        assert made.client.wire_is_clean


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The shared client, with the settings above and nothing in the history."""
    configure(server.client)
    yield server.client
    for case in server.client.command("listCases", status="pending"):
        server.client.command("deleteCase", caseId=case["id"])
    server.client.until_state("ready")
    for patch in active(server.client):
        server.client.command("revert", patchId=patch["id"])


def configure(client: Client, **repair: Any) -> None:
    settings = SETTINGS | {"repair": SETTINGS["repair"] | repair}
    client.notify("workspace/didChangeConfiguration", {"settings": settings})


def active(client: Client) -> list[Message]:
    return [patch for patch in client.command("listPatches") if patch["active"]]


def shown(client: Client, place: tuple[int, int] = PLACES[0]) -> Message:
    item = client.inline(URI, *place)
    assert item is not None
    return item


def flag(client: Client, expected: str = "y", place: tuple[int, int] = PLACES[0]) -> str:
    return client.flag(shown(client, place), expected)


def in_the_middle(client: Client, case: str) -> int:
    """The worker's process id, once it takes steps for a case."""
    client.until_case(case, "repairing")
    seen = len(client.of("$/progress"))
    client.until(
        lambda: any(
            "to go" in (told["value"].get("message") or "") for told in client.of("$/progress")[seen:]
        ),
        "a step of the repair",
    )
    return int(client.command("status")["workerPid"])


def another_worker(client: Client, last: int | None) -> int:
    """The process id of the worker, once it is not the last one any more."""

    def there() -> int | None:
        pid = client.command("status")["workerPid"]
        return None if pid == last else pid

    return int(client.until(there, "a worker"))


def test_a_worker_that_dies_twice_is_given_up_and_said(client: Client) -> None:
    configure(client, **LONG)
    case = flag(client, HARD)
    client.until_case(case, "repairing")
    first = another_worker(client, None)
    os.kill(first, signal.SIGKILL)
    os.kill(another_worker(client, first), signal.SIGKILL)
    assert client.until_case(case, "failed")["reason"] == (
        "The repairing process ended with status -9; the cases are kept. "
        "Retry; if it happens again, see the log, and that enough memory is free."
    )
    assert shown(client) is not None


def test_a_flag_is_repaired_in_the_background_and_a_revert_brings_all_back(client: Client) -> None:
    before = shown(client)
    first = client.command("status")["revision"]
    told = len(client.told)
    case = client.flag(before, "y")
    client.until_case(case, "repairing")
    assert client.command("status")["state"] == "repairing"
    client.until_case(case, "solved")
    client.until_state("ready")

    assert shown(client)["insertText"] == "y"
    second = client.command("status")["revision"]
    assert second != first
    (patch,) = active(client)
    assert (patch["cases"], patch["revision"]) == ([case], second)
    assert patch["verdict"]["gate"]["passed"]
    assert client.case(case)["patchId"] == patch["id"]

    progress = [message["params"] for message in client.told[told:] if message["method"] == "$/progress"]
    kinds = [step["value"]["kind"] for step in progress]
    assert kinds == ["begin", *["report"] * (len(kinds) - 2), "end"]
    assert progress[0]["value"]["title"] == "Repairing 1 case"
    assert progress[0]["value"]["cancellable"]
    assert progress[-1]["value"]["message"].startswith("solved in ")
    percents = [step["value"]["percentage"] for step in progress[:-1]]
    assert percents == sorted(percents)
    assert len({step["token"] for step in progress}) == 1
    changes = [each["params"] for each in client.told[told:] if each["method"] == "star/didChange"]
    assert {what for each in changes for what in each["what"]} == {"cases", "patches", "revision", "state"}
    assert {"repairing", "ready"} == {each["state"] for each in changes}

    assert client.command("revert", patchId=patch["id"]) == {"revision": first}
    assert shown(client)["insertText"] == before["insertText"]
    assert client.case(case)["status"] == "reverted"
    assert active(client) == []


def test_completions_go_on_during_a_repair_and_the_worker_stands_still_meanwhile(
    client: Client, folder: Path
) -> None:
    configure(client, **LONG)
    case = flag(client, HARD)
    worker = psutil.Process(in_the_middle(client, case))
    states = []
    for number in range(60):
        answer = client.ask_inline(URI, *PLACES[number % 3])
        while not answer.there:
            states.append(worker.status())
        assert answer.get() is not None
    assert psutil.STATUS_STOPPED in states
    assert client.case(case)["status"] == "repairing"
    store = Store(folder / "home" / "data")
    assert resume(store) == []  # what a second server does at its start leaves a running repair alone
    assert store.case(case).status == "repairing"
    store.close()
    assert client.command("cancelRepair", caseId=case) == {"cancelled": True}
    client.until_case(case, "pending")
    assert worker.status() != psutil.STATUS_STOPPED


def test_ten_rapid_flags_lose_none_one_of_them_during_a_repair(client: Client) -> None:
    configure(client, method="star")  # as published: ten small steps, too few for a random model
    items = [shown(client, place) for place in PLACES[:10]]
    cases = [client.flag(item, HARD) for item in items]
    assert client.command("status")["queue"] == 10
    for case in cases:
        found = client.until_case(case, "failed")
        assert found["reason"].startswith("After ")
        assert found["expected"] == HARD
    assert client.command("status")["queue"] == 0


def test_a_repair_is_cancelled_where_it_waits_and_where_it_runs(client: Client) -> None:
    configure(client, **LONG)
    running, waiting = flag(client, HARD), flag(client, "y", PLACES[1])
    in_the_middle(client, running)
    assert client.command("cancelRepair", caseId=waiting) == {"cancelled": True}
    assert client.command("cancelRepair", caseId=waiting) == {"cancelled": False}
    (token,) = {told["token"] for told in client.of("$/progress")[-1:]}
    client.notify("window/workDoneProgress/cancel", {"token": token})
    client.until_case(running, "pending")
    client.until_state("ready")
    assert client.of("$/progress")[-1] == {"token": token, "value": {"kind": "end", "message": "cancelled"}}
    assert client.case(waiting)["status"] == "pending"
    assert active(client) == []


def test_a_batch_repair_replaces_the_patches_and_gives_up_one_case_exactly(
    client: Client, folder: Path
) -> None:
    items = [shown(client, place) for place in PLACES[:2]]
    first = client.flag(items[0], "y")
    client.until_case(first, "solved")
    (old,) = active(client)
    configure(client, schedule="manual")
    second = client.flag(items[1], "y")
    assert client.case(second)["status"] == "pending"
    found = client.command("repairAll")
    assert found == {"repairId": found["repairId"], "cases": [second]}
    client.until_case(second, "solved")
    client.until_state("ready")
    (patch,) = active(client)
    assert patch["id"] != old["id"]
    assert sorted(patch["cases"]) == sorted([first, second])
    assert [shown(client, place)["insertText"] for place in PLACES[:2]] == ["y", "y"]

    client.command("revert", caseId=second)
    assert client.case(second)["status"] == "reverted"
    client.until_case(first, "solved")
    client.until_state("ready")
    (rest,) = active(client)
    assert rest["cases"] == [first]
    assert shown(client)["insertText"] == "y"

    store = Store(folder / "home" / "data")  # another process takes it back
    store.deactivate([rest["id"]], [first])
    store.close()
    client.until(lambda: shown(client)["insertText"] != "y", "the revert is followed", 2)


def test_a_revert_while_a_repair_runs_is_not_undone_by_its_result(client: Client) -> None:
    items = [shown(client, place) for place in PLACES[:2]]
    first = client.flag(items[0], "y")
    client.until_case(first, "solved")
    base = [patch["id"] for patch in active(client)]
    configure(client, strength="strong")  # which takes some time
    second = client.flag(items[1], "y")
    client.until_case(second, "repairing")
    client.command("revert", caseId=first)
    client.until_case(second, "solved")
    client.until_state("ready")
    (patch,) = active(client)
    assert patch["cases"] == [second]
    assert patch["id"] not in base
    assert patch["revision"] == client.command("status")["revision"]  # it leans on nothing else
    assert shown(client, PLACES[1])["insertText"] == "y"


def test_what_is_left_after_a_revert_is_checked_and_is_what_the_model_writes(client: Client) -> None:
    items = [shown(client, place) for place in PLACES[:2]]
    first, second = [client.flag(item, "y") for item in items]
    client.until_case(second, "solved")
    client.until_state("ready")
    told = len(client.told)
    client.command("revert", caseId=first)

    def checked() -> bool:
        ends = [each["params"]["value"] for each in client.told[told:] if each["method"] == "$/progress"]
        return any("solved" in (value.get("message") or "") for value in ends if value["kind"] == "end")

    client.until(checked, "the check ends")
    client.until_case(second, "solved")
    client.until_state("ready")
    assert client.case(first)["status"] == "reverted"
    assert shown(client, PLACES[1])["insertText"] == "y"


def test_a_place_that_is_flagged_again_gets_the_newer_fix(client: Client) -> None:
    first = flag(client, "y")
    client.until_case(first, "solved")
    second = flag(client, "z")
    client.until_case(second, "solved")
    assert shown(client)["insertText"] == "z"
    client.command("repairAll", cases=[second])
    client.until_case(first, "reverted")
    client.until_state("ready")
    (patch,) = active(client)
    assert patch["cases"] == [second]


def test_a_crash_loses_no_case_leaves_no_half_of_a_patch_and_no_process(folder: Path, server: Server) -> None:
    configure(server.client, **LONG)
    items = [shown(server.client, place) for place in PLACES[:2]]
    case, waiting = [server.client.flag(item, "y") for item in items]
    first = in_the_middle(server.client, case)
    os.kill(first, signal.SIGKILL)
    worker = psutil.Process(another_worker(server.client, first))
    assert shown(server.client) is not None
    assert server.client.case(case)["status"] == "repairing"
    time.sleep(0.5)  # it is tied to the server by now, and still imports
    worker.suspend()  # as it is while a completion is written
    # As if the crash came after the patch was written, and before it went into the history.
    orphan = folder / "home" / "data" / "patches" / "p0000000000.safetensors"
    orphan.write_bytes(b"rows")
    server.kill()
    psutil.wait_procs([worker], 5)
    assert not worker.is_running()
    store = Store(folder / "home" / "data")
    assert [store.case(id_).status for id_ in (case, waiting)] == ["repairing", "pending"]
    store.close()

    with start(folder) as again:
        client = again.client
        client.until_state("ready", "repairing")
        assert not orphan.exists()
        client.until_case(case, "solved")
        client.until_case(waiting, "solved")
        assert shown(client)["insertText"] == "y"
        # And once more, in the middle of a repair: to leave properly is no failure of the repair either.
        configure(client, **LONG)
        last = flag(client, HARD, PLACES[3])
        worker = psutil.Process(in_the_middle(client, last))
        began = time.monotonic()
        assert again.leave() == 0
        assert time.monotonic() - began < 2
        psutil.wait_procs([worker], 5)
        assert not worker.is_running()
    store = Store(folder / "home" / "data")
    assert store.case(last).status == "pending"
    store.close()
