"""What a client sends and what it gets, over a real wire, with a double in place of the model."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from star.errors import ModelError
from star_lsp.protocol import COMMANDS
from star_lsp.store import Store
from tests.server.client import Client, Refused
from tests.server.fake_engine import Session

URI = "file:///work/a.py"
TEXT = "def second(y):\n    total = \n    return total\n"
AT = (1, 12)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as made:
        yield made


@pytest.fixture
def client(session: Session) -> Client:
    """A client of a server that serves, with one document open."""
    client = session.ready()
    client.open(URI, TEXT)
    return client


def store_of(session: Session) -> Store:
    """The same store as another process sees it."""
    return Store(session.data)


# -- initialize


def test_inline_completion_code_actions_and_all_commands_are_advertised(session: Session) -> None:
    found = session.client.initialize()["capabilities"]
    assert found["inlineCompletionProvider"] == {}
    assert found["codeActionProvider"] == {"codeActionKinds": ["quickfix"]}
    assert sorted(found["executeCommandProvider"]["commands"]) == sorted(COMMANDS)
    assert found["textDocumentSync"]["change"] == 2
    assert "completionProvider" not in found


def test_plain_completion_is_for_clients_without_the_inline_kind(session: Session) -> None:
    found = session.client.initialize(text_document={})["capabilities"]
    assert found["completionProvider"] == {"resolveProvider": False}


def test_all_bad_settings_are_named_at_once_and_the_defaults_used(session: Session) -> None:
    client = session.client
    client.initialize({"completion": {"maxTokens": 0}, "repair.schedul": "idle", "gate": {"maxKl": "much"}})
    (message,) = client.until(lambda: client.of("window/showMessage"), "a message")
    assert message["type"] == 2
    lines = message["message"].split("\n")
    assert len(lines) == 3
    for name in ("completion.maxTokens", "repair.schedul", "gate.maxKl"):
        assert any(name in line for line in lines)
    client.until_state("ready")
    client.open(URI, TEXT)
    client.inline(URI, *AT)
    assert session.engine.requests[0].max_tokens == 64


def test_settings_may_change_later_and_nothing_does_not_reset_them(session: Session) -> None:
    client = session.ready({"completion": {"maxTokens": 7}})
    client.open(URI, TEXT)
    for settings in ({}, None, {"star-lsp": {"completion": {"maxTokens": 9}}}):
        client.notify("workspace/didChangeConfiguration", {"settings": settings})
        client.inline(URI, *AT)
    assert [request.max_tokens for request in session.engine.requests] == [7, 9]


def test_another_model_is_said_to_need_a_restart(client: Client) -> None:
    client.notify("workspace/didChangeConfiguration", {"settings": {"model": "other"}})
    (message,) = client.until(lambda: client.of("window/showMessage"), "a message")
    assert message["message"] == (
        "The model qwen2.5-coder-0.5b stays in use; restart the server to use other instead."
    )
    assert client.command("status")["model"] == "qwen2.5-coder-0.5b"


def test_a_model_that_cannot_be_had_is_said_and_another_one_may_be_named_at_once(session: Session) -> None:
    client = session.client
    client.initialize({"model": "no-such-model", "autoPull": False})
    client.until_state("failed")
    (message,) = client.until(lambda: client.of("window/showMessage"), "a message")
    assert "cannot offer completions: The model no-such-model is not installed" in message["message"]
    client.open(URI, TEXT)
    assert client.inline(URI, *AT) is None
    with pytest.raises(Refused, match="no-such-model is not installed"):
        client.command("cancelRepair", caseId="c1")
    client.notify("workspace/didChangeConfiguration", {"settings": {"model": "other"}})
    client.until_state("ready")
    assert client.command("status")["model"] == "other"
    assert client.inline(URI, *AT) is not None


def test_a_model_that_does_not_load_is_said_in_one_sentence(session: Session) -> None:
    session.engine.refuses_to_load = ModelError("The model folder is damaged; pull it again.")
    session.client.initialize()
    session.client.until_state("failed")
    (message,) = session.client.of("window/showMessage")
    assert message["message"] == (
        "star-lsp cannot offer completions: The model folder is damaged; pull it again."
    )


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.process)])
def test_commands_leave_nothing_behind(client: Client, count: int) -> None:
    for _ in range(count):
        client.command("status")


# -- completions


def test_while_the_model_loads_a_completion_is_answered_at_once_and_empty(session: Session) -> None:
    session.engine.loads.clear()
    session.client.initialize()
    session.client.open(URI, TEXT)
    assert session.client.inline(URI, *AT, seconds=2) is None
    status = session.client.command("status")
    assert (status["state"], status["revision"], status["workerPid"]) == ("loading", None, None)
    session.engine.loads.set()
    session.client.until_state("ready")
    assert session.client.inline(URI, *AT) is not None


def test_an_item_inserts_at_the_cursor_and_carries_what_is_run_when_it_is_accepted(client: Client) -> None:
    item = client.inline(URI, *AT)
    assert item is not None
    place = {"line": 1, "character": 12}
    assert item["insertText"] == "sum(y)"
    assert item["range"] == {"start": place, "end": place}
    assert item["command"]["command"] == "star.accept"
    (argument,) = item["command"]["arguments"]
    assert set(argument) == {"completionId"}


def test_the_model_reads_what_stands_around_the_cursor(session: Session, client: Client) -> None:
    client.inline(URI, *AT)
    (request,) = session.engine.requests
    assert request.prefix == "def second(y):\n    total = "
    assert request.suffix == "\n    return total\n"


def test_the_plain_kind_of_completion_offers_the_same(session: Session) -> None:
    session.engine.text = "sum(\n        y\n    )"
    session.client.initialize(text_document={})
    session.client.until_state("ready")
    session.client.open(URI, TEXT.replace("total = ", "total = to"))
    params = {"textDocument": {"uri": URI}, "position": {"line": 1, "character": 14}}
    found = session.client.request("textDocument/completion", params)
    assert found["isIncomplete"]
    (item,) = found["items"]
    assert item["label"] == "sum( …"
    assert item["documentation"] == item["textEdit"]["newText"] == "sum(\n        y\n    )"
    assert item["filterText"] == "tosum(\n        y\n    )"
    assert item["sortText"] == " "  # before all else; NUL would be too, but Emacs cannot read it
    assert item["command"]["command"] == "star.accept"


def test_cancelling_ends_the_generation_and_is_answered_as_cancelled(
    session: Session, client: Client
) -> None:
    session.engine.writes.clear()
    answer = client.ask_inline(URI, *AT)
    client.until(lambda: session.engine.requests, "the engine is asked")
    client.cancel(answer)
    with pytest.raises(Refused) as refused:
        answer.get()
    assert refused.value.code == -32800
    client.until(lambda: session.engine.stopped, "the engine stops")


def test_a_newer_request_replaces_the_one_before_which_is_answered_empty(
    session: Session, client: Client
) -> None:
    session.engine.writes.clear()
    older = client.ask_inline(URI, *AT)
    client.until(lambda: session.engine.requests, "the engine is asked")
    middle = client.ask_inline(URI, *AT)
    newest = client.ask_inline(URI, *AT)
    assert older.get() == {"items": []}
    assert middle.get() == {"items": []}
    assert not newest.there
    session.engine.writes.set()
    assert len(newest.get()["items"]) == 1


def test_requests_for_different_documents_do_not_disturb_each_other(session: Session, client: Client) -> None:
    other = "file:///work/b.py"
    client.open(other, "b = \n")
    session.engine.writes.clear()
    answers = [client.ask_inline(URI, *AT), client.ask_inline(other, 0, 4)]
    client.until(lambda: session.engine.requests, "the engine is asked")
    session.engine.writes.set()
    assert [len(answer.get()["items"]) for answer in answers] == [1, 1]
    assert [request.prefix[-4:] for request in session.engine.requests] == ["l = ", "b = "]


@pytest.mark.parametrize(("encoding", "character"), [("utf-16", 11), ("utf-8", 14), ("utf-32", 10)])
def test_positions_count_as_the_client_counts(session: Session, encoding: str, character: int) -> None:
    general = {"positionEncodings": [encoding]}
    found = session.client.initialize(general=general)["capabilities"]
    assert found["positionEncoding"] == encoding
    session.client.until_state("ready")
    session.client.open(URI, 'é = "😀" + [1]\n')
    item = session.client.inline(URI, 0, character)
    assert item is not None
    assert item["range"]["start"]["character"] == character
    assert session.engine.requests[0].prefix == 'é = "😀" + '
    assert session.engine.requests[0].suffix == "[1]\n"


def test_a_document_that_changed_is_read_as_it_is_now(session: Session, client: Client) -> None:
    client.rewrite(URI, "x = \r\ny = 1\r\n")
    client.inline(URI, 0, 4)
    assert (session.engine.requests[0].prefix, session.engine.requests[0].suffix) == ("x = ", "\ny = 1\n")


def test_what_repeats_the_line_above_is_not_shown(session: Session, client: Client) -> None:
    session.engine.text = "total = 1"
    client.rewrite(URI, "total = 1\n\n")
    assert client.inline(URI, 1, 0) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"completion": {"enabled": False}},
        {"completion": {"languages": {"python": False}}},
        {"completion": {"exclude": ["**/a.py"]}},
    ],
)
def test_nothing_is_read_where_completions_are_not_wanted(session: Session, settings: Any) -> None:
    client = session.ready(settings)
    client.open(URI, TEXT)
    assert client.inline(URI, *AT) is None
    assert session.engine.requests == []


def test_an_empty_document_gets_nothing(session: Session, client: Client) -> None:
    client.rewrite(URI, "\n")
    assert client.inline(URI, 0, 0) is None
    assert session.engine.requests == []


def test_a_document_that_is_not_open_is_not_read_from_the_disk(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "closed.py"
    path.write_text(TEXT)
    with pytest.raises(Refused, match=r"closed\.py is not open here; open it first") as refused:
        client.inline(path.as_uri(), *AT)
    assert refused.value.code == -32803


def test_a_request_that_cannot_be_read_is_refused_and_not_left_hanging(client: Client) -> None:
    position = {"line": 1, "character": 12}
    params = {"textDocument": {"uri": URI}, "position": position, "context": {"triggerKind": 0}}
    with pytest.raises(
        Refused, match=r"parameters of textDocument/inlineCompletion cannot be read"
    ) as refused:
        client.request("textDocument/inlineCompletion", params)
    assert refused.value.code == -32602
    assert client.inline(URI, *AT) is not None


# -- commands


def flag(client: Client, **fields: Any) -> Any:
    item = client.inline(URI, *AT)
    assert item is not None
    return client.command("flag", **item["command"]["arguments"][0], **fields)


MANUAL = {"repair": {"schedule": "manual"}}


@pytest.fixture
def manual(session: Session) -> Client:
    """A client of a server that repairs only when asked to."""
    client = session.ready(MANUAL)
    client.open(URI, TEXT)
    return client


def test_a_flag_is_stored_and_answered_at_once(session: Session, manual: Client) -> None:
    found = flag(manual, expected="max(y)", note="docs")
    assert found == {"caseId": found["caseId"], "status": "pending"}
    (case,) = manual.command("listCases")
    assert case == {
        "id": found["caseId"],
        "status": "pending",
        "language": "python",
        "uri": URI,
        "position": {"line": 1, "character": 12},
        "rejected": "sum(y)",
        "expected": "max(y)",
        "patchId": None,
        "reason": None,
        "createdAt": case["createdAt"],
        "model": "qwen2.5-coder-0.5b",
    }
    assert manual.command("listCases", status="pending") == [case]
    assert manual.command("listCases", status="solved") == []
    kept = session.service.store.case(found["caseId"])
    assert (kept.note, kept.model, kept.revision) == ("docs", "qwen2.5-coder-0.5b", "revision 1")
    manual.until(lambda: [told for told in manual.of("star/didChange") if told["what"] == ["cases"]], "told")


def test_a_flag_by_place_means_the_last_one_shown_there_and_reads_the_fix(manual: Client) -> None:
    assert manual.inline(URI, *AT) is not None
    manual.rewrite(URI, TEXT.replace("total = ", "total = max(y)"))
    found = manual.command("flag", uri=URI, position={"line": 1, "character": 18})
    assert manual.case(found["caseId"])["expected"] == "max(y)"


@pytest.mark.parametrize(
    ("fields", "code", "sentence"),
    [
        ({}, -32602, "which completion is meant is not said: give completionId, or uri and position"),
        ({"completionId": "s0"}, -32803, "No completion is remembered there (the last 64 are); ask for one"),
        ({"completionId": 7}, -32602, "completionId must be a string"),
        ({"completionId": "s0", "expect": "x"}, -32602, "no field expect (did you mean expected?)"),
        ({"uri": URI, "position": {"line": 7, "character": 0}}, -32803, "No completion is remembered there"),
    ],
)
def test_a_flag_that_cannot_be_acted_on_is_refused_with_one_sentence(
    manual: Client, fields: Any, code: int, sentence: str
) -> None:
    with pytest.raises(Refused) as refused:
        manual.command("flag", **fields)
    assert refused.value.code == code
    assert sentence in refused.value.message
    assert "\n" not in refused.value.message
    assert manual.command("listCases") == []


def test_an_accepted_completion_is_remembered_unless_that_is_switched_off(
    session: Session, manual: Client
) -> None:
    item = manual.inline(URI, *AT)
    assert item is not None
    accept = {"command": item["command"]["command"], "arguments": item["command"]["arguments"]}
    assert manual.request("workspace/executeCommand", accept) == {"accepted": True}
    assert [kept.text for kept in session.service.store.accepted(9)] == ["sum(y)"]
    assert manual.command("accept", completionId="s0") == {"accepted": False}
    session.service.store.forget_accepted(session.engine.requests[0].prefix, "\n    return total\n")
    off = MANUAL | {"feedback": {"keepAccepted": False}}
    manual.notify("workspace/didChangeConfiguration", {"settings": off})
    assert manual.request("workspace/executeCommand", accept) == {"accepted": True}
    assert session.service.store.accepted(9) == []


def test_the_status_is_as_the_wire_says(manual: Client) -> None:
    status = manual.command("status")
    memory = status.pop("memory")
    assert status == {
        "state": "ready",
        "failure": None,
        "working": None,
        "model": "qwen2.5-coder-0.5b",
        "revision": "revision 1",
        "queue": 0,
        "workerPid": None,
    }
    assert set(memory) == {"serverBytes", "serverPrivateBytes", "workerBytes", "workerPrivateBytes"}
    assert memory["serverBytes"] > memory["serverPrivateBytes"] > 1_000_000
    assert memory["workerBytes"] is None


def test_a_case_is_deleted_and_told(manual: Client) -> None:
    case = flag(manual, expected="x")["caseId"]
    assert manual.command("deleteCase", caseId=case) == {"deleted": True}
    assert manual.command("listCases") == []
    with pytest.raises(Refused, match=f"There is no case {case}") as refused:
        manual.command("deleteCase", caseId=case)
    assert refused.value.code == -32803


def patched(session: Session, *cases: str) -> str:
    """A patch that another process put into the history."""
    store = store_of(session)
    id_ = store.new_patch_id()
    store.patch_path(id_).write_bytes(b"")
    about: dict[str, Any] = {"digest": "d", "revision": "r9", "failed": {}, "verdict": {"steps": 2}}
    store.activate(id_, base="base-qwen2.5-coder-0.5b", solved=list(cases), **about)
    store.close()
    return id_


@pytest.mark.process
def test_what_another_process_changes_in_the_history_is_served_within_a_second(
    session: Session, manual: Client
) -> None:
    case = flag(manual, expected="x")["caseId"]
    patch = patched(session, case)
    began = time.monotonic()
    manual.until(lambda: session.engine.histories == [[], [patch]], "the patch is swapped in")
    assert time.monotonic() - began < 1.5
    (listed,) = manual.command("listPatches")
    assert listed == {
        "id": patch,
        "base": "base-qwen2.5-coder-0.5b",
        "cases": [case],
        "active": True,
        "revision": "r9",
        "createdAt": listed["createdAt"],
        "verdict": {"steps": 2},
    }
    assert manual.command("status")["revision"] == "revision 2"
    manual.until(lambda: manual.of("star/didChange")[-1]["revision"] == "revision 2", "told")
    store = store_of(session)
    store.deactivate([patch], [case])
    store.close()
    manual.until(lambda: session.engine.histories[-1] == [], "the patch is gone again")


@pytest.mark.process
def test_a_revert_by_patch_swaps_the_rest_in_and_names_the_revision(session: Session, manual: Client) -> None:
    case = flag(manual, expected="x")["caseId"]
    first, second = patched(session), patched(session, case)
    manual.until(lambda: session.engine.histories[-1] == [first, second], "both are served")
    assert manual.command("revert", patchId=second) == {"revision": manual.command("status")["revision"]}
    assert session.engine.histories[-1] == [first]
    assert manual.case(case)["status"] == "reverted"
    assert manual.command("revert", patchId=first, caseId=None)["revision"]
    assert session.engine.histories[-1] == []
    with pytest.raises(Refused, match="No active patch is or covers") as refused:
        manual.command("revert", caseId=case)
    assert refused.value.code == -32803


@pytest.mark.process
def test_a_patch_whose_file_is_gone_is_out_of_the_history_with_a_word(
    session: Session, manual: Client
) -> None:
    first, second = patched(session), patched(session)
    manual.until(lambda: session.engine.histories[-1] == [first, second], "both are served")
    session.service.store.patch_path(first).unlink()
    manual.command("revert", patchId=second)
    assert session.engine.histories[-1] == []
    assert not any(patch["active"] for patch in manual.command("listPatches"))
    messages = [each["message"] for each in manual.of("window/showMessage")]
    assert any(
        f"Patch {first} is out of the history: its file is not there any more" in each for each in messages
    )
    assert manual.inline(URI, *AT) is not None


def test_there_is_nothing_to_repair_or_cancel(manual: Client) -> None:
    with pytest.raises(Refused, match="No case is pending; flag a completion first"):
        manual.command("repairAll")
    with pytest.raises(Refused, match="There is no case c0"):
        manual.command("repairAll", cases=["c0"])
    assert manual.command("cancelRepair", caseId="c0") == {"cancelled": False}
    assert manual.command("cancelRepair", repairId="r0", caseId="c0") == {"cancelled": False}


def test_a_command_that_is_not_there_is_refused(manual: Client) -> None:
    with pytest.raises(Refused) as refused:
        manual.command("explode")
    assert refused.value.code == -32602


def test_a_store_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "data" / "store.sqlite3").mkdir(parents=True)  # in its way
    with Session(tmp_path) as session:
        session.client.initialize()
        session.client.until_state("failed")
        (message,) = session.client.of("window/showMessage")
        assert "store.sqlite3 cannot be opened" in message["message"]
        with pytest.raises(Refused, match="check its permissions"):
            session.client.command("listCases")


def test_a_store_that_was_damaged_is_said_and_all_goes_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "store.sqlite3").write_bytes(b"not a database, by any means" * 50)
    with Session(tmp_path) as session:
        session.client.initialize()
        session.client.until_state("ready")
        (message,) = session.client.of("window/showMessage")
        assert "The store was damaged (file is not a database)" in message["message"]
        assert session.client.command("listCases") == []


# -- code actions


def actions(client: Client, line: int, **context: Any) -> Any:
    place = {"line": line, "character": 0}
    params = {"textDocument": {"uri": URI}, "range": {"start": place, "end": place}}
    return client.request("textDocument/codeAction", params | {"context": {"diagnostics": []} | context})


def test_a_code_action_flags_a_suggestion_that_was_corrected(manual: Client) -> None:
    assert actions(manual, 1) == []
    assert manual.inline(URI, *AT) is not None
    assert actions(manual, 1) == []  # nothing stands there yet
    manual.rewrite(URI, TEXT.replace("total = ", "total = sum(y)"))
    assert actions(manual, 1) == []  # it was taken as it is
    manual.rewrite(URI, TEXT.replace("total = ", "total = max(y)"))
    assert actions(manual, 0) == []
    assert actions(manual, 1, only=["refactor"]) == []
    assert len(actions(manual, 1, only=["quickfix"])) == 1
    (action,) = actions(manual, 1)
    assert action["title"] == "star-lsp: the suggestion `sum(y)` was wrong, `max(y)` is right"
    assert action["kind"] == "quickfix"
    command = {name: action["command"][name] for name in ("command", "arguments")}
    found = manual.request("workspace/executeCommand", command)
    assert manual.case(found["caseId"])["expected"] == "max(y)"
    (action,) = actions(manual, 1)
    assert action["title"] == "star-lsp: undo the flag of `sum(y)`"
    manual.rewrite(URI, TEXT.replace("total = ", "total = min(y)"))
    assert [each["command"]["command"] for each in actions(manual, 1)] == ["star.flag", "star.unflag"]
    command = {name: action["command"][name] for name in ("command", "arguments")}
    assert manual.request("workspace/executeCommand", command) == {"was": "pending"}
    assert [each["command"]["command"] for each in actions(manual, 1)] == ["star.flag"]


def test_the_undoing_code_action_means_the_last_flag_of_a_line_that_stands(
    session: Session, manual: Client
) -> None:
    first, second = flag(manual, expected="x")["caseId"], flag(manual, expected="y")["caseId"]
    assert actions(manual, 1)[0]["command"]["arguments"] == [{"caseId": second}]
    assert actions(manual, 0) == actions(manual, 1, only=["refactor"]) == []
    manual.command("deleteCase", caseId=second)
    assert actions(manual, 1) == []
    assert manual.case(first)["status"] == "reverted"
