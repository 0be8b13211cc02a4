"""A real server: what comes is broken, or large, or odd; and it goes on."""

import contextlib
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from tests import tiny
from tests.hostile import making
from tests.hostile.talk import wanted
from tests.server.client import Client, Server

pytestmark = pytest.mark.process

NOTHING = {"model": "no-such-model", "autoPull": False}
URI = "file:///work/a.py"
#: The tiny model has a token for every byte, and a context of 512.
SHORT = {"completion": {"prefixTokens": 256, "suffixTokens": 64}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "home", tmp_path / "log") as made:
        yield made


def framed(body: bytes, header: bytes = b"Content-Length: %d\r\n\r\n") -> bytes:
    return header % len(body) + body


def request(method: str, id_: object = 1, params: Any = None) -> bytes:
    return framed(json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode())


class Raw:
    """The two pipes of a server, as bytes."""

    def __init__(self, server: Server) -> None:
        self._process = server.process
        assert self._process.stdin is not None
        self._in = self._process.stdin

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._in.write(data)
            self._in.flush()


# -- messages


def test_a_thousand_messages_of_every_kind_leave_a_real_server_well(server: Server, tmp_path: Path) -> None:
    client = server.client
    tiny.folder(tmp_path / "home" / "models" / "tiny")  # without one, a setting would have one pulled
    client.initialize({"model": "tiny"} | SHORT)
    client.until_state("ready", seconds=60)
    process = psutil.Process(server.process.pid)
    chance, raw, grown, expected = Random(8), Raw(server), [], 0
    for _ in range(5):
        for _ in range(200):
            message = making.message(chance)
            expected += wanted(message)
            raw.send(framed(json.dumps(message).encode()))
        assert client.command("status", 60)["state"] in ("ready", "repairing")
        grown.append(process.memory_info().rss)
    client.until(lambda: len(client.unasked) == expected, f"{expected} answers")
    assert grown[-1] < grown[1] + (20 << 20)
    assert server.leave() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


# -- frames

has_reader = pytest.mark.skipif(
    importlib.util.find_spec("star_lsp.frame") is None,
    reason="pygls' own reader is in use: it believes any header",
)

BROKEN = {
    "no header": b"hello\r\n\r\n",
    "no length": b"Content-Type: x\r\n\r\n{}",
    "a length that is no number": b"Content-Length: many\r\n\r\n{}",
    "a negative length": b"Content-Length: -5\r\n\r\n{}",
    "an enormous length": b"Content-Length: 999999999999999\r\n\r\n{",
    "a length longer than a number": b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{",
    "a length of digits from elsewhere": "Content-Length: ٣\r\n\r\n{}".encode(),
    "a header without end": b"X" * 5_000_000,
    "headers without end": b"X-A: b\r\n" * 100_000,
    "bytes": bytes(range(256)) * 400,
    "zeros": bytes(1_000_000),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@has_reader
@pytest.mark.parametrize("what", BROKEN)
def test_a_frame_that_is_none_ends_the_talk_and_takes_no_memory(what: str, server: Server) -> None:
    server.client.initialize(NOTHING)
    server.client.until_state("failed")
    before = psutil.Process(server.process.pid).memory_info().rss
    Raw(server).send(BROKEN[what])
    assert server.process.stdin is not None
    end = time.monotonic() + 10
    while server.process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert psutil.Process(server.process.pid).memory_info().rss < before + (64 << 20)
        time.sleep(0.05)
        if what in ("zeros", "a header without end"):  # more may come, up to the end
            with contextlib.suppress(OSError):
                server.process.stdin.close()
    assert server.process.poll() is not None


@has_reader
@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"NaN", b"[" * 100_000, b"[]", b"5", b'{"id": 1}'])
def test_a_body_that_is_no_message_is_refused_and_the_talk_goes_on(body: bytes, tmp_path: Path) -> None:
    with Server(tmp_path / "home", tmp_path / "log") as made:
        made.client.initialize(NOTHING)
        made.client.until_state("failed")
        Raw(made).send(framed(body))
        (answer,) = made.client.until(lambda: made.client.unasked, "an answer", 10)
        assert answer["error"]["code"] in (-32700, -32600)
        assert made.client.command("status")["state"] == "failed"


def test_a_body_that_is_cut_off_by_the_end_ends_the_server(server: Server) -> None:
    server.client.initialize(NOTHING)
    Raw(server).send(b"Content-Length: 1000\r\n\r\n{")
    assert server.process.stdin is not None
    server.process.stdin.close()
    server.process.wait(10)


# -- documents, with a model


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("hostile") / "home"
    tiny.folder(home / "models" / "tiny")
    with Server(home, home.parent / "log") as made:
        made.client.initialize({"model": "tiny", "repair": {"schedule": "manual"}} | SHORT)
        made.client.until_state("ready", seconds=60)
        yield made


def answered(client: Client, server: Server, uri: str, line: int, character: int) -> Any:
    """The answer, within a second of a processor's time: others are at work on this machine, too."""
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    found = client.ask_inline(uri, line, character).get(30)
    assert sum(process.cpu_times()[:2]) - before < 1.0
    return found


TEXTS = {
    "5 MB in a line": "x" * 5_000_000,
    "5 MB of emoji in a line": "🎉x" * 1_250_000,
    "5 MB of CR": "\r" * 5_000_000,
    "50 MB of code": "total = [number for number in range(10)]\n" * 1_200_000,
    "NUL": "\x00" * 5_000,
    "lone surrogates": "x = '\ud83d'\n" * 500,
    "marks of prompts": "<|fim_prefix|><|fim_suffix|><|fim_middle|><|endoftext|>" * 200,
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_model_completes_in_documents_of_every_kind_within_a_second(what: str, ready: Server) -> None:
    text, client = TEXTS[what], ready.client
    uri = f"untitled:{what}"
    client.open(uri, text)
    client.command("status", 60)  # it is open now
    for line, character in ((0, 5), (10**6, 10**9), (0, 2**31 - 1)):
        place = {"line": line, "character": character}
        change = {"range": {"start": place, "end": place}, "text": "\ny = "}
        client.notify(
            "textDocument/didChange", {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [change]}
        )
        answered(client, ready, uri, line, character)
    client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    assert client.command("status")["state"] == "ready"


def test_documents_of_fifty_megabytes_that_were_closed_take_no_memory(ready: Server) -> None:
    process, client, sizes = psutil.Process(ready.process.pid), ready.client, []
    for number in range(6):
        client.open(URI, TEXTS["50 MB of code"] + str(number))
        client.command("status", 60)
        client.notify("textDocument/didClose", {"textDocument": {"uri": URI}})
        client.command("status", 60)
        sizes.append(process.memory_info().rss >> 20)
    assert sizes[-1] < sizes[1] + 60, sizes


def test_what_is_read_is_the_file_as_the_editor_has_it_though_it_is_gone_from_the_disk(
    ready: Server, tmp_path: Path
) -> None:
    path = tmp_path / "gone.py"
    path.write_text("x = 1\n")
    ready.client.open(path.as_uri(), "def f(x):\n    return ")
    path.unlink()
    assert "items" in answered(ready.client, ready, path.as_uri(), 1, 11)
