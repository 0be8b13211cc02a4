"""Why nothing was suggested: each reason with its remedy, where and when, the newest first."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from star.errors import ModelError
from star_lsp import catalogue
from tests.server.client import Client, Refused
from tests.server.fake_engine import Session

URI, OTHER = "file:///work/a.py", "file:///work/b.py"
TEXT = "def second(y):\n    total = \n    return total\n"
AT = (1, 12)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as made:
        yield made


def start(session: Session, **completion: Any) -> Client:
    client = session.ready({"completion": completion})
    client.open(URI, TEXT)
    return client


def reasons(client: Client, uri: str | None = None) -> list[str]:
    return [each["reason"] for each in client.command("why", **({"uri": uri} if uri else {}))]


def test_there_is_no_reason_where_all_was_answered(session: Session) -> None:
    client = start(session)
    assert client.inline(URI, *AT) is not None
    assert client.command("why") == []


def test_a_reason_says_where_and_when(session: Session) -> None:
    client = start(session, enabled=False)
    client.inline(URI, *AT)
    (found,) = client.command("why")
    assert found == {
        "uri": URI,
        "position": {"line": 1, "character": 12},
        "reason": "Completions are switched off; set completion.enabled to true to have them.",
        "at": found["at"],
    }
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(found["at"]) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("completion", "text", "reason"),
    [
        ({"languages": {"python": False}}, TEXT, "off for python; completion.languages says where they"),
        ({"exclude": ["**/a.py"]}, TEXT, "excluded by **/a.py; take that out of completion.exclude"),
        ({}, "\n\n  \n", "The document is empty; write something for the model"),
        ({}, "sum(y)\n\n", "it repeats the line above; write a little more, and ask again"),
    ],
)
def test_what_is_not_wanted_or_not_worth_it_names_the_setting_or_what_to_do(
    session: Session, completion: Any, text: str, reason: str
) -> None:
    client = session.ready({"completion": completion})
    client.open(URI, text)
    assert client.inline(URI, 1, 0) is None
    (found,) = reasons(client)
    assert reason in found


def test_the_newest_comes_first_and_one_document_may_be_asked_for(session: Session) -> None:
    client = start(session)
    client.open(OTHER, "\n")
    client.inline(OTHER, 0, 0)
    with pytest.raises(Refused, match="not open here"):
        client.inline("file:///work/closed.py", 0, 0)
    assert [each["uri"] for each in client.command("why")] == ["file:///work/closed.py", OTHER]
    assert "closed.py is not open here; open it first" in reasons(client)[0]
    assert len(reasons(client, OTHER)) == 1
    assert reasons(client, URI) == []


def test_while_the_model_loads_that_is_the_reason(session: Session) -> None:
    session.engine.loads.clear()
    session.client.initialize()
    session.client.open(URI, TEXT)
    session.client.inline(URI, *AT)
    assert reasons(session.client) == [
        "The model qwen2.5-coder-0.5b is being loaded; completions begin in a few seconds."
    ]
    session.engine.loads.set()
    session.client.until_state("ready")


def test_while_the_model_is_pulled_the_reason_and_the_status_say_how_far_it_is(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = threading.Event()

    def pull(name: str, models: Path, on_progress: Any, cancelled: Any) -> catalogue.Installed:
        on_progress(catalogue.Meter(lambda _: None)._moment("half of it"))
        there.wait(10)
        return catalogue.locate("other", models)

    monkeypatch.setattr(catalogue, "pull", pull)
    session.client.initialize({"model": "absent"})
    client = session.client
    client.open(URI, TEXT)
    client.until(lambda: client.command("status")["working"], "the pull is told")
    status = client.command("status")
    assert (status["state"], status["failure"]) == ("downloading", None)
    assert status["working"] == {"title": "Pulling the model absent", "message": "half of it", "percent": 0}
    client.inline(URI, *AT)
    assert reasons(client) == [
        "The model absent is being downloaded (0 %); completions begin when it is here. "
        "The setting model names another one."
    ]
    there.set()
    client.until_state("ready")
    assert client.command("status")["working"] is None


def test_a_model_that_does_not_load_is_the_reason_and_in_the_status(session: Session) -> None:
    session.engine.refuses_to_load = ModelError("The model folder is damaged; pull it again.")
    client = session.client
    client.initialize()
    client.until_state("failed")
    assert client.command("status")["failure"] == "The model folder is damaged; pull it again."
    client.open(URI, TEXT)
    client.inline(URI, *AT)
    assert reasons(client) == ["The model folder is damaged; pull it again."]


def test_what_the_client_cancels_is_said_once_however_fast_it_types(session: Session) -> None:
    client = start(session)
    session.engine.writes.clear()
    for character in (10, 11, 12):
        asked = len(session.engine.requests)
        answer = client.ask_inline(URI, 1, character)
        client.until(lambda asked=asked: len(session.engine.requests) > asked, "the engine is asked")
        client.cancel(answer)
        with pytest.raises(Refused):
            answer.get()
    (found,) = client.command("why")
    assert "The editor took the request back" in found["reason"]
    assert found["position"]["character"] == 12, "the newest of them"


def test_a_newer_request_is_the_reason(session: Session) -> None:
    client = start(session)
    session.engine.writes.clear()
    older, newer = client.ask_inline(URI, 1, 10), client.ask_inline(URI, *AT)
    older.get()
    session.engine.writes.set()
    newer.get()
    assert reasons(client) == ["A newer request in this document took its place; that one is answered."]


def test_only_the_last_are_remembered(session: Session) -> None:
    client = start(session, enabled=False)
    for number in range(40):
        uri = f"file:///work/{number}.py"
        client.open(uri, TEXT)
        client.inline(uri, *AT)
    found = client.command("why")
    assert [each["uri"] for each in found] == [f"file:///work/{number}.py" for number in range(39, 7, -1)]
