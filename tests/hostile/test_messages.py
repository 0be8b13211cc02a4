"""Whatever a client sends: nothing ends or hangs the server, nothing grows, each request has one answer."""

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from star_lsp import body as body_
from star_lsp.body import Unreadable, parse
from star_lsp.engine import Request, Written
from tests.hostile import making
from tests.hostile.talk import Quick, Talk
from tests.server import actor

#: How many messages the long run says: STAR_LSP_LONG=1 pytest -s tests/hostile/test_messages.py
LONG = 100_000
QUICK = [300, pytest.param(2_000, marks=pytest.mark.process)]
URI = "file:///work/a.py"
TEXT = "def second(y):\n    total = \n    return total\n"
INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, NOT_BEGUN = -32600, -32601, -32602, -32002


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    """A connection on which nothing was said."""
    actor.hire(tmp_path, monkeypatch)
    made = Talk(tmp_path)
    actor.script(made.model, "solve")
    yield made
    made.end()


@pytest.fixture
def talk(new: Talk) -> Talk:
    """One with a document open."""
    new.begin()
    open_(new)
    return new


@pytest.fixture
def unlogged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is logged: pytest keeps it all."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)


def open_(talk: Talk, uri: str = URI, text: str = TEXT) -> None:
    document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
    talk.tell("textDocument/didOpen", {"textDocument": document})


def inline(talk: Talk, uri: str = URI, line: int = 1, character: int = 12) -> Any:
    answer = talk.ask("textDocument/inlineCompletion", place(uri, line, character))
    return answer.get("result", answer.get("error"))


