"""The process of a server: where it listens, its clients, and when it ends."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from star_lsp import __version__, join
from star_lsp.address import Address, Running, free, token
from star_lsp.app import build
from star_lsp.connection import Connection
from star_lsp.errors import ListenError
from star_lsp.protocol import ABOUT, STOP
from star_lsp.service import Service
from star_lsp.wire import unstructure

__all__ = ["Host", "alone"]

log = logging.getLogger(__name__)

#: The longest line of a header.
_LINE_BYTES = 1 << 16
#: Clients at one time: more are no editors.
_CLIENTS = 64
_LOOK_SECONDS = 0.5


class Host:
    """One service for all who connect."""

    def __init__(self, service: Service, place: Path, logged: str) -> None:
        """Nothing is open before ``serve``."""
        self._service = service
        self._place = place
        self._log = logged
        self._connections: dict[Connection, asyncio.Task[object]] = {}
        self._addresses: list[str] = []
        self._stop = asyncio.Event()
        self._kept = service.settings.keep_alive_seconds

    async def serve(
        self, addresses: Sequence[Address], stay: bool, ready: Callable[[list[str]], None]
    ) -> None:
        """Listen until told to stop, or until nobody has been connected for the time that was set.

        Raises:
            ListenError: an address cannot be used.
        """
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(each, self._stop.set)
        servers, files = [], []
        for rest in self._place.glob(".server.*"):  # of one that was killed: there is no other one now
            rest.unlink(missing_ok=True)
        try:
            for address in (free(self._place), *addresses):
                servers.append(await self._open(address))
                files += [Path(address.path)] if address.path else []
            Running(os.getpid(), __version__, tuple(self._addresses), self._log).write(self._place)
            ready(self._addresses)
            await self._until_idle(stay)
        finally:
            (self._place / "server.json").unlink(missing_ok=True)
            for server in servers:
                server.close()
            for path in files:
                path.unlink(missing_ok=True)
            for connection in self._connections:
                connection.close()
            if self._connections:
                await asyncio.wait(self._connections.values(), timeout=1)
            await self._service.end()

    async def _open(self, address: Address) -> asyncio.Server:
        """Listen at an address; over TCP only for those who know the token."""
        word = None if address.path else token(self._place)

        async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._attend(reader, writer, word)

        try:
            if not address.path:
                server = await asyncio.start_server(come, address.host, address.port, limit=_LINE_BYTES)
                address = Address(host=address.host, port=server.sockets[0].getsockname()[1])
            else:
                path = Path(address.path)
                part = path.with_name(f".{os.getpid()}")
                part.unlink(missing_ok=True)
                _free(path)
                # Nobody finds it before it is the user's alone, and listens.
                mask = os.umask(0o177)
                try:
                    server = await asyncio.start_unix_server(come, part, limit=_LINE_BYTES)
                finally:
                    os.umask(mask)
                part.replace(path)
        except (OSError, OverflowError) as error:
            raise ListenError(f"The address {address} cannot be used ({error}); name another one.") from error
        self._addresses.append(str(address))
        return server

    async def _attend(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: str | None
    ) -> None:
        if len(self._connections) >= _CLIENTS:
            log.warning("a client was turned away: %d are connected", _CLIENTS)
            writer.close()
            return
        session = build(self._service)
        control = {ABOUT: self._about, STOP: self._stop.set}
        connection = Connection(session, reader, writer, word, control)
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            await connection.serve()
        except Exception:
            log.exception("a connection ended")
        finally:
            del self._connections[connection]
            if session.greeted:
                self._kept = session.settings.keep_alive_seconds

    async def _about(self) -> dict[str, object]:
        sessions = [each.session for each in self._connections]
        return {
            "pid": os.getpid(),
            "version": __version__,
            "addresses": self._addresses,
            "log": self._log,
            "editors": [each.name for each in sessions if each.client in self._service.audiences],
            "status": unstructure(await self._service.status()),
        }

    async def _until_idle(self, stay: bool) -> None:
        clock = asyncio.get_running_loop().time
        last = clock()
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _LOOK_SECONDS)
            if stay or self._connections or self._service.busy:
                last = clock()
            elif clock() - last >= self._kept:
                log.info("nobody has been connected for %d s", self._kept)
                return


def alone(service: Service, stdin: IO[bytes], stdout: IO[bytes]) -> int:
    """The exit status of a talk with one client over two files, by a server that is there for it alone."""
    ours, theirs = socket.socketpair()
    done = threading.Event()

    def hand_on() -> None:
        join.hand_on(theirs, stdin, stdout)
        with contextlib.suppress(OSError):
            stdout.close()
        done.set()

    async def serve() -> int:
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES)
        try:
            return await Connection(build(service), reader, writer).serve()
        finally:
            await service.end()

    threading.Thread(target=hand_on, daemon=True).start()
    status = asyncio.run(serve())
    done.wait(1)  # what was said last is handed on
    return status


def _free(path: Path) -> None:
    """Make a path free of a socket whose server is gone.

    Raises:
        ListenError: something else is there, or somebody listens.
    """
    if not path.exists():
        return
    if not path.is_socket():
        raise ListenError(f"{path} is there and no socket; name another path.")
    try:
        Address(path=str(path)).connect(1).close()
    except OSError:
        path.unlink(missing_ok=True)
        return
    raise ListenError(f"Somebody listens at {path}; name another path.")
