"""One client of a server: what it sends is read, what it is told is written, and neither without bounds."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from star_lsp import address, frame
from star_lsp.app import Session
from star_lsp.body import Unreadable, parse

__all__ = ["Connection"]

log = logging.getLogger(__name__)

#: The longest message of a client that is known: a file of that size is no source code.
_MOST_BYTES = 128 << 20
#: The longest message of one that is not.
_STRANGER_BYTES = 1 << 20
_STRANGER_SECONDS = 10.0
#: A client that does not read what it is told is let go.
_UNREAD_BYTES = 32 << 20
#: Messages a second that are read of one client, and how many may come at once.
_RATE, _BURST = 400.0, 800.0
#: Requests of one client that are under way before more is read from it.
_UNANSWERED = 128
_LOOK_SECONDS = 0.02

_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600


class Connection:
    """A session, spoken over a pair of streams."""

    def __init__(
        self,
        session: Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        word: str | None = None,
        control: Mapping[str, Callable[[], object]] | None = None,
    ) -> None:
        """Take over the streams; with a ``word``, nothing is done for a client that does not know it.

        ``control`` answers what is asked of the server and not of the session, by its method.
        """
        self.session = session
        self._reader = reader
        self._writer = writer
        self._word = word
        self._control = control or {}
        self._allowed = _BURST
        self._telling: set[asyncio.Future[None]] = set()
        session.protocol.set_writer(_Outlet(writer))

    async def serve(self) -> int:
        """Read and answer until the client leaves; its exit status: 1 when it did not take its leave."""
        try:
            if self._word is None or await asyncio.wait_for(self._introduced(self._word), _STRANGER_SECONDS):
                await self._listen()
        except frame.FrameError as error:
            self._refuse(_INVALID_REQUEST, str(error))
        except (TimeoutError, ConnectionError) as error:
            log.info("a client was let go: %s", error or "it did not say who it is")
        finally:
            self.session.leave()
            self._writer.close()
        return 0 if self.session.protocol.said_goodbye else 1

    def close(self) -> None:
        """End the talk."""
        self._writer.close()
        self._reader.feed_eof()

    async def _introduced(self, word: str) -> bool:
        """Whether the first message knows the word, in a header or among the options; then it is handled."""
        if (first := await frame.read(self._reader, _STRANGER_BYTES)) is None:
            return False
        kind, _, given = first.headers.get("authorization", "").partition(" ")
        try:
            message = parse(first.body)
        except Unreadable as error:
            raise frame.FrameError(str(error)) from error
        options = _options(message)
        told = options.pop("token", None) if isinstance(options, dict) else None
        if not (address.trusted(told, word) or (kind.lower() == "bearer" and address.trusted(given, word))):
            self._refuse(
                _INVALID_REQUEST,
                "This server asks for its token, as initializationOptions.token; `star-lsp status` says in "
                "which file it is.",
                message.get("id") if isinstance(message, Mapping) else None,
            )
            return False
        self._handle(message)
        return True

    async def _listen(self) -> None:
        clock = asyncio.get_running_loop().time
        last = clock()
        while not self.session.protocol.ended:
            found = await frame.read(self._reader, _MOST_BYTES)
            if found is None:
                return
            try:
                self._handle(parse(found.body))
            except Unreadable as error:
                self._refuse(_PARSE_ERROR, str(error))
            # Others come first now: where much is in the buffer, no read waits.
            await asyncio.sleep(0)
            now = clock()
            self._allowed = min(_BURST, self._allowed + (now - last) * _RATE) - 1
            last = now
            if self._allowed < 0:
                await asyncio.sleep(-self._allowed / _RATE)
            while self.session.protocol.unanswered > _UNANSWERED:
                await asyncio.sleep(_LOOK_SECONDS)

    def _handle(self, message: object) -> None:
        """Answer a message, whatever it is."""
        method = message.get("method") if isinstance(message, dict) else None
        if isinstance(message, dict) and isinstance(method, str) and method in self._control:
            self._control_told(message.get("id"), self._control[method]())
        else:
            self.session.protocol.handle_message(message)

    def _control_told(self, number: object, result: object) -> None:
        """Answer what is asked of the server: now, or once it is known."""
        if not isinstance(result, Awaitable):
            return self._send({"id": number, "result": result})

        async def later() -> None:
            self._send({"id": number, "result": await result})

        task = asyncio.ensure_future(later())
        self._telling.add(task)  # the loop does not hold it
        return task.add_done_callback(self._telling.discard)

    def _refuse(self, code: int, reason: str, number: object = None) -> None:
        if not isinstance(number, str | int):
            number = None
        self._send({"id": number, "error": {"code": code, "message": reason}})

    def _send(self, answer: Mapping[str, object]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **answer}).encode()
        if not self._writer.is_closing():
            self._writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


def _options(message: object) -> object:
    """The initialization options of a message, where it has any."""
    for name in ("params", "initializationOptions"):
        message = message.get(name) if isinstance(message, dict) else None
    return message


class _Outlet:
    """What pygls writes to."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._transport = writer.transport

    def write(self, data: bytes) -> None:
        """Send, or let a client go that has stopped reading."""
        if self._transport.is_closing():
            return
        self._writer.write(data)
        if self._transport.get_write_buffer_size() > _UNREAD_BYTES:
            log.warning("a client was let go, as it reads nothing of what it is told")
            self._transport.abort()

    def close(self) -> None:
        """Send what is left, and close."""
        self._writer.close()
