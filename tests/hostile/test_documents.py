"""Documents of every kind and size: edited as the client edits them, and no key waits for their size."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from star_lsp import documents
from star_lsp.documents import Document, Documents
from star_lsp.feedback import derive
from star_lsp.prompt import Limits, as_read, window
from star_lsp.shown import Shown
from tests.hostile.talk import Talk

# -- what an edit makes

ODD = st.text(st.sampled_from("ab\n\r🎉é\ud83d\udc00\x0c\u2028\x85\x00\t"), max_size=40)
AT = st.tuples(st.integers(0, 8), st.integers(0, 20))


def offset(text: str, place: tuple[int, int], encoding: str) -> int:
    """Where a place is, found one character after another."""
    starts = [0, *(found.end() for found in re.finditer("\r\n|\r|\n", text))]
    if place[0] >= len(starts):
        return len(text)
    at, units = starts[place[0]], 0
    while at < len(text) and text[at] not in "\r\n":
        codec, width = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}[
            encoding
        ]
        units += len(text[at].encode(codec, "surrogatepass")) // width
        if units > place[1]:
            break
        at += 1
    return at


@settings(deadline=None, max_examples=3 * settings.default.max_examples)
@given(
    text=ODD,
    edits=st.lists(st.tuples(AT, AT, ODD), max_size=5),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-32"]),
    piece=st.sampled_from([3, 7, 16_384]),
)
def test_an_edit_at_any_place_does_what_the_protocol_says(
    text: str, edits: list[tuple[tuple[int, int], tuple[int, int], str]], encoding: str, piece: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_PIECE", piece)
        document = Document("u", "python", text, encoding)
        for start, end, new in edits:
            first, last = sorted((offset(text, start, encoding), offset(text, end, encoding)))
            document.edit(start, end, new)
            text = text[:first] + new + text[last:]
            assert document.text == text
            before, after = document.around(start)
            assert (before + after, len(before)) == (text, offset(text, start, encoding))
        document.rewrite("x")
        assert document.text == "x"


def test_only_lf_crlf_and_cr_end_a_line() -> None:
    document = Document("u", "python", "a\x0cb\u2028c\x85d\x1ce\rf\r\ng\nh")
    for line, text in enumerate(["a\x0cb\u2028c\x85d\x1ce", "f", "g", "h"]):
        document.edit((line, 10**6), (line, 10**6), ";")
        assert text + ";" in document.text


def test_a_uri_is_the_same_with_its_escapes_and_another_with_other_ones() -> None:
    open_ = Documents()
    open_.open("file:///c%3A/a%20b.py", "python", "one")
    open_.open("file:///%ff.py", "python", "two")
    open_.open("file:///%fe.py", "python", "three")
    for uri, text in (("file:///c:/a b.py", "one"), ("file:///%FF.py", "two"), ("file:///%fe.py", "three")):
        document = open_.get(uri)
        assert document is not None
        assert document.text == text
    open_.open("x" * 100_000, "python", "")
    assert open_.get("x" * 100_000) is None


# -- what it costs

MEGA = 1_000_000
LARGE = {
    "5 MB in a line": "x" * 5 * MEGA,
    "5 MB of words in a line": "word " * MEGA,
    "5 MB of emoji in a line": "🎉x" * 1_250_000,
    "5 MB of NUL": "\x00" * 5 * MEGA,
    "5 MB of lone surrogates": "\ud83d" * 1_600_000,
    "5 MB of CR": "\r" * 5 * MEGA,
    "5 MB of CR and LF at the end": "\r" * 5 * MEGA + "\n",
    "5 MB of LF": "\n" * 5 * MEGA,
    "50 MB of code": "total = [number for number in range(10)]\n" * 1_200_000,
}


#: Those that the quick run of all tests takes; the others are for the longer one.
SOON = ("5 MB in a line", "5 MB of CR")


@pytest.fixture(
    params=[name if name in SOON else pytest.param(name, marks=pytest.mark.process) for name in LARGE]
)
def large(request: pytest.FixtureRequest) -> str:
    return LARGE[request.param]


def cpu(work: Callable[[], Any]) -> float:
    """The least seconds that work takes of three times: what it costs, whoever else is at work here."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_a_key_typed_in_a_large_document_costs_milliseconds(large: str, encoding: str) -> None:
    document = Document("u", "python", large, encoding)
    lines = documents.breaks_in(large)
    for place in ((0, 5), (lines // 2, len(large) // 2), (lines, 10**9), (10**9, 0)):

        def key(place: tuple[int, int] = place) -> None:
            document.edit(place, place, "a")
            window(*document.around(place), Limits())
            document.word(place)

        assert cpu(key) < 0.1
    assert len(document.text) == len(large) + 12


def test_a_line_of_megabytes_is_made_a_prompt_of_by_its_end_alone(large: str) -> None:
    most = Limits(16_384, 8_192)
    middle = len(large) // 2
    assert cpu(lambda: window(large[:middle], large[middle:], most)) < 0.2


def test_line_breaks_without_end_are_read_in_one_go() -> None:
    for text in ("\r" * 200_000, "\r" * 200_000 + "\n", "\r\n" * 100_000, "\r\r\n" * 60_000):
        assert cpu(lambda text=text: as_read(text)) < 0.2


def test_what_stands_at_a_place_is_found_in_a_document_of_megabytes() -> None:
    above = "".join(f"number_{line} = {line}\n" for line in range(600_000))
    below = above.replace("number", "other")
    here = "total = "
    shown = Shown(
        "s", "u", 600_000, 8, "python", above[-4_000:] + here, "\n" + below[:500], "sum(y)", "m", "r"
    )
    document = above + here + "max(y)\n" + below
    assert derive(shown, document) == "max(y)"
    assert cpu(lambda: derive(shown, document)) < 0.5


# -- over the wire


@pytest.fixture
def talk(tmp_path: Any) -> Any:
    made = Talk(tmp_path)
    made.begin()
    yield made
    made.end()


def open_in(talk: Talk, uri: str, text: str) -> None:
    document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
    talk.tell("textDocument/didOpen", {"textDocument": document})


def change(talk: Talk, uri: str, version: int, *changes: Any) -> None:
    talk.tell(
        "textDocument/didChange",
        {"textDocument": {"uri": uri, "version": version}, "contentChanges": list(changes)},
    )


def at(line: int, start: int, end_line: int, end: int, text: str) -> dict[str, Any]:
    places = {"start": {"line": line, "character": start}, "end": {"line": end_line, "character": end}}
    return {"range": places, "text": text}


def complete(talk: Talk, uri: str, line: int, character: int, method: str = "inlineCompletion") -> Any:
    params = {"textDocument": {"uri": uri}, "position": {"line": line, "character": character}}
    return talk.ask(f"textDocument/{method}", {**params, "context": {"triggerKind": 1}})


def text_of(talk: Talk, uri: str) -> str:
    return str(talk.protocol.documents.get(uri).text)


@pytest.mark.parametrize("method", ["inlineCompletion", "completion"])
def test_each_request_in_a_large_document_is_answered_within_a_second(
    talk: Talk, large: str, method: str
) -> None:
    uri = "file:///work/large.py"
    open_in(talk, uri, large)
    lines = documents.breaks_in(large)
    for number, line in enumerate((0, lines // 2, lines)):
        change(talk, uri, number, at(line, 3, line, 3, "x = "))
        assert "result" in complete(talk, uri, line, 7, method)
        place = {"line": line, "character": 7}
        actions = {
            "textDocument": {"uri": uri},
            "range": {"start": place, "end": place},
            "context": {"diagnostics": []},
        }
        assert "result" in talk.ask("textDocument/codeAction", actions)


def test_edits_out_of_range_or_order_end_as_the_client_has_it_once_it_sends_all(talk: Talk) -> None:
    uri = "untitled:Untitled-1"
    open_in(talk, uri, "one\ntwo\n")
    change(talk, uri, 9, at(5, 0, 9, 9, "three"), at(0, 3, 0, 1, "N"), at(2**31 - 1, 0, 0, 2**31 - 1, ""))
    change(talk, uri, 3, at(0, 0, 0, 0, "x"))
    change(talk, uri, 3)
    change(talk, "file:///never/opened.py", 1, at(0, 0, 0, 0, "x"))
    assert "result" in complete(talk, uri, 0, 0)
    change(talk, uri, 10, {"text": "alpha\nbeta\n"}, at(1, 4, 1, 4, "!"))
    assert text_of(talk, uri) == "alpha\nbeta!\n"


def test_a_burst_as_helix_sends_it_is_applied_in_the_order_in_which_it_comes(talk: Talk) -> None:
    uri = "file:///work/a.py"
    open_in(talk, uri, "")
    for version, letter in enumerate("import os"):
        change(talk, uri, version, at(0, version, 0, version, letter))
    change(talk, uri, 100, *(at(0, 9 + step, 0, 9 + step, letter) for step, letter in enumerate(", sys")))
    assert text_of(talk, uri) == "import os, sys"


def test_cells_of_a_notebook_are_documents_however_they_are_told(talk: Talk) -> None:
    book, cells = (
        "file:///work/n.ipynb",
        [f"vscode-notebook-cell:/work/n.ipynb#W{number}" for number in range(3)],
    )

    def cell(uri: str) -> dict[str, Any]:
        return {"uri": uri, "languageId": "python", "version": 1, "text": "total = \n"}

    notebook = {"uri": book, "notebookType": "jupyter-notebook", "version": 1, "cells": []}
    talk.tell(
        "notebookDocument/didOpen", {"notebookDocument": notebook, "cellTextDocuments": [cell(cells[0])]}
    )
    structure = {
        "array": {"start": 9, "deleteCount": 9},
        "didOpen": [cell(cells[1])],
        "didClose": [{"uri": cells[2]}],
    }
    text = [{"document": {"uri": cells[0], "version": 2}, "changes": [at(0, 8, 0, 8, "sum(")]}]
    cell_changes = {"cells": {"structure": structure, "textContent": text}}
    for uri in (book, "file:///never/opened.ipynb"):
        talk.tell(
            "notebookDocument/didChange",
            {"notebookDocument": {"uri": uri, "version": 2}, "change": cell_changes},
        )
    assert text_of(talk, cells[1]) == "total = \n"
    assert complete(talk, cells[1], 0, 8)["result"]["items"]
    closing = {"notebookDocument": {"uri": book}, "cellTextDocuments": [{"uri": uri} for uri in cells]}
    talk.tell("notebookDocument/didClose", closing)
    assert list(talk.protocol.documents) == []


@pytest.mark.process
@pytest.mark.parametrize(
    "uri",
    ["http://[::1/x.py", "file://[x/a.py", "a.py", "", ":", "file:", "file:///%00.py", "file:///%ff%fe.py",
    "file:///\ud800.py",
     "C:\\work\\a.py", "zipfile:///a.zip::x.py", "data:text/plain,x", "file:///work/../../a.py",
     "//host/share/a.py",
     "file:///" + "a/" * 5_000 + "b.py", "vscode-vfs://github/owner/repo/a.py",
     "jdt://contents/a.class?=x/%5C/y"],
)  # fmt: skip
def test_a_document_of_an_odd_uri_is_completed_in_and_flagged(talk: Talk, uri: str) -> None:
    open_in(talk, uri, "def f(y):\n    total = \n")
    (item,) = complete(talk, uri, 1, 12)["result"]["items"]
    argument = {**item["command"]["arguments"][0], "expected": "max(y)", "note": "\ud800\x00"}
    flagged = talk.ask("workspace/executeCommand", {"command": "star.flag", "arguments": [argument]})
    assert flagged["result"]["status"] == "pending"
    (why,) = talk.ask("workspace/executeCommand", {"command": "star.listCases", "arguments": []})["result"]
    assert why["expected"] == "max(y)"


@pytest.mark.process
@pytest.mark.parametrize(
    "uri",
    ["file:///work/.env", "file:///work/x/../.env", "file:///work/a%2f..%2f.env", "file:///work/%2Eenv",
    "file:///c#/work/.env",
     "file:///what?/.ssh/config", "file://[x/.env", "git:/work/.env?%7B%22ref%22%3A%22%22%7D", ".env",
     "C:\\work\\.env", "untitled:.env"],
)  # fmt: skip
def test_a_secret_stays_one_whatever_its_uri_looks_like(talk: Talk, uri: str) -> None:
    open_in(talk, uri, "KEY = \n")
    assert complete(talk, uri, 0, 6)["result"] == {"items": []}
    (why,) = talk.ask("workspace/executeCommand", {"command": "star.why", "arguments": []})["result"]
    assert "excluded" in why["reason"]


def test_what_is_excluded_by_a_path_is_so_by_a_way_round(talk: Talk) -> None:
    talk.tell(
        "workspace/didChangeConfiguration", {"settings": {"completion": {"exclude": ["/work/private/**"]}}}
    )
    for uri in (
        "file:///work/private/a.py",
        "file:///work/x/../private/a.py",
        "file:///work/./private//a.py",
    ):
        open_in(talk, uri, "x = \n")
        assert complete(talk, uri, 0, 4)["result"] == {"items": []}
