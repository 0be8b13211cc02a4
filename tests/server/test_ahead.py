"""What was written ahead is given while it is typed, and never where it no longer holds."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from star_lsp.ahead import Ahead, Known
from tests.server.client import Client, Refused
from tests.server.fake_engine import Session

URI, OTHER = "file:///work/a.py", "file:///work/b.py"
TEXT = "def second(y):\n    total = \n    return total\n"
BEFORE, AFTER = "x = ", "\nprint(x)\n"
KEY = ("file:///a.py", "history")
KNOWN = Known("sum(y, 1)", "…" + BEFORE, AFTER + "…", "revision")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as made:
        yield made


def kept() -> Ahead:
    ahead = Ahead()
    ahead.keep(KEY, BEFORE, AFTER, KNOWN)
    return ahead


@given(typed=st.integers(0, 8))
def test_what_is_left_of_a_suggestion_is_given_while_it_is_typed(typed: int) -> None:
    found = kept().rest(KEY, BEFORE + KNOWN.text[:typed], AFTER)
    assert found == Known(KNOWN.text[typed:], KNOWN.prefix + KNOWN.text[:typed], KNOWN.suffix, "revision")


@pytest.mark.parametrize(
    ("key", "prefix", "suffix"),
    [
        (("file:///b.py", "history"), BEFORE, AFTER),
        (("file:///a.py", "another history"), BEFORE, AFTER),
        (KEY, "y = ", AFTER),
        (KEY, BEFORE + "min", AFTER),
        (KEY, BEFORE + KNOWN.text, AFTER),
        (KEY, BEFORE + "sum(", "\nprint(y)\n"),
        (KEY, BEFORE + "sum(", " + 1" + AFTER),
        (KEY, BEFORE[:-1], AFTER),
        (KEY, BEFORE + "sum(", "]]]]]]]]" + AFTER),
    ],
)
def test_the_model_is_asked_where_anything_else_has_changed(
    key: tuple[str, str], prefix: str, suffix: str
) -> None:
    assert kept().rest(key, prefix, suffix) is None


def test_a_bracket_that_the_editor_closed_by_itself_is_not_written_again() -> None:
    found = kept().rest(KEY, BEFORE + "sum(", ")" + AFTER)
    assert found is not None
    assert (found.text, found.suffix) == ("y, 1", ")" + KNOWN.suffix)


def test_going_back_finds_what_was_given_there() -> None:
    ahead = kept()
    ahead.keep(KEY, BEFORE + "m", AFTER, Known("in(y)", "", "", "revision"))
    assert ahead.rest(KEY, BEFORE, AFTER) == KNOWN
    newest = ahead.rest(KEY, BEFORE + "mi", AFTER)
    assert newest is not None
    assert newest.text == "n(y)"


def test_that_there_is_nothing_to_suggest_is_known_too() -> None:
    ahead, nothing = Ahead(), Known("", BEFORE, AFTER, "revision")
    ahead.keep(KEY, BEFORE, AFTER, nothing)
    assert ahead.rest(KEY, BEFORE, AFTER) == nothing
    assert ahead.rest(KEY, BEFORE + "s", AFTER) is None


def test_only_the_last_ones_are_kept() -> None:
    ahead = kept()
    for number in range(64):
        ahead.keep(KEY, f"{number} = ", AFTER, KNOWN)
    assert ahead.rest(KEY, BEFORE, AFTER) is None


# -- in the server


def test_typing_what_is_suggested_asks_the_model_once(session: Session) -> None:
    client = session.ready()
    client.open(URI, TEXT)
    assert client.inline(URI, 1, 12)["insertText"] == "sum(y)"
    client.open(URI, TEXT.replace("total = ", "total = su"))
    item = client.inline(URI, 1, 14)
    assert item["insertText"] == "m(y)"
    assert len(session.engine.requests) == 1
    (argument,) = item["command"]["arguments"]
    case = client.command("flag", completionId=argument["completionId"], expected="max(y)")
    (found,) = session.service.store.cases()
    assert (found.id, found.rejected) == (case["caseId"], "m(y)")
    assert found.prefix.endswith("total = su")


def test_after_a_swap_the_model_is_asked_anew(session: Session) -> None:
    client = session.ready()
    client.open(URI, TEXT)
    client.inline(URI, 1, 12)
    session.service.history = (*session.service.history, session.model)
    client.inline(URI, 1, 12)
    assert len(session.engine.requests) == 2


def test_another_document_with_the_same_text_asks_the_model(session: Session) -> None:
    client = session.ready()
    for uri in (URI, OTHER):
        client.open(uri, TEXT)
        client.inline(uri, 1, 12)
    assert [request.document for request in session.engine.requests] == [URI, OTHER]


def test_what_follows_a_suggestion_is_ready_when_it_is_taken(session: Session) -> None:
    client = session.ready()
    client.open(URI, TEXT)
    client.inline(URI, 1, 12)
    client.until(lambda: len(session.engine.written) == 2, "looking ahead")
    assert session.engine.requests[1].prefix.endswith("total = sum(y)")
    client.open(URI, TEXT.replace("total = ", "total = sum(y)"))
    client.inline(URI, 1, 18)
    assert len([request for request in session.engine.requests if request.prefix.endswith("sum(y)")]) == 1


@pytest.mark.process
@pytest.mark.parametrize(("latency", "asked"), [("balanced", [64]), ("frugal", [24])])
def test_less_is_done_where_less_is_wanted(session: Session, latency: str, asked: list[int]) -> None:
    client = session.ready({"completion": {"latency": latency}})
    client.open(URI, TEXT)
    client.inline(URI, 1, 12)
    time.sleep(0.5)  # longer than it would take to begin
    assert [request.max_tokens for request in session.engine.requests] == asked


def test_what_a_slow_suggestion_lacks_is_there_when_its_first_line_is_taken(session: Session) -> None:
    session.engine.text, session.engine.slow = "sum(\n        y\n    )", True
    client = session.ready()
    client.open(URI, TEXT)
    assert client.inline(URI, 1, 12)["insertText"] == "sum("
    client.until(lambda: len(session.engine.written) == 2, "writing the rest")
    assert session.engine.requests[1].prefix == session.engine.requests[0].prefix
    client.open(URI, TEXT.replace("total = ", "total = sum("))
    assert client.inline(URI, 1, 16)["insertText"] == "\n        y\n    )"
    asked = [request for request in session.engine.requests if not request.ahead]
    assert len(asked) == 1


def test_a_slow_suggestion_is_flagged_as_it_was_shown_whatever_was_written_since(session: Session) -> None:
    session.engine.text, session.engine.slow = "sum(\n        y\n    )", True
    client = session.ready({"repair": {"schedule": "manual"}})
    client.open(URI, TEXT)
    item = client.inline(URI, 1, 12)
    client.until(lambda: len(session.engine.written) == 2, "writing the rest")
    with pytest.raises(Refused, match="is what was suggested"):
        client.flag(item, "sum(")
    case = client.case(client.flag(item, "max(y)"))
    assert (case["rejected"], case["expected"]) == ("sum(", "max(y)")


def test_all_of_a_slow_suggestion_is_waited_for_where_nothing_is_written_ahead(session: Session) -> None:
    session.engine.text, session.engine.slow = "sum(\n        y\n    )", True
    client = session.ready({"completion": {"latency": "balanced"}})
    client.open(URI, TEXT)
    assert client.inline(URI, 1, 12)["insertText"] == session.engine.text


def test_all_of_a_slow_suggestion_is_waited_for_where_its_first_line_alone_is_not_worth_showing(
    session: Session,
) -> None:
    session.engine.text, session.engine.slow = "def second(y):\n    total = sum(y)", True
    client = session.ready()
    client.open(URI, "def second(y):\n")
    assert client.inline(URI, 1, 0)["insertText"] == session.engine.text


def test_what_is_typed_of_a_line_that_was_shown_alone_keeps_the_rest_wanted() -> None:
    ahead = Ahead()
    ahead.keep(KEY, BEFORE, AFTER, Known("sum(", BEFORE, AFTER, "revision", cut=True))
    found = ahead.rest(KEY, BEFORE + "su", AFTER)
    assert found is not None
    assert found.cut


# -- reading ahead


def _cursor(client: Client, line: int, character: int) -> None:
    at = {"line": line, "character": character}
    params = {"textDocument": {"uri": URI}, "range": {"start": at, "end": at}, "context": {"diagnostics": []}}
    client.request("textDocument/codeAction", params)


@pytest.mark.process
def test_a_document_is_read_before_anything_is_asked_of_it(session: Session) -> None:
    client = session.ready()
    client.open(URI, TEXT)
    client.until(lambda: session.engine.reads, "reading")
    (read,) = session.engine.reads
    assert (read.prefix, read.suffix, read.document, read.ahead) == (TEXT, "", URI, True)
    assert not session.engine.requests


def test_what_stands_around_the_cursor_is_read_where_an_editor_tells_of_it(session: Session) -> None:
    client = session.ready()
    client.open(URI, TEXT)
    _cursor(client, 1, 12)
    _cursor(client, 0, 0)  # where it stands in a file that has just been opened
    client.until(lambda: session.engine.reads, "reading")
    (read,) = session.engine.reads
    assert (read.prefix, read.suffix) == ("def second(y):\n    total = ", "\n    return total\n")


def test_nothing_is_read_ahead_of_what_is_asked(session: Session) -> None:
    client = session.ready()
    client.open(URI, TEXT)
    client.inline(URI, 1, 12)
    client.until(lambda: len(session.engine.written) == 2, "looking ahead")
    assert not session.engine.reads


@pytest.mark.process
@pytest.mark.parametrize("settings", [{"latency": "balanced"}, {"exclude": ["**/a.py"]}, {"enabled": False}])
def test_nothing_is_read_ahead_where_that_is_not_wanted(
    session: Session, settings: dict[str, object]
) -> None:
    client = session.ready({"completion": settings})
    client.open(URI, TEXT)
    _cursor(client, 1, 12)
    time.sleep(0.5)  # longer than it would take to begin
    assert not session.engine.reads


@pytest.mark.process
def test_whoever_types_on_does_not_wait_for_what_nobody_has_asked_for(session: Session) -> None:
    client = session.ready()
    client.open(URI, TEXT)
    client.inline(URI, 1, 12)
    session.engine.writes.clear()
    client.until(lambda: len(session.engine.requests) == 2, "looking ahead")
    client.open(URI, TEXT.replace("total = ", "total = m"))
    answer = client.ask_inline(URI, 1, 13)
    client.until(lambda: session.engine.stopped, "the end of looking ahead")
    session.engine.writes.set()
    assert answer.get(20)["items"]
