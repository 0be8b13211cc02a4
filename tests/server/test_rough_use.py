"""Used roughly: each thing works, or is refused with the reason, and no case is lost."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import actor
from tests.server.client import Client, Refused
from tests.server.fake_engine import Session

pytestmark = pytest.mark.process

URI = "file:///work/a.py"
TEXT = "def second(y):\n    total = \n    return total\n"
AT = (1, 12)
CELL = "vscode-notebook-cell:/work/plans/{}#W2sZmlsZQ%3D%3D"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    actor.hire(tmp_path, monkeypatch)
    with Session(tmp_path) as made:
        actor.script(made.model, "solve")
        yield made


def start(session: Session, schedule: str = "at once", **settings: Any) -> Client:
    client = session.ready({"repair": {"schedule": schedule}, **settings})
    client.open(URI, TEXT)
    return client


def shown(client: Client, uri: str = URI, place: tuple[int, int] = AT) -> Any:
    item = client.inline(uri, *place)
    assert item is not None
    return item


def named(item: Any) -> Any:
    """How a flag names a completion."""
    return item["command"]["arguments"][0]


def edit(client: Client, uri: str, line: int, start: int, end: int, text: str) -> None:
    """Replace a part of a line, as an editor tells it."""
    place = {"start": {"line": line, "character": start}, "end": {"line": line, "character": end}}
    changes = [{"range": place, "text": text}]
    document = {"uri": uri, "version": 2}
    client.notify("textDocument/didChange", {"textDocument": document, "contentChanges": changes})


def close(client: Client, uri: str) -> None:
    client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})


# -- many flags


def test_ten_flags_of_one_place_in_a_row_leave_the_newest_to_be_repaired_and_all_in_the_list(
    session: Session,
) -> None:
    actor.script(session.model, "sleep", "solve")
    client = start(session)
    item = shown(client)
    answers = [
        client.ask(
            "workspace/executeCommand",
            {"command": "star.flag", "arguments": [{**named(item), "expected": f"max({number})"}]},
        )
        for number in range(10)
    ]
    cases = [answer.get()["caseId"] for answer in answers]
    assert len(set(cases)) == 10
    client.until(lambda: actor.heard(session.model), "the first is at work")
    client.command("cancelRepair", caseId=cases[0])
    client.until_case(cases[-1], "solved")
    client.until_state("ready")
    assert {case["id"] for case in client.command("listCases")} == set(cases)
    repaired = [job["teach"][0]["id"] for job in actor.heard(session.model)]
    assert repaired == [cases[0], cases[-1]], "and none for a fix that was taken back meanwhile"


def test_a_flag_during_a_repair_is_repaired_after_it(session: Session) -> None:
    actor.script(session.model, "late", "solve")
    client = start(session)
    items = [shown(client), shown(client, place=(1, 10))]
    first = client.flag(items[0], "max(y)")
    client.until_case(first, "repairing")
    second = client.flag(items[1], "min(y)")
    assert client.case(second)["status"] == "pending"
    for case in (first, second):
        client.until_case(case, "solved")
    assert len(client.command("listPatches")) == 2


# -- documents of every kind


def test_a_flag_on_a_file_that_was_closed_needs_the_fix_and_says_so(session: Session) -> None:
    client = start(session, "manual")
    item = shown(client)
    close(client, URI)
    with pytest.raises(Refused, match=r"not open any more; open it, or give the right code as `expected`"):
        client.command("flag", **named(item))
    assert client.command("listCases") == []
    case = client.flag(item, "max(y)")
    assert client.case(case)["uri"] == URI
    client.open(URI, TEXT.replace("total = ", "total = min(y)"))
    again = client.command("flag", **named(item))["caseId"]
    assert client.case(again)["expected"] == "min(y)"


@pytest.mark.parametrize(
    "uri",
    [
        "untitled:Untitled-1",
        CELL.format("notes.ipynb"),
        "vscode-notebook-cell:Untitled-1.ipynb?jupyter-notebook#W0sdW50aXRsZWQ%3D",
        "vscode-remote://ssh-remote%2Bhost/work/a.py",
        "file:///work/a%20b%23c.py",
    ],
)
def test_a_document_of_any_kind_is_completed_flagged_and_found_again(session: Session, uri: str) -> None:
    client = start(session, "manual")
    client.open(uri, TEXT)
    item = shown(client, uri)
    edit(client, uri, *AT, 12, "max(y)")
    case = client.command("flag", **named(item))["caseId"]
    found = client.case(case)
    assert (found["uri"], found["position"]) == (uri, {"line": 1, "character": 12})
    assert found["expected"] == "max(y)"


@pytest.mark.parametrize(
    ("uri", "glob"),
    [
        (CELL.format("notes.ipynb"), "**/plans/**"),
        (CELL.format("notes.ipynb"), "*.ipynb"),
        (CELL.format("secrets.ipynb"), "**/secrets.*"),
        ("vscode-notebook-cell:/c%3A/work/notes.ipynb#W0", "**/work/*.ipynb"),
        ("vscode-remote://ssh-remote%2Bhost/work/.env", "**/.env*"),
        ("untitled:/work/.env", "**/.env*"),
        ("file:///work/%2Eenv", "**/.env*"),
        ("file:///work%2F.ssh%2Fa.py", "**/.ssh/**"),
        ("file:///work/link/%2e%2e/.EnV", "**/.env*"),
        ("git:/work/.env?%7B%22ref%22%3A%22HEAD%22%7D", "**/.env*"),
        ("file:///work/my%20secrets/a.py", "**/my secrets/**"),
    ],
)
def test_what_is_excluded_is_so_in_a_notebook_and_on_another_machine_too(
    session: Session, uri: str, glob: str
) -> None:
    client = start(session, completion={"exclude": [glob]})
    client.open(uri, TEXT)
    assert client.inline(uri, *AT) is None
    assert session.engine.requests == [], "nothing was read"
    (found,) = client.command("why", uri=uri)
    assert f"excluded by {glob}" in found["reason"]
    assert client.inline(URI, *AT) is not None


def test_no_secret_gets_from_an_editor_into_the_store_or_the_log(
    session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "ghp_" + "aB3" * 12
    with caplog.at_level(logging.INFO):
        client = start(session, "manual")
        uri = "file:///work/login.py"
        client.open(uri, f'login("{secret}")\n{TEXT}')
        item = client.inline(uri, 2, 12)
        assert item is not None
        with pytest.raises(Refused, match="must not learn") as refused:
            client.command("flag", **named(item), expected=f'"{secret}"')
        told = client.command("flag", **named(item), expected="max(y)", note=f"never {secret}")
        assert told["masked"] == ["GitHub Token"]
        item = client.inline(uri, 2, 10)
        assert client.command("accept", **named(item)) == {"accepted": True}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "store.sqlite3" in [path.name for path in files]
    assert [path.name for path in files if secret.encode() in path.read_bytes()] == []
    assert secret not in f"{caplog.text} {refused.value}"


def test_cells_of_one_notebook_do_not_disturb_each_other(session: Session) -> None:
    client = start(session, "manual")
    cells = [f"{CELL.format('notes.ipynb')}{number}" for number in range(3)]
    for cell in cells:
        client.open(cell, TEXT)
    session.engine.writes.clear()
    answers = [client.ask_inline(cell, *AT) for cell in cells]
    session.engine.writes.set()
    assert [len(answer.get()["items"]) for answer in answers] == [1, 1, 1]


def test_a_fix_of_several_lines_with_crlf_is_read_as_the_model_writes_it(session: Session) -> None:
    client = start(session, "manual")
    uri = "file:///work/crlf.py"
    client.open(uri, TEXT.replace("\n", "\r\n"))
    item = shown(client, uri)
    edit(client, uri, *AT, 12, "max(\r\n        y,\r\n    )")
    case = client.command("flag", **named(item))["caseId"]
    assert client.case(case)["expected"] == "max(\n        y,\n    )"
    kept = session.service.store.case(case)
    assert "\r" not in kept.prefix + kept.suffix
    given = client.command("flag", **named(item), expected="min(\r\n        y)")["caseId"]
    assert client.case(given)["expected"] == "min(\n        y)"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8"])
def test_emoji_before_and_after_the_cursor_do_no_harm(session: Session, encoding: str) -> None:
    client = session.client
    options = {"repair": {"schedule": "manual"}}
    client.initialize(options, general={"positionEncodings": [encoding]})
    client.until_state("ready")
    client.open(URI, 'party = "🎉👩‍👩‍👧" + \nrest = "🎉"\n')
    before = 'party = "🎉👩‍👩‍👧" + '
    width = len(before.encode("utf-16-le")) // 2 if encoding == "utf-16" else len(before.encode())
    item = shown(client, place=(0, width))
    assert session.engine.requests[0].prefix == before
    edit(client, URI, 0, width, width, '"🎉"')
    case = client.command("flag", **named(item))["caseId"]
    found = client.case(case)
    assert (found["expected"], found["position"]) == ('"🎉"', {"line": 0, "character": width})
    by_place = client.command("flag", uri=URI, position={"line": 0, "character": width + 1})
    assert client.case(by_place["caseId"])["expected"] == '"🎉"'


@pytest.mark.parametrize("place", [(0, 6), (0, 999), (99, 0)])
def test_a_place_within_a_character_or_beyond_the_end_is_answered(
    session: Session, place: tuple[int, int]
) -> None:
    client = start(session)
    client.open("file:///work/b.py", 'x = "🎉"\n')
    client.ask_inline("file:///work/b.py", *place).get()
    assert client.inline(URI, *AT) is not None


# -- two at once


def test_two_servers_on_one_store_repair_all_that_is_flagged_in_either_and_serve_it(
    tmp_path: Path, session: Session
) -> None:
    one = start(session)
    with Session(tmp_path) as other:
        two = start(other)
        cases: list[str] = []
        items = {client: [shown(client, place=(1, at)) for at in (12, 10, 8)] for client in (one, two)}

        def flag(client: Client, name: str) -> None:
            cases.extend(client.flag(item, f"max({name})") for item in items[client])

        threads = [
            threading.Thread(target=flag, args=(client, name)) for client, name in ((one, "a"), (two, "b"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(set(cases)) == 6
        done = ("solved", "reverted")  # the same place was flagged in both: one of the two counts
        for case in cases:
            one.until_case(case, *done)
        assert {case["id"] for case in two.command("listCases")} == set(cases)
        for each in (one, two):
            each.until_state("ready")
        history = [patch["id"] for patch in one.command("listPatches") if patch["active"]]
        for served in (session, other):
            one.until(lambda served=served: served.engine.histories[-1] == history, "both serve it")


def test_what_one_server_flags_the_other_one_undoes(tmp_path: Path, session: Session) -> None:
    one = start(session)
    with Session(tmp_path) as other:
        two = start(other)
        case = one.flag(shown(one), "max(y)")
        one.until_case(case, "solved")
        assert two.command("unflag", caseId=case) == {"was": "solved"}
        one.until(lambda: session.engine.histories[-1] == [], "the first follows")
        assert one.command("listCases") == []


def test_a_server_that_ends_in_a_repair_leaves_the_case_to_the_other(
    tmp_path: Path, session: Session
) -> None:
    one = start(session, "manual")
    actor.script(session.model, "sleep", "solve")
    with Session(tmp_path) as other:
        two = start(other)
        case = two.flag(shown(two), "max(y)")
        one.until_case(case, "repairing")
    one.until_case(case, "pending")
    one.command("repairAll")
    one.until_case(case, "solved")
