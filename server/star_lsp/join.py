"""``star-lsp --stdio``: to the server that runs, or to one that is started; bytes are handed on as they come.

Knows nothing of what they say, and imports next to nothing: a second editor costs a few megabytes.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from star_lsp import address
from star_lsp.errors import ListenError

if TYPE_CHECKING:
    import subprocess

__all__ = ["TAKEN", "connected", "hand_on", "join"]

#: The exit status of a server that found another one at work.
TAKEN = 3
#: A server that is asked to start must listen by then.
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_AGAIN_SECONDS = 0.5
_CONNECT_SECONDS = 5.0
_SETTLE_SECONDS = 0.2
_BYTES = 1 << 16


def join(place: Path, stdin: IO[bytes], stdout: IO[bytes]) -> int:
    """The exit status of a client's talk with the server whose folder this is, started when none runs.

    Raises:
        ListenError: there is no server, and none can be started.
    """
    line = _line(place)
    told = address.running(place)
    if told:
        _say(f"joined the server {told.pid}; its log is {told.log}")
    left = hand_on(line, stdin, stdout)
    if left or (told and _alive(place)):
        return 0
    _say("the server has ended; start again, and see `star-lsp logs`.")
    return 1


def connected(place: Path) -> socket.socket | None:
    """A connection to the server whose folder this is; None where none runs."""
    told = address.running(place)
    if not told or not told.addresses:
        return None
    try:
        line = address.parse(told.addresses[0]).connect(_CONNECT_SECONDS)
    except (OSError, ListenError):
        return None
    line.settimeout(None)
    line.sendall(_greeting(place, told))
    return line


def _greeting(place: Path, told: address.Running) -> bytes:
    """What goes before all else: a header of the first message, where a token is asked for."""
    if told.addresses[0].startswith("unix:"):
        return b""
    return f"Authorization: Bearer {address.token(place)}\r\n".encode()


def hand_on(line: socket.socket, stdin: IO[bytes], stdout: IO[bytes]) -> bool:
    """Hands on bytes both ways until the server's end closes; whether the client was gone before."""
    gone = threading.Event()

    def outwards() -> None:
        with contextlib.suppress(OSError, ValueError):
            while some := os.read(stdin.fileno(), _BYTES):
                line.sendall(some)
            gone.set()
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_WR)

    threading.Thread(target=outwards, daemon=True).start()
    with contextlib.suppress(OSError, ValueError):
        while some := line.recv(_BYTES):
            stdout.write(some)
            stdout.flush()
    left = gone.is_set()
    line.close()
    return left


def _say(what: str) -> None:
    sys.stderr.write(f"star-lsp: {what}\n")


def _alive(place: Path) -> bool:
    time.sleep(_SETTLE_SECONDS)  # of a process that is killed, one socket may close before another
    line = connected(place)
    if line is None:
        return False
    line.close()
    return True


def _line(place: Path) -> socket.socket:
    """A connection to the server, which is started when there is none; whoever comes first starts it."""
    if line := connected(place):
        return line
    import tempfile

    until = time.monotonic() + _START_SECONDS
    with tempfile.TemporaryFile() as errors:
        child: "subprocess.Popen[bytes] | None" = None
        begin = 0.0
        while time.monotonic() < until:
            if line := connected(place):
                return line
            if child is None:
                if time.monotonic() >= begin:
                    child = _start(errors)
            elif (status := child.poll()) is not None:
                if status != TAKEN:
                    errors.seek(0)
                    said = errors.read().decode("utf-8", "replace").strip()
                    last = said.splitlines()[-1] if said else f"it ended with status {status}"
                    raise ListenError(last.removeprefix("star-lsp: "))
                # Another one was faster, and will listen soon; should it die, we try again.
                child, begin = None, time.monotonic() + _AGAIN_SECONDS
            time.sleep(_LOOK_SECONDS)
    raise ListenError(
        f"No server has begun to listen within {_START_SECONDS:.0f} s; see `star-lsp logs`, or use "
        "`star-lsp --stdio --standalone`."
    )


def _start(errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    """A server in a process of its own, that stays when we go."""
    import subprocess

    # -P: it runs in folders of other people's code, which must not be imported from.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "star_lsp", "serve", "--background"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        cwd=Path.home() if Path.home().is_dir() else None,
        start_new_session=True,
    )
