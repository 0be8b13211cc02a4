"""When repairs happen, and how they are told, with a double of the model and an actor for a worker."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from star_lsp.store import Store
from tests.server import actor
from tests.server.client import Client, Refused
from tests.server.fake_engine import Session

pytestmark = pytest.mark.process

URI = "file:///work/a.py"
TEXT = "def second(y):\n    total = \n    return total\n"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    actor.hire(tmp_path, monkeypatch)
    with Session(tmp_path, idle_seconds=0.4) as made:
        actor.script(made.model, "solve")
        yield made


def start(session: Session, schedule: str = "at once") -> Client:
    client = session.ready({"repair": {"schedule": schedule}})
    client.open(URI, TEXT)
    return client


def flag(client: Client, expected: str = "max(y)", character: int = 12) -> str:
    item = client.inline(URI, 1, character)
    assert item is not None
    return client.flag(item, expected)


def items(client: Client, count: int = 2) -> list[Any]:
    """What is shown at some places."""
    return [client.inline(URI, 1, character) for character in range(12, 12 - count, -1)]


def two_solved(session: Session) -> tuple[Client, str, str]:
    """Two flagged cases, each solved by a patch of its own, and nothing under way any more."""
    client = start(session)
    first, second = [client.flag(item, "max(y)") for item in items(client)]
    client.until_case(second, "solved")
    client.until_state("ready")
    return client, first, second


def schedule(client: Client, name: str) -> None:
    client.notify("workspace/didChangeConfiguration", {"settings": {"repair": {"schedule": name}}})


def test_at_once_means_at_once(session: Session) -> None:
    client = start(session)
    case = flag(client)
    client.until_case(case, "solved")
    client.until(lambda: len(session.engine.histories) == 2, "the patch is swapped in")
    client.until_state("ready")
    assert client.command("status")["revision"] == "revision 2"


def test_the_worker_is_ready_before_anything_is_flagged(session: Session) -> None:
    client = start(session)
    client.until(lambda: client.command("status")["workerPid"], "the worker is started")
    case = flag(client)
    client.until_case(case, "solved")


def test_no_worker_is_started_where_repairs_are_asked_for(session: Session) -> None:
    client = start(session, "manual")
    time.sleep(2.5)
    assert client.command("status")["workerPid"] is None


def test_no_completion_that_is_asked_for_after_a_case_is_solved_comes_from_the_old_model(
    session: Session,
) -> None:
    client = start(session)
    client.until_case(flag(client), "solved")
    client.inline(URI, 1, 12)
    assert session.engine.written[-1].revision == "revision 2"


def test_progress_begins_grows_and_ends(session: Session) -> None:
    client = start(session)
    client.until_case(flag(client), "solved")
    client.until_state("ready")
    client.until(lambda: len(client.of("$/progress")) == 3, "progress ends")
    begin, report, end = client.of("$/progress")
    (created,) = client.of("window/workDoneProgress/create")
    assert begin["token"] == report["token"] == end["token"] == created["token"]
    assert begin["value"] == {
        "kind": "begin",
        "title": "Repairing 1 case",
        "cancellable": True,
        "message": "starting",
        "percentage": 0,
    }
    assert (report["value"]["kind"], report["value"]["percentage"]) == ("report", 50)
    assert end["value"] == {"kind": "end", "message": "solved in 3 steps, 1 s"}


def test_a_client_without_progress_gets_none(session: Session) -> None:
    session.client.initialize(progress=False)
    session.client.until_state("ready")
    session.client.open(URI, TEXT)
    session.client.until_case(flag(session.client), "solved")
    assert session.client.of("$/progress") == session.client.of("window/workDoneProgress/create") == []


def test_idle_means_after_quiet_time(session: Session) -> None:
    client = start(session, "idle")
    case = flag(client)
    for _ in range(4):
        time.sleep(0.2)
        client.inline(URI, 1, 12)  # still at work
        assert client.case(case)["status"] == "pending"
    client.until_case(case, "solved")


def test_manual_means_when_asked_to_and_a_change_of_mind_counts(session: Session) -> None:
    client = start(session, "manual")
    first, second = flag(client), flag(client, character=10)
    time.sleep(0.6)
    assert [client.case(case)["status"] for case in (first, second)] == ["pending", "pending"]
    schedule(client, "at once")
    client.until_case(first, "solved")
    client.until_case(second, "solved")
    assert [len(job["teach"]) for job in actor.heard(session.model)] == [1, 1]


def test_a_batch_takes_the_place_of_what_waits_for_the_same_cases(session: Session) -> None:
    actor.script(session.model, "sleep", "solve")
    client = start(session)
    first, second, third = flag(client), flag(client, character=10), flag(client, character=8)
    client.until_case(first, "repairing")
    assert client.command("status")["queue"] == 3
    repair = client.command("repairAll")
    assert repair["cases"] == [second, third]
    assert client.command("status")["queue"] == 3
    assert client.command("cancelRepair", caseId=first) == {"cancelled": True}
    client.until_case(third, "solved")
    assert len(actor.heard(session.model)) == 2


def test_a_case_of_another_model_is_left_alone_until_it_is_named_and_then_taught_as_one_of_ours(
    session: Session,
) -> None:
    store = Store(session.data)
    place = {"prefix": "def second(y):\n    total = ", "suffix": "\n", "rejected": "x", "expected": "max(y)"}
    pending, theirs = store.add_case(**place, model="b"), store.add_case(**place, model="a")
    patch = store.new_patch_id()
    about: dict[str, Any] = {"digest": "d", "revision": "r", "failed": {}, "verdict": {}}
    store.activate(patch, base="base a", solved=[theirs.id], **about)
    client = start(session)
    time.sleep(0.6)
    with pytest.raises(Refused, match="No case is pending"):
        client.command("repairAll")
    found = [client.case(case.id) for case in (pending, theirs)]
    assert [case["status"] for case in found] == ["pending", "solved"]
    assert [(case["model"], case["elsewhere"]) for case in found] == [("b", True), ("a", True)]
    (listed,) = client.command("listPatches")
    assert (listed["active"], listed["base"]) == (False, "base a"), "not in the history of this model"
    for command, of in (("revert", {"patchId": patch}), ("revert", {"caseId": theirs.id})):
        with pytest.raises(Refused, match="is of another model than the one in use"):
            client.command(command, **of)

    assert client.command("estimate", cases=[theirs.id])["cases"] == 1
    (ours,) = client.command("repairAll", cases=[theirs.id])["cases"]
    client.until_case(ours, "solved")
    assert "elsewhere" not in client.case(ours)
    assert client.case(ours)["patchId"] != patch == client.case(theirs.id)["patchId"]
    assert client.case(pending.id)["status"] == "pending"


def test_what_is_flagged_while_the_settings_name_the_next_model_is_of_the_one_in_use(
    session: Session,
) -> None:
    client = start(session, "manual")
    settings = {"model": "smollm2-135m", "repair": {"schedule": "manual"}}
    client.notify("workspace/didChangeConfiguration", {"settings": settings})
    case = flag(client)
    time.sleep(0.6)  # longer than it takes to be idle
    assert client.command("repairAll")["cases"] == [case]
    client.until_case(case, "solved")
    (listed,) = client.command("listCases")
    assert (listed["model"], "elsewhere" in listed) == ("qwen2.5-coder-0.5b", False)


def test_ten_rapid_flags_are_ten_repairs(session: Session) -> None:
    client = start(session)
    items = [client.inline(URI, 1, character) for character in range(2, 12)]
    cases = [client.flag(item, "max(y)") for item in items if item]
    for case in cases:
        client.until_case(case, "solved")
    assert len(set(cases)) == 10
    assert len(client.command("listPatches")) == 10
    assert [job["teach"][0]["id"] for job in actor.heard(session.model)] == cases


def test_a_flag_before_a_crash_is_repaired_after_the_next_start(tmp_path: Path, session: Session) -> None:
    client = start(session, "manual")
    case = flag(client)
    session.service.store.begin([case])  # as a crash leaves it
    with Session(tmp_path) as again:
        again.client.initialize()
        again.client.until_case(case, "solved")


def test_to_leave_during_a_repair_leaves_its_case_pending(session: Session) -> None:
    actor.script(session.model, "sleep")
    client = start(session)
    case, waiting = flag(client), flag(client, character=10)
    client.until_case(case, "repairing")
    client.request("shutdown")
    client.notify("exit")
    end = time.monotonic() + 5
    while session.service.store.case(case).status != "pending" and time.monotonic() < end:
        time.sleep(0.01)
    assert [session.service.store.case(each).status for each in (case, waiting)] == ["pending", "pending"]


def test_a_store_that_fails_in_the_middle_ends_one_repair_and_not_all_of_them(session: Session) -> None:
    client = start(session)
    item: Any = client.inline(URI, 1, 12)
    session.service.store.patches_folder.rmdir()
    session.service.store.patches_folder.write_text("")  # no patch can be written
    actor.script(session.model, "die")
    client.until_case(client.flag(item, "max(y)"), "failed")
    session.service.store.patches_folder.unlink()
    session.service.store.patches_folder.mkdir()
    actor.script(session.model, "solve")
    client.until_case(flag(client, "min(y)"), "solved")


def test_an_unknown_case_is_refused(session: Session) -> None:
    client = start(session)
    with pytest.raises(Refused, match="There is no case c0"):
        client.command("repairAll", cases=["c0"])


def test_what_leaned_on_a_reverted_patch_is_found_and_repaired_again_and_the_developer_sees_it(
    session: Session,
) -> None:
    actor.script(session.model, "solve", "solve", "break", "solve")
    client, first, second = two_solved(session)
    old = client.case(second)["patchId"]
    gone, told = client.case(first)["patchId"], len(client.told)
    client.command("revert", caseId=first)
    client.until(lambda: client.case(second)["patchId"] not in (None, old), "it is solved again")
    client.until_state("ready")

    assert [job["check"] for job in actor.heard(session.model)] == [False, False, True, False]
    assert [patch["active"] for patch in client.command("listPatches")] == [False, True, True]
    values = [each["params"]["value"] for each in client.told[told:] if each["method"] == "$/progress"]
    begins = [value["title"] for value in values if value["kind"] == "begin"]
    assert begins == [f"Checking what is left without {gone}", "Repairing 1 case"]
    ends = [value["message"] for value in values if value["kind"] == "end"]
    assert ends == [f"1 of 1 cases no longer solved: {second}", "solved in 3 steps, 1 s"]
    assert client.case(first)["status"] == "reverted"


def test_a_check_that_a_crash_cut_off_is_made_after_the_next_start(tmp_path: Path, session: Session) -> None:
    client, first, second = two_solved(session)
    patch, old = (client.case(id_)["patchId"] for id_ in (first, second))
    assert session.service.store.deactivate([patch], [first])  # and nobody has come to check it
    actor.script(session.model, "solve", "solve", "break", "solve")
    with Session(tmp_path) as again:
        client = again.ready({"repair": {"schedule": "manual"}})
        client.until(lambda: client.case(second)["patchId"] not in (None, old), "it is solved again")
        client.until_state("ready")
        assert [job["check"] for job in actor.heard(session.model)] == [False, False, True, False]
        begins = [each["value"] for each in client.of("$/progress") if each["value"]["kind"] == "begin"]
        assert begins[0]["title"] == f"Checking what is left without {patch}"
        assert again.service.store.unchecked("base-qwen2.5-coder-0.5b") == []


def test_a_check_that_another_process_has_left_is_made_without_a_restart(session: Session) -> None:
    actor.script(session.model, "solve", "solve", "break", "solve")
    client, first, second = two_solved(session)
    patch, old = (client.case(id_)["patchId"] for id_ in (first, second))
    other = Store(session.data)
    assert other.deactivate([patch], [first])  # and nothing more is heard of that process
    client.until(lambda: client.case(second)["patchId"] not in (None, old), "it is solved again")
    client.until_state("ready")
    assert [job["check"] for job in actor.heard(session.model)] == [False, False, True, False]
    assert other.unchecked("base-qwen2.5-coder-0.5b") == []
    other.close()


def test_a_check_that_another_process_makes_is_waited_for_and_not_made_again(session: Session) -> None:
    client, first, _ = two_solved(session)
    patch, base = client.case(first)["patchId"], "base-qwen2.5-coder-0.5b"
    other = Store(session.data)
    with FileLock(session.data / "repair.lock"):  # as it has that is at work
        assert other.deactivate([patch], [first])
        client.until_state("repairing")
        assert other.checked(base, [], "", [each.id for each in other.active(base)]) == []
    client.until_state("ready")
    time.sleep(1.1)
    assert [job["check"] for job in actor.heard(session.model)] == [False, False]
    other.close()


def test_a_check_that_is_cancelled_is_not_made_again_as_the_store_changed_meanwhile(session: Session) -> None:
    actor.script(session.model, "solve", "solve", "sleep", "solve")
    client, first, second = two_solved(session)
    client.command("revert", caseId=first)
    client.until(lambda: len(actor.heard(session.model)) == 3, "the check")
    other = Store(session.data)
    other.delete_case(first)
    time.sleep(1.1)  # longer than it takes to see that
    (case,) = client.command("listCases")
    assert (case["id"], case["status"]) == (second, "solved")
    (token,) = [
        each["token"] for each in client.of("$/progress") if "Checking" in each["value"].get("title", "")
    ]
    client.command("cancelRepair", repairId=token)
    client.until_state("ready")
    time.sleep(0.5)
    assert len(actor.heard(session.model)) == 3
    other.close()


def test_a_check_that_fails_is_said_and_made_after_the_next_start(tmp_path: Path, session: Session) -> None:
    actor.script(session.model, "solve", "solve", "die", "die", "solve")
    client, first, second = two_solved(session)
    patch = client.case(first)["patchId"]
    client.command("revert", caseId=first)

    def said() -> bool:
        ends = [each["value"].get("message") or "" for each in client.of("$/progress")]
        return any(
            f"without {patch} could not be checked; it is tried again later. The" in end for end in ends
        )

    client.until(said, "the failure")
    assert client.case(second)["status"] == "solved"
    base = "base-qwen2.5-coder-0.5b"
    assert session.service.store.unchecked(base) == [patch]
    with Session(tmp_path) as again:
        again.ready()
        again.client.until(lambda: not again.service.store.unchecked(base), "it is checked")
        assert len(actor.heard(session.model)) == 5


def test_what_leaned_on_a_patch_that_is_damaged_while_the_server_runs_is_checked(session: Session) -> None:
    actor.script(session.model, "solve", "solve", "solve", "break", "solve")
    client = start(session)
    one, two, three = [client.flag(item, "max(y)") for item in items(client, 3)]
    client.until_case(three, "solved")
    client.until_state("ready")
    store = session.service.store
    gone, old = (client.case(id_)["patchId"] for id_ in (one, two))
    store.patch_path(gone).unlink()
    client.command("revert", caseId=three)
    client.until(lambda: client.case(two)["patchId"] not in (None, old), "it is solved again")
    client.until_state("ready")
    assert client.case(one)["status"] != "solved"
    check = actor.heard(session.model)[3]
    assert (check["check"], [each["id"] for each in check["hold"]]) == (True, [two])
    assert store.unchecked("base-qwen2.5-coder-0.5b") == []


def test_a_check_goes_first_is_one_for_all_reverts_and_can_be_cancelled(session: Session) -> None:
    actor.script(session.model, "solve", "solve", "solve", "sleep", "sleep", "solve")
    client = start(session)
    one, two, three, four = [client.flag(item, "max(y)") for item in items(client, 4)]
    client.until_case(four, "repairing")
    client.command("revert", caseId=one)
    client.command("revert", caseId=two)
    assert client.command("status")["queue"] == 1
    client.command("cancelRepair", caseId=four)

    def checking() -> str | None:
        tokens = [
            each["token"] for each in client.of("$/progress") if "Checking" in each["value"].get("title", "")
        ]
        return tokens[0] if tokens else None

    token = client.until(checking, "the check")
    client.until(lambda: len(actor.heard(session.model)) == 5, "the worker checks")
    client.notify("window/workDoneProgress/cancel", {"token": token})
    client.until_state("ready")
    assert [client.case(case)["status"] for case in (one, two, three, four)] == [
        "reverted",
        "reverted",
        "solved",
        "pending",
    ]
    titles = [each["value"].get("title") or "" for each in client.of("$/progress")]
    assert len([title for title in titles if title.startswith("Checking")]) == 1


def test_a_revert_on_which_nothing_leans_starts_no_worker(session: Session) -> None:
    client = start(session)
    case = flag(client)
    client.until_case(case, "solved")
    client.until_state("ready")
    client.command("revert", caseId=case)
    time.sleep(0.2)
    assert len(actor.heard(session.model)) == 1
