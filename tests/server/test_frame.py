"""What a client sends is cut into messages within limits, however it arrives."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from star_lsp.frame import Frame, FrameError, read


def frames(data: bytes, most: int = 1000) -> list[Frame]:
    """All frames in some bytes."""

    async def run() -> list[Frame]:
        reader = asyncio.StreamReader(limit=1 << 16)
        reader.feed_data(data)
        reader.feed_eof()
        found = []
        while (frame := await read(reader, most)) is not None:
            found.append(frame)
        return found

    return asyncio.run(run())


def framed(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_what_was_framed_is_read_as_it_was(bodies: list[bytes]) -> None:
    assert [each.body for each in frames(b"".join(map(framed, bodies)))] == bodies


def test_headers_are_known_by_their_names_in_any_case_and_line_ends_may_be_bare() -> None:
    (found,) = frames(b"AUTHORIZATION: Bearer  x y \ncontent-LENGTH:2\nContent-Type: utf8\n\n{}")
    assert found.headers == {"authorization": "Bearer  x y", "content-length": "2", "content-type": "utf8"}
    assert found.body == b"{}"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "is not LSP"),
        (b"\r\n\r\n", "no header Content-Length"),
        (b"Content-Type: x\r\n\r\n{}", "no header Content-Length"),
        (b"Content-Length: -5\r\n\r\n{}", "no header Content-Length"),
        (b"Content-Length: 1e3\r\n\r\n{}", "no header Content-Length"),
        (b"Content-Length: 99999999999999999999999\r\n\r\n{}", "no header Content-Length"),
        (b"Content-Length: 1001\r\n\r\n", "too large"),
        (b"x" * 200_000 + b"\r\n", "too long"),
        (b"A: b\r\n" * 17 + b"\r\n", "is not LSP"),
        (bytes(range(256)) + b"\n", "is not LSP"),
    ],
)
def test_what_is_no_frame_is_refused_with_a_word(data: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        frames(data)


@pytest.mark.parametrize(
    "data", [b"", b"Content-Le", b"Content-Length: 5\r\n\r\n{}", b"Content-Length: 5\r\n"]
)
def test_what_ends_within_a_frame_is_the_end(data: bytes) -> None:
    assert frames(data) == []


@given(st.binary(max_size=300))
def test_whatever_comes_is_frames_the_end_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        frames(data, 100)
