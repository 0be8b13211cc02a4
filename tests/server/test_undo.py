"""A flag is undone however far its repair has come, and nothing is left of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
    with Session(tmp_path) as made:
        actor.script(made.model, "solve")
        yield made


def start(session: Session, schedule: str = "at once") -> Client:
    client = session.ready({"repair": {"schedule": schedule}})
    client.open(URI, TEXT)
    return client


def flag(client: Client, character: int = 12) -> str:
    item = client.inline(URI, 1, character)
    assert item is not None
    return client.flag(item, "max(y)")


def unflag(client: Client, case: str) -> str:
    """What it was; nothing is left of it."""
    was = client.command("unflag", caseId=case)["was"]
    assert case not in [each["id"] for each in client.command("listCases")]
    return str(was)


def active(client: Client) -> list[str]:
    return [patch["id"] for patch in client.command("listPatches") if patch["active"]]


def test_a_pending_case_is_deleted_and_told(session: Session) -> None:
    client = start(session, "manual")
    case, other = flag(client), flag(client, 10)
    told = len(client.of("star/didChange"))
    assert unflag(client, case) == "pending"
    assert [each["id"] for each in client.command("listCases")] == [other]
    assert "cases" in client.of("star/didChange")[told]["what"]


def test_one_that_waits_for_its_repair_waits_no_more(session: Session) -> None:
    actor.script(session.model, "sleep", "solve")
    client = start(session)
    first, second = flag(client), flag(client, 10)
    client.until_case(first, "repairing")
    assert unflag(client, second) == "pending"
    assert client.command("status")["queue"] == 1
    client.command("cancelRepair", caseId=first)
    client.until_state("ready")
    assert len(actor.heard(session.model)) == 1


def test_one_that_waits_with_others_leaves_these_waiting(session: Session) -> None:
    actor.script(session.model, "sleep", "solve")
    client = start(session)
    first, second, third = flag(client), flag(client, 10), flag(client, 8)
    client.until_case(first, "repairing")
    client.command("repairAll", cases=[second, third])
    assert unflag(client, second) == "pending"
    client.command("cancelRepair", caseId=first)
    client.until_case(third, "solved")
    assert [each["id"] for each in actor.heard(session.model)[-1]["teach"]] == [third]


def test_a_repair_that_runs_is_cancelled_first(session: Session) -> None:
    actor.script(session.model, "sleep", "solve")
    client = start(session)
    case = flag(client)
    client.until_case(case, "repairing")
    assert unflag(client, case) == "repairing"
    client.until_state("ready")
    assert client.command("listPatches") == []
    client.until(lambda: client.of("$/progress")[-1]["value"]["kind"] == "end", "progress ends")
    assert client.of("$/progress")[-1]["value"]["message"] == "cancelled"


def test_the_others_of_a_repair_that_runs_are_repaired_without_it(session: Session) -> None:
    actor.script(session.model, "sleep", "solve")
    client = start(session, "manual")
    cases = [flag(client, character) for character in (12, 10, 8)]
    client.command("repairAll")
    client.until_case(cases[0], "repairing")
    assert unflag(client, cases[1]) == "repairing"
    for other in (cases[0], cases[2]):
        client.until_case(other, "solved")
    assert [each["id"] for each in actor.heard(session.model)[-1]["teach"]] == [cases[0], cases[2]]


def test_a_repair_that_goes_live_all_the_same_is_reverted(session: Session) -> None:
    actor.script(session.model, "late")  # hears of no cancel
    client = start(session)
    case = flag(client)
    client.until_case(case, "repairing")
    assert unflag(client, case) == "solved"
    assert active(client) == []
    assert session.engine.histories[-1] == []
    assert len(client.command("listPatches")) == 1, "it did go live"


def test_what_is_solved_is_reverted_and_no_other_case(session: Session) -> None:
    client = start(session)
    first, second = flag(client), flag(client, 10)
    client.until_case(second, "solved")
    client.until_state("ready")
    kept = client.case(first)["patchId"]
    assert unflag(client, second) == "solved"
    assert active(client) == [kept]
    assert session.engine.histories[-1] == [kept]
    assert client.case(first)["status"] == "solved"


def test_of_a_patch_for_several_cases_the_others_are_solved_again(session: Session) -> None:
    client = start(session, "manual")
    first, second = flag(client), flag(client, 10)
    client.command("repairAll")
    client.until_case(second, "solved")
    client.until_state("ready")
    old = client.case(second)["patchId"]
    assert unflag(client, first) == "solved"
    client.until(lambda: client.case(second)["patchId"] not in (None, old), "it is solved again")


def test_what_failed_or_was_reverted_is_deleted(session: Session) -> None:
    actor.script(session.model, "unsolved", "solve")
    client = start(session)
    failed = flag(client)
    client.until_case(failed, "failed")
    assert unflag(client, failed) == "failed"
    reverted = flag(client)
    client.until_case(reverted, "solved")
    client.until_state("ready")
    client.command("revert", caseId=reverted)
    assert unflag(client, reverted) == "reverted"


def test_what_another_process_repairs_is_refused_with_the_remedy(session: Session) -> None:
    client = start(session, "manual")
    case = flag(client)
    Store(session.data).begin([case])
    with pytest.raises(Refused, match=r"by another process .* cancel that, or wait for its end, then undo"):
        client.command("unflag", caseId=case)
    assert client.case(case)["status"] == "repairing"


def test_an_unknown_case_is_refused(session: Session) -> None:
    with pytest.raises(Refused, match="There is no case c0"):
        start(session).command("unflag", caseId="c0")


def test_while_the_model_loads_what_is_pending_is_deleted_and_what_is_solved_is_kept(
    session: Session,
) -> None:
    store = Store(session.data)
    cases = [store.add_case(prefix=f"{name} = ", suffix="\n", expected="1", rejected="2").id for name in "ab"]
    patch = store.new_patch_id()
    store.activate(patch, base="b", digest="d", revision="r", solved=cases[1:], failed={}, verdict={})
    session.engine.loads.clear()
    session.client.initialize({"repair": {"schedule": "manual"}})
    session.client.until_state("loading")
    assert unflag(session.client, cases[0]) == "pending"
    with pytest.raises(Refused, match="no model yet to take that from; undo it when the model is ready"):
        session.client.command("unflag", caseId=cases[1])
    session.engine.loads.set()
    session.client.until_state("ready")
    with pytest.raises(Refused, match=rf"{patch}, which is for another model .*star-lsp revert {cases[1]}"):
        session.client.command("unflag", caseId=cases[1])
    assert session.client.case(cases[1])["status"] == "solved"
