"""The servers that run on this machine, and what they answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from star_lsp.address import Running, running
from star_lsp.errors import ListenError
from star_lsp.join import connected
from star_lsp.protocol import ABOUT

__all__ = ["about", "ask", "servers"]

_SECONDS = 10.0


def servers(data: Path) -> Iterator[tuple[Path, Running]]:
    """The folders of the servers on a store, of whatever version, and what each told of itself."""
    for place in sorted((data / "server").glob("*")):
        if told := running(place):
            yield place, told


def about(data: Path) -> list[dict[str, Any]]:
    """What each server that answers tells of itself, with its folder."""
    found = []
    for place, told in servers(data):
        try:
            if answer := ask(place, ABOUT):  # none from a server that died and left its word behind
                found.append(answer | {"folder": str(place)})
        except ListenError as error:
            found.append({"pid": told.pid, "version": told.version, "log": told.log, "error": str(error)})
    return found


def ask(place: Path, method: str) -> dict[str, Any]:
    """What the server with this folder answers; empty where none runs.

    Raises:
        ListenError: it does not answer.
    """
    line = connected(place)
    if line is None:
        return {}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}).encode()
    try:
        with line, line.makefile("rb") as answers:
            line.settimeout(_SECONDS)
            line.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            length = 0
            while (header := answers.readline()) not in (b"\r\n", b""):
                if header.lower().startswith(b"content-length:"):
                    length = int(header[15:])
            answer = json.loads(answers.read(length))
            result = answer["result"] or {}
            return dict(result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ListenError(
            f"The server with the folder {place} does not answer ({error}); "
            "end it by `star-lsp stop --force`."
        ) from error
