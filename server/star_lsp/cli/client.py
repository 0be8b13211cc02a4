"""A client of a real server, over its standard input and output, as an editor is one."""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.io_ import run_async
from pygls.lsp.client import LanguageClient

from star_lsp import __version__
from star_lsp.errors import ServerError
from star_lsp.protocol import DID_CHANGE

__all__ = ["Client", "ServerDied"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_LEAVE_SECONDS = 5.0
_TAIL_LINES = 20


class ServerDied(ServerError):
    """The server ended by itself, or refused what it was asked."""


class Client:
    """One connection to a server of its own, which is gone when ``stop`` returns, or to a shared one."""

    def __init__(
        self,
        environment: Mapping[str, str],
        log_file: Path,
        settings: Mapping[str, object] | None = None,
        *,
        shared: bool = False,
    ) -> None:
        """Nothing is started before ``start``; what the server logs goes to ``log_file``.

        Without ``settings`` they are the default ones but for time, which is given: on a cold or busy machine
        a completion shall be late rather than cut short. When ``shared``, our process is the one that an
        editor starts, and joins the server of all editors; that one stays when we leave.
        """
        self._how = "--stdio" if shared else "--standalone"
        patient = {"completion": {"timeBudgetMilliseconds": 120_000, "latency": "balanced"}}
        self._settings = patient if settings is None else settings
        self._environment = environment
        self._log_file = log_file
        self._client = LanguageClient("star-lsp", __version__)
        self._server: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._leaving = threading.Event()
        self._changed = asyncio.Event()
        self._versions: dict[str, int] = {}
        #: Told the message and the percentage of work-done progress.
        self.on_progress: Callable[[str, int], None] = lambda message, percent: None
        #: Told what the server says to a person.
        self.on_message: Callable[[str], None] = lambda text: log.warning("the server says: %s", text)
        self._listen()

    @property
    def pid(self) -> int:
        """The process that we have started: the server, or what joins us to it."""
        assert self._server is not None
        return self._server.pid

    @property
    def gone(self) -> bool:
        """Whether that process has ended."""
        return self._server is None or self._server.returncode is not None

    async def start(self) -> None:
        """Start the server, and introduce ourselves as an editor with ghost text.

        Raises:
            ServerDied: it does not come up.
        """
        with self._log_file.open("wb") as errors:
            self._server = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "star_lsp", self._how,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C is for us, who then see the server out
            )  # fmt: skip
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        protocol = self._client.protocol
        protocol.set_writer(self._server.stdin)
        self._reading = asyncio.create_task(
            run_async(self._leaving, self._server.stdout, protocol, log, self._client.report_server_error)
        )
        capabilities = types.ClientCapabilities(
            window=types.WindowClientCapabilities(work_done_progress=True),
            text_document=types.TextDocumentClientCapabilities(
                inline_completion=types.InlineCompletionClientCapabilities()
            ),
        )
        params = types.InitializeParams(capabilities, initialization_options=self._settings)
        await self._answer(self._client.initialize_async(params))
        self._client.initialized(types.InitializedParams())

    async def stop(self) -> None:
        """See the server out; kill it when it does not go."""
        server = self._server
        if server is None:
            return
        try:
            if server.returncode is None:
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._client.shutdown_async(None)
                    self._client.exit(None)
                    await server.wait()
        except (TimeoutError, OSError, JsonRpcException):
            pass
        finally:
            self._leaving.set()
            if server.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    server.kill()
            await server.wait()
            if self._reading:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)

    async def command(self, name: str, **arguments: object) -> Any:
        """What a command of the server returns.

        Raises:
            ServerDied: the server refused, or is gone.
        """
        params = types.ExecuteCommandParams(name, [arguments])
        return await self._answer(self._client.workspace_execute_command_async(params))

    def open(self, uri: str, text: str) -> None:
        """Show the server a Python file."""
        self._versions[uri] = 1
        item = types.TextDocumentItem(uri, "python", 1, text)
        self._client.text_document_did_open(types.DidOpenTextDocumentParams(item))

    def insert(self, uri: str, line: int, character: int, text: str) -> None:
        """Tell the server what was typed at a place of an open file, and nothing else of the file."""
        self._versions[uri] += 1
        at = types.Position(line, character)
        change = types.TextDocumentContentChangePartial(types.Range(at, at), text)
        document = types.VersionedTextDocumentIdentifier(self._versions[uri], uri)
        self._client.text_document_did_change(types.DidChangeTextDocumentParams(document, [change]))

    def close(self, uri: str) -> None:
        """Tell the server that a file is no longer open."""
        del self._versions[uri]
        document = types.TextDocumentIdentifier(uri)
        self._client.text_document_did_close(types.DidCloseTextDocumentParams(document))

    async def rest(self, uri: str, line: int, character: int) -> None:
        """Tell that a cursor has come to rest, as editors do that show code actions wherever it is.

        Raises:
            ServerDied: the server refused, or is gone.
        """
        at, document = types.Position(line, character), types.TextDocumentIdentifier(uri)
        asked = types.CodeActionParams(document, types.Range(at, at), types.CodeActionContext([]))
        await self._answer(self._client.text_document_code_action_async(asked))

    async def complete(self, uri: str, line: int, character: int) -> tuple[str, str]:
        """The ghost text at a place, and its id for a flag; both empty when there is none.

        Whoever cancels this takes the request back from the server, and waits for no answer.

        Raises:
            ServerDied: the server refused, or is gone.
        """
        params = types.InlineCompletionParams(
            types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
            types.TextDocumentIdentifier(uri),
            types.Position(line, character),
        )
        number = str(uuid4())
        asked = self._client.protocol.send_request_async(
            types.TEXT_DOCUMENT_INLINE_COMPLETION, params, number
        )
        try:
            found = await self._answer(asyncio.shield(asked))
        except asyncio.CancelledError:
            # The answer, which will say that it was cancelled, still comes and must find its place.
            asked.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
            self._client.cancel_request(types.CancelParams(number))
            raise
        items = found.items if isinstance(found, types.InlineCompletionList) else found or []
        for item in items:
            assert item.command is not None
            arguments: Any = item.command.arguments
            return str(item.insert_text), arguments[0]["completionId"]
        return "", ""

    async def until(self, asked: Callable[[], Awaitable[T | None]]) -> T:
        """The first answer to a question that is asked again whenever the server says something changed.

        Raises:
            ServerDied: the server is gone.
        """
        while True:
            self._changed.clear()
            if (answer := await asked()) is not None:
                return answer
            await self._answer(self._changed.wait())

    # -- inside ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        def changed(_params: Any) -> None:
            self._changed.set()

        def create(_params: Any) -> None:
            return None

        def progress(params: types.ProgressParams) -> None:
            value: Any = params.value
            if value.get("message") and value["kind"] != "end":
                self.on_progress(value["message"], value.get("percentage") or 0)

        def message(params: types.ShowMessageParams) -> None:
            self.on_message(params.message)

        self._client.feature(DID_CHANGE)(changed)
        self._client.feature(types.WINDOW_WORK_DONE_PROGRESS_CREATE)(create)
        self._client.feature(types.PROGRESS)(progress)
        self._client.feature(types.WINDOW_SHOW_MESSAGE)(message)

    async def _answer(self, request: Awaitable[T]) -> T:
        """What is awaited, unless the server ends before."""
        assert self._server is not None
        asked = asyncio.ensure_future(request)
        died = asyncio.ensure_future(self._server.wait())
        try:
            await asyncio.wait({asked, died}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                return asked.result()
        except JsonRpcException as error:
            raise ServerDied(f"The server refused: {error.message}") from error
        finally:
            died.cancel()
            asked.cancel()
        raise ServerDied(
            f"The server ended with status {self._server.returncode}; it last said:\n{self._tail()}"
        )

    def _tail(self) -> str:
        lines = self._log_file.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  nothing"
