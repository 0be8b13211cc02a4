"""Where a server can be reached, and what tells its clients of it. Imports nothing that takes time.

That is why values are no dataclasses here, and why what only some need is imported where they need it: with
each window of an editor a process begins that needs this module and little else.
"""

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

from star_lsp.errors import ListenError

__all__ = ["Address", "Running", "folder", "free", "parse", "running", "token", "trusted", "unwritable"]

#: What every system allows for the path of a Unix socket is a little more.
_LONGEST = 90
_UNWRITABLE = (
    "The folder {} cannot be written to ({}), where star-lsp keeps what you flag and its repairs. Set "
    "STAR_LSP_HOME to a folder of yours that can be (in your editor's environment), and STAR_LSP_MODELS to "
    "the folder where the models are, if they are to stay there."
)


class Address(NamedTuple):
    """A Unix socket's path, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """As ``--listen`` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"{host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it, whatever names mean elsewhere."""
        if self.path or self.host == "localhost":
            return True
        import ipaddress

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def connect(self, seconds: float) -> socket.socket:
        """A connection to who listens there.

        Raises:
            OSError: nobody does.
        """
        if not self.path:
            return socket.create_connection((self.host, self.port), seconds)
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(seconds)
        try:
            made.connect(self.path)
        except BaseException:
            made.close()
            raise
        return made


class Running(NamedTuple):
    """What a server tells of itself in a file that only its user can read."""

    pid: int
    version: str
    #: The first one is for the clients of this machine.
    addresses: tuple[str, ...]
    log: str

    def write(self, folder: Path) -> None:
        """Write it, all of it or nothing."""
        part = folder / f".server.{self.pid}"
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self._asdict(), file)
        part.replace(folder / "server.json")


def parse(text: str) -> Address:
    """The address that ``HOST:PORT`` or ``unix:PATH`` names.

    Raises:
        ListenError: it names none.
    """
    if text.startswith("unix:") and len(text) > 5:
        path = Path(text[5:]).expanduser().absolute()
        if len(os.fsencode(path)) > _LONGEST:
            raise ListenError(
                f"The path {path} is too long for a Unix socket; name one below {_LONGEST} bytes."
            )
        return Address(path=str(path))
    host, colon, port = text.rpartition(":")
    if colon and host and port.isascii() and port.isdigit() and int(port) < 2**16:
        return Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))
    raise ListenError(f"{text!r} is no address; write 127.0.0.1:PORT, or unix:PATH.")


def folder(data: Path, version: str) -> Path:
    """Where the server of one version on one store keeps what concerns its own process alone.

    Raises:
        ListenError: it is not there and cannot be made.
    """
    made = data / "server" / version
    try:
        for each in (made.parent, made):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(data, error) from error
    return made


def unwritable(data: Path, error: OSError) -> ListenError:
    """What to say of a data folder in which a server cannot keep what it must."""
    return ListenError(_UNWRITABLE.format(data, error.strerror))


def free(place: Path) -> Address:
    """Where a server with this folder listens for the clients of this machine.

    Raises:
        ListenError: there is no folder for a short path, or it is somebody else's.
    """
    if not hasattr(socket, "AF_UNIX"):
        return Address(host="127.0.0.1")
    path = place / "socket"
    if not _fits(path):
        path = _short(place) / "socket"
    return Address(path=str(path))


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _LONGEST


def _short(place: Path) -> Path:
    """A folder of the user's own with a short path, made if need be; the same one for the same ``place``."""
    import hashlib
    import tempfile

    name = f"star-lsp-{os.getuid()}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}"
    # Where temporary files are to go by the environment may be as deep as the folder itself.
    for parent in map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")):
        short = parent / name
        if not _fits(short / "socket"):
            continue
        with contextlib.suppress(OSError):
            short.mkdir(mode=0o700, exist_ok=True)
            about = short.lstat()
            if short.is_symlink() or about.st_uid != os.getuid() or about.st_mode & 0o077:
                raise ListenError(
                    f"The folder {short} is not yours alone; remove it, or set STAR_LSP_HOME to a shorter "
                    "path."
                )
            return short
    raise ListenError(
        f"The path {place / 'socket'} is too long for a Unix socket, and no shorter one can be had; "
        f"set STAR_LSP_HOME or TMPDIR to a folder of yours with a path of {_LONGEST - 50} bytes or less."
    )


def running(place: Path) -> Running | None:
    """What the server with this folder last told of itself; it may have died since."""
    try:
        told = json.loads((place / "server.json").read_text("utf-8"))
        return Running(
            int(told["pid"]), str(told["version"]), tuple(map(str, told["addresses"])), str(told["log"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def token(place: Path) -> str:
    """The word that clients over TCP must know; made when there is none, for the user's eyes only."""
    path = place / "token"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if found := path.read_text("ascii").strip():
            return found
        path.unlink()  # its maker died before a word was in it
        return token(place)
    import secrets

    with os.fdopen(descriptor, "w") as file:
        file.write(made := secrets.token_urlsafe(32))
    return made


def trusted(given: object, expected: str) -> bool:
    """Whether a client gave the right word, told in the same time whatever it gave."""
    import hmac

    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