def place(uri: str = URI, line: int = 1, character: int = 12) -> dict[str, Any]:
    position = {"line": line, "character": character}
    return {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": 1}}


def works(talk: Talk) -> bool:
    """The server does its work as if nothing had been."""
    open_(talk)
    talk.tell("workspace/didChangeConfiguration", {"settings": {"repair": {"schedule": "manual"}}})
    return bool(inline(talk)["items"])


def fuzz(talk: Talk, chance: Random, count: int) -> None:
    for _ in range(count):
        talk.say(making.message(chance))


def message(id_: Any, method: Any, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


# -- anything at all


@pytest.mark.parametrize("count", QUICK)
def test_whatever_is_sent_each_request_is_answered_and_the_server_goes_on(talk: Talk, count: int) -> None:
    fuzz(talk, Random(6), count)
    assert works(talk)


@settings(
    max_examples=settings.default.max_examples // 5,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(chance=st.randoms(use_true_random=False))
def test_the_shortest_conversation_that_does_harm_is_none(
    chance: Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    talk = Talk(tmp_path_factory.mktemp("talk"))
    try:
        talk.begin()
        fuzz(talk, chance, 10)
        assert works(talk)
    finally:
        talk.end()


def test_before_the_session_whatever_is_sent_is_refused_and_nothing_is_done(new: Talk) -> None:
    chance = Random(1)
    for _ in range(300):
        sent = making.message(chance)
        if not isinstance(sent, dict) or sent.get("method") != "initialize":
            assert all("error" in answer for answer in new.say(sent))
    new.begin()
    assert works(new)


@pytest.mark.skipif("STAR_LSP_LONG" not in os.environ, reason="minutes; STAR_LSP_LONG=1 runs it")
def test_of_100000_messages_none_ends_hangs_or_feeds_the_server(
    talk: Talk, unlogged: None, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int.from_bytes(os.urandom(4))
    chance, process, sizes = Random(seed), psutil.Process(), []
    for _ in range(10):
        fuzz(talk, chance, LONG // 10)
        gc.collect()
        sizes.append(process.memory_info().rss / 2**20)
    assert works(talk)
    found = f"slowest {talk.slowest * 1000:.0f} ms; MB after each tenth: {[round(size) for size in sizes]}"
    with capsys.disabled():
        sys.stdout.write(f"\n{LONG} messages of seed {seed}: {found}\n")
    assert sizes[-1] < sizes[4] * 1.05, found


@pytest.mark.process
def test_the_same_messages_again_take_no_more_memory(talk: Talk, unlogged: None) -> None:
    def round_() -> None:
        chance = Random(11)
        for number in range(300):
            change = {
                "range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 1}},
                "text": "d",
            }
            document = {"uri": URI, "version": number}
            talk.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})
            talk.say(making.message(chance))

    blocks = []
    for _ in range(6):
        round_()
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    # pygls by itself keeps some twenty of each notification: 24,000 here and more.
    assert blocks[-1] - blocks[1] < 6_000
    assert talk.protocol._request_futures == {}


# -- one answer, whatever the request


@pytest.mark.parametrize("id_", [None, True, [], {"a": 1}, [1]])
def test_a_request_whose_id_is_none_is_refused_without_one(talk: Talk, id_: Any) -> None:
    (answer,) = talk.say(message(id_, "textDocument/inlineCompletion", place()))
    assert (answer["id"], answer["error"]["code"]) == (None, INVALID_REQUEST)


@pytest.mark.parametrize("id_", [0, -1, 2**80, "", "x", "\ud800", 1.5, "x" * 100_000])
def test_an_id_comes_back_as_it_was_sent(talk: Talk, id_: Any) -> None:
    (answer,) = talk.say(message(id_, "textDocument/inlineCompletion", place()))
    assert type(answer["id"]) is type(id_)
    assert answer["result"]["items"]


@pytest.mark.process
@pytest.mark.parametrize(
    "whole",
    [[], [message(1, "shutdown")], "x", 5, None, True, {}, {"jsonrpc": "1.0", "id": 1, "method": "shutdown"},
              {"id": 1, "method": "shutdown"}, message(1, 5), {"jsonrpc": "2.0", "method": None}]
)  # fmt: skip
def test_what_is_no_message_is_refused_and_not_done(talk: Talk, whole: Any) -> None:
    (answer,) = talk.say(whole)
    assert answer["error"]["code"] == INVALID_REQUEST
    assert works(talk)


def test_before_initialize_all_else_is_refused_and_nothing_is_done(new: Talk) -> None:
    for method in ("textDocument/inlineCompletion", "workspace/executeCommand", "shutdown", "x"):
        (answer,) = new.say(message(1, method, place()))
        assert answer["error"]["code"] == NOT_BEGUN
    open_(new)
    assert list(new.protocol.documents) == []
    new.begin()
    assert works(new)


def test_after_shutdown_all_else_is_refused(talk: Talk) -> None:
    assert talk.ask("shutdown", None)["result"] is None
    for method in ("textDocument/inlineCompletion", "initialize", "shutdown"):
        (answer,) = talk.say(message(1, method, place()))
        assert answer["error"]["code"] == INVALID_REQUEST


def test_a_second_initialize_is_refused_and_the_documents_stay(talk: Talk) -> None:
    (answer,) = talk.say(message(1, "initialize", {"capabilities": {}}))
    assert answer["error"]["code"] == INVALID_REQUEST
    assert inline(talk)["items"]


def test_an_initialize_that_cannot_be_read_is_refused_and_a_better_one_taken(new: Talk) -> None:
    (answer,) = new.say(message(1, "initialize", {"capabilities": 5}))
    assert answer["error"]["code"] == INVALID_PARAMS
    new.begin(rootUri="http://[x", rootPath="//x", workspaceFolders=[{"uri": "//[", "name": ""}])
    assert works(new)


def test_a_notification_with_an_id_and_a_request_without_one_do_nothing(talk: Talk) -> None:
    (answer,) = talk.say(message(1, "textDocument/didClose", {"textDocument": {"uri": URI}}))
    assert answer["error"]["code"] == INVALID_REQUEST
    assert talk.say({"jsonrpc": "2.0", "method": "shutdown"}) == []
    assert inline(talk)["items"]


def test_what_looks_like_a_message_within_another_is_none(talk: Talk) -> None:
    hidden = message(7, "shutdown")
    talk.tell(
        "workspace/didChangeConfiguration", {"settings": {"x": hidden, "completion": {"languages": hidden}}}
    )
    (answer,) = talk.say(
        message(1, "workspace/executeCommand", {"command": "star.status", "arguments": [hidden]})
    )
    assert "result" in answer
    assert works(talk)


def test_a_method_that_is_none_is_refused_shortly_and_not_remembered(talk: Talk) -> None:
    for number in range(200):
        (answer,) = talk.say(message(number, f"x{number}" * 10_000, {"from": 1, "type_name": 5}))
        assert answer["error"]["code"] == NO_METHOD
        assert len(answer["error"]["message"]) < 200


# -- requests under way


class Slow(Quick):
    """Writes when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[asyncio.Future[Written], Request]] = []

    def complete(self, request: Request, cancelled: threading.Event) -> "asyncio.Future[Written]":
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((future, request))
        return future


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Talk]:
    made = Talk(tmp_path, engine=Slow())
    made.begin()
    open_(made)
    yield made
    made.end()


def test_an_answer_that_nobody_waits_for_ends_no_request_of_the_client(slow: Talk) -> None:
    request = message("r", "textDocument/inlineCompletion", place())
    slow.put(request)
    for answer in (
        {"result": None},
        {"error": {"code": 1, "message": "x"}},
        {"error": 5},
        {"result": {"items": []}},
    ):
        for id_ in ("r", 1, None, [], {}, 1.5):
            assert slow.say({"jsonrpc": "2.0", "id": id_, **answer}) == []
    (again,) = slow.say(request)
    assert again["error"]["code"] == INVALID_REQUEST
    assert "under way" in again["error"]["message"]
    for params in ({"id": 5}, {"id": []}, {"id": None}, {}, None, [], "r"):
        slow.tell("$/cancelRequest", params)
    assert "r" in slow.protocol._request_futures
    slow.put({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": "r"}})
    (cancelled,) = slow.said
    assert (cancelled["id"], cancelled["error"]["code"]) == ("r", -32800)
    assert slow.protocol._request_futures == {}


def test_what_is_asked_of_a_client_is_not_mixed_up_with_what_it_asks(slow: Talk) -> None:
    asked = slow.protocol.send_request("ours/one", {"items": []}, msg_id="ours")
    refused = slow.protocol.send_request("ours/two", {"items": []}, msg_id="theirs")
    slow.tell("$/cancelRequest", {"id": "ours"})
    slow.put(message("ours", "textDocument/inlineCompletion", place()))
    slow.put({"jsonrpc": "2.0", "id": "ours", "result": [{"a": 1}]})
    slow.put({"jsonrpc": "2.0", "id": "theirs", "error": {"code": 7, "message": "no"}})
    assert asked.result(0) == [{"a": 1}]
    assert refused.exception(0).code == 7
    assert set(slow.protocol._request_futures) == {"ours"}
    assert slow.protocol._result_types == {}


def test_what_nobody_waits_for_any_more_is_forgotten_though_the_client_never_answers(slow: Talk) -> None:
    for number in range(50):
        asked = slow.protocol.send_request("window/workDoneProgress/create", {"token": number})
        asked.cancel()
    assert slow.protocol._asked == slow.protocol._result_types == slow.protocol._request_futures == {}


# -- much at once


def test_much_of_what_means_nothing_is_refused_within_a_second_and_shortly(talk: Talk) -> None:
    many: dict[str, Any] = {f"name{number}": number for number in range(20_000)}
    for settings_ in (
        many,
        {"completion": many},
        {"x" * 1_000_000: 1},
        {"completion": {"exclude": ["a"] * 100_000}},
    ):
        talk.said.clear()
        talk.put(
            {
                "jsonrpc": "2.0",
                "method": "workspace/didChangeConfiguration",
                "params": {"settings": settings_},
            }
        )
        told = [each["params"]["message"] for each in talk.said if each.get("method") == "window/showMessage"]
        assert len(told) == 1
        assert len(told[0]) < 6_000
    (answer,) = talk.say(
        message(1, "workspace/executeCommand", {"command": "star.flag", "arguments": [many]})
    )
    assert answer["error"]["code"] == INVALID_PARAMS
    (answer,) = talk.say(
        message(1, "workspace/executeCommand", {"command": "star.flag", "arguments": "x" * 1_000_000})
    )
    assert answer["error"]["code"] == INVALID_PARAMS
    talk.tell(
        "textDocument/didChange",
        {"textDocument": {"uri": URI, "version": 2}, "contentChanges": "x" * 100_000},
    )
    diagnostic = {
        "range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}},
        "message": "m",
    }
    context = {"diagnostics": [diagnostic] * 50_000}
    actions = {"textDocument": {"uri": URI}, "range": diagnostic["range"], "context": context}
    assert "result" in talk.ask("textDocument/codeAction", actions)
    assert works(talk)


# -- bodies


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe{\x00}\x00", b"\xed\xa0\x80", b"{}{}", b"\x00", b"[" * 100_000,
    b'{"a":' * 100_000,
             b"NaN", b'{"jsonrpc":"2.0","id":Infinity}', b"1" * 5_000, b"-", b"'a'", b"\xef\xbb\xbf{}"]
)  # fmt: skip
def test_a_body_that_is_no_json_by_the_letter_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable, match="cannot be read as JSON"):
        parse(body)


@pytest.mark.parametrize("item", [b"{},", b"[],", b"0,", b'{"a":{}},', b'"",', b'"\\\\",'])
def test_a_body_of_countless_values_is_refused_before_it_takes_memory(
    item: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_, "_MOST_VALUES", 10_000)
    body = b'{"jsonrpc":"2.0","params":[' + item * 150_000 + b"0]}"
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="10000 values at most"):
            parse(body)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()


def test_a_document_of_megabytes_is_no_such_body_though_it_is_full_of_brackets() -> None:
    text = '{"a": [1, 2, "\\"\\\\"]},\n' * 200_000
    body = json.dumps({"text": text}).encode()
    assert parse(body) == {"text": text}
