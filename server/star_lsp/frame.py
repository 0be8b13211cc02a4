"""Messages as they travel: headers, a blank line, a body; what is none, or too large, ends the talk."""

import asyncio
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Frame", "FrameError", "read"]

_HEADERS = 16
_HEADER = re.compile(rb"([!-9;-~]+):[ \t]*(.*?)[ \t]*\r?\n")


class FrameError(Exception):
    """What came is no message, and where the next one begins cannot be told."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message's body, and its headers by their names in small letters."""

    headers: Mapping[str, str]
    body: bytes


async def read(reader: asyncio.StreamReader, most_bytes: int) -> Frame | None:
    """The next frame; None at the end. No memory is taken for what is not there yet, or too large.

    Raises:
        FrameError: what came is no frame, or its body would have more than ``most_bytes``.
    """
    headers: dict[str, str] = {}
    for count in itertools.count():
        try:
            line = await reader.readline()
        except ValueError as error:  # longer than the reader's limit
            raise FrameError(
                "A header line is too long; Content-Length and a blank line are expected."
            ) from error
        if not line.endswith(b"\n"):  # the end, perhaps within a line
            return None
        if line in (b"\r\n", b"\n"):
            break
        found = _HEADER.fullmatch(line)
        if found is None or count == _HEADERS:
            raise FrameError("What came is not LSP: each message begins with a header Content-Length.")
        headers[found[1].decode("ascii").lower()] = found[2].decode("latin-1")
    length = headers.get("content-length", "")
    if not re.fullmatch("[0-9]{1,18}", length):
        raise FrameError("A message has no header Content-Length that is a number of bytes.")
    if int(length) > most_bytes:
        raise FrameError(f"A message of {length} bytes is too large; {most_bytes} are the most.")
    try:
        return Frame(headers, await reader.readexactly(int(length)))
    except asyncio.IncompleteReadError:
        return None
