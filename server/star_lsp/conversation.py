"""The messages of one connection: whatever comes, each request gets one answer, and nothing piles up.

pygls reads and writes the types of the protocol, and has handlers for its lifecycle. What it does with
messages that are odd stands in its place here: it leaves requests without an answer that come too late,
have no version or cannot be read; keeps something of every notification for ever; takes the answer to
a question that it never asked for one of the client's own requests; shows tracebacks to people; and
counts lines and units in its own way.
"""

import asyncio
import contextvars
import logging
import math
import uuid
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from functools import cache, partial
from inspect import isgeneratorfunction
from typing import Any, cast

from cattrs import Converter
from lsprotocol import types
from lsprotocol.converters import get_converter
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInternalError,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcMethodNotFound,
    JsonRpcRequestCancelled,
    JsonRpcServerNotInitialized,
)
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, lsp_method

from star_lsp.documents import Document, Documents

__all__ = ["Conversation"]

log = logging.getLogger(__name__)

Steps = Generator[tuple[Callable[..., Any], tuple[Any, ...] | None, dict[str, Any] | None], Any, Any]

#: Of a name that a client made up, so much is repeated to it.
_REPEATED = 80
#: Of a refusal, so much is said: it may repeat what the client sent.
_LONGEST = 2000


@cache
def _messages() -> Converter:
    """Of the protocol's messages; the same for all clients, as it takes 0.1 s to make."""
    # With details, an error for each of a million wrong items is made before one is told.
    return get_converter(Converter(detailed_validation=False))


class Conversation(LanguageServerProtocol):
    """What reads the messages of one client, has them handled, and answers."""

    def __init__(self, server: LanguageServer, _converter: object) -> None:
        """Begin with nothing said; the converter of pygls is not used."""
        super().__init__(server, _messages())
        #: What is open; of the client's position encoding once it has said which.
        self.documents = Documents()
        #: Told of a document that was opened.
        self.on_open: Callable[[Document], None] = lambda document: None
        #: What the client was asked, by our own ids. pygls keeps it among the requests of the client.
        self._asked: dict[str | int, Future[Any]] = {}
        self._tasks: set[asyncio.Future[Any]] = set()

    # -- messages in ---------------------------------------------------------------------------------

    def structure_message(self, data: Any) -> Any:
        """``data`` as it is: pygls asks for every object within a message, of which none is one itself."""
        return data

    def handle_message(self, message: Any) -> None:
        """Do what a message says, as it was parsed; a request is answered, now or when it is done."""
        if not isinstance(message, dict) or message.get("jsonrpc") != self.VERSION:
            id_ = message.get("id") if isinstance(message, dict) else None
            return self._refuse(id_, JsonRpcInvalidRequest("A message is one JSON object with jsonrpc 2.0."))
        method, asked = message.get("method"), "id" in message
        if "method" not in message and asked:
            return self._hear(message)
        if not isinstance(method, str):
            return self._refuse(message.get("id"), JsonRpcInvalidRequest("The method must be a string."))
        # Each handler runs in a context of its own.
        contextvars.copy_context().run(self._request if asked else self._notification, method, message)
        return None

    def _request(self, method: str, message: dict[str, Any]) -> None:
        id_ = message["id"]
        if not _is_id(id_):
            wrong = "The id of a request must be a string or a number; send it again with one."
            return self._refuse(None, JsonRpcInvalidRequest(wrong))
        if id_ in self._request_futures:
            wrong = "A request with this id is under way; give each one an id of its own."
            return self._refuse(id_, JsonRpcInvalidRequest(wrong))
        self._ctx_msg_id.set(id_)
        try:
            self._expect(method)
            result = self._run(self._handler(method), (self._read(method, message),))
        except Exception as error:
            return self._refuse(id_, self._reason(method, error))
        if isinstance(result, asyncio.Future):
            self._request_futures[id_] = cast("Future[Any]", result)
            result.add_done_callback(partial(self._answer, id_, method))
            return None
        return self._reply(id_, method, result)

    def _notification(self, method: str, message: dict[str, Any]) -> None:
        if method == types.CANCEL_REQUEST:
            return self._cancel(message.get("params"))
        if method != types.EXIT and (self._shutdown or self._workspace is None):
            return log.info("%s was passed over: it came too early or too late", method[:_REPEATED])
        try:
            result = self._run(self._handler(method), (self._read(method, message),))
        except JsonRpcMethodNotFound:
            return log.info("%s was passed over: it is not known here", method[:_REPEATED])
        except Exception as error:
            return self._missed(method, error)
        if isinstance(result, asyncio.Future):
            result.add_done_callback(partial(self._ended, method))
        return None

    def _hear(self, message: dict[str, Any]) -> None:
        """The answer to something that the client was asked; others answer nothing."""
        id_ = message["id"]
        if not isinstance(id_, str) or (waiting := self._asked.pop(id_, None)) is None:
            return log.info("an answer was passed over: nothing was asked by that id")
        kind = self._result_types.pop(id_, None)
        if not waiting.set_running_or_notify_cancel():  # nobody waits any more
            return None
        try:
            if "error" in message:
                raise _refusal(message["error"])
            read = self._converter.structure(message, kind) if kind else None
            result = read.result if read is not None else message.get("result")
        except Exception as error:
            return waiting.set_exception(error)
        return waiting.set_result(result)

    def _cancel(self, params: object) -> None:
        id_ = params.get("id") if isinstance(params, Mapping) else None
        if _is_id(id_) and (waiting := self._request_futures.get(cast(str, id_))) is not None:
            waiting.cancel()

    # -- handlers ------------------------------------------------------------------------------------

    def _expect(self, method: str) -> None:
        """Do nothing, if a request may come now."""
        if self._shutdown:
            raise JsonRpcInvalidRequest("The session is over; start another one.")
        begun = self._workspace is not None
        if begun and method == types.INITIALIZE:
            raise JsonRpcInvalidRequest("The session has begun; initialize comes once.")
        if not begun and method != types.INITIALIZE:
            raise JsonRpcServerNotInitialized("The session has not begun; send initialize first.")

    def _handler(self, method: str) -> Callable[..., Any]:
        found = self.fm.builtin_features.get(method) or self.fm.features.get(method)
        if found is None:
            raise JsonRpcMethodNotFound(f"There is no method {method[:_REPEATED]} here.")
        return cast(Callable[..., Any], found)

    def _read(self, method: str, message: dict[str, Any]) -> Any:
        """The parameters of a method, in the protocol's own types."""
        kind, answer, *_ = types.METHOD_TO_TYPES[method]
        if (answer is None) == ("id" in message):
            raise JsonRpcInvalidRequest(f"{method} is sent {'without' if answer is None else 'with'} an id.")
        if method == types.TEXT_DOCUMENT_CODE_ACTION:
            message = _without_diagnostics(message)
        try:
            return self._converter.structure({"params": {}, **message}, kind).params
        except Exception as error:
            log.debug("%s cannot be read", method, exc_info=error)
            raise JsonRpcInvalidParams(f"The parameters of {method} cannot be read.") from error

    def _run(
        self,
        handler: Callable[..., Any],
        arguments: tuple[Any, ...] | None,
        named: dict[str, Any] | None = None,
    ) -> Any:
        """What a handler returns, or a future of it; one of pygls' own goes from step to step."""
        if asyncio.iscoroutinefunction(handler):
            return self._keep(asyncio.ensure_future(handler(*(arguments or ()), **(named or {}))))
        result = handler(*(arguments or ()), **(named or {}))
        return self._advance(result, None) if isgeneratorfunction(handler) else result

    def _advance(self, steps: Steps, value: Any) -> Any:
        try:
            while True:
                value = self._run(*steps.send(value))
                if isinstance(value, asyncio.Future):
                    return self._keep(asyncio.ensure_future(self._later(steps, value)))
        except StopIteration as end:
            return end.value

    async def _later(self, steps: Steps, waiting: "asyncio.Future[Any]") -> Any:
        # A command that is cancelled is answered at once, and done to its end.
        value = self._advance(steps, await asyncio.shield(waiting))
        return await value if isinstance(value, asyncio.Future) else value

    def _keep(self, task: "asyncio.Future[Any]") -> "asyncio.Future[Any]":
        """A task that nobody else may hold: the loop does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- messages out --------------------------------------------------------------------------------

    def send_request(
        self,
        method: str,
        params: Any | None = None,
        callback: Callable[[Any], None] | None = None,
        msg_id: str | int | None = None,
    ) -> "Future[Any]":
        """Ask the client; its answer is the future's result."""
        id_ = str(uuid.uuid4()) if msg_id is None else msg_id
        future = super().send_request(method, params, callback, id_)
        self._asked[id_] = self._request_futures.pop(id_)
        # Whoever gives up waiting leaves nothing behind.
        future.add_done_callback(lambda _: self._asked.pop(id_, None))
        future.add_done_callback(lambda _: self._forget(id_))  # who gave up waiting, too
        return future

    def _forget(self, id_: str | int) -> None:
        self._asked.pop(id_, None)
        self._result_types.pop(id_, None)

    def get_message_type(self, method: str) -> Any:  # type: ignore[override]
        """As pygls has it, but for its memory of whatever was asked for."""
        return types.METHOD_TO_TYPES.get(method, (None,))[0]

    def get_result_type(self, method: str) -> Any:  # type: ignore[override]
        """As pygls has it, but for its memory of whatever was asked for."""
        return types.METHOD_TO_TYPES.get(method, (None, None))[1]

    def _answer(self, id_: Any, method: str, done: "asyncio.Future[Any]") -> None:
        self._request_futures.pop(id_, None)
        if done.cancelled():
            self._refuse(id_, JsonRpcRequestCancelled(f"{method} was cancelled."))
        elif (error := done.exception()) is not None:
            self._refuse(id_, self._reason(method, error))
        else:
            self._reply(id_, method, done.result())

    def _reply(self, id_: Any, method: str, result: Any) -> None:
        kind = types.METHOD_TO_TYPES[method][1]
        assert kind is not None
        try:
            answer = self._converter.unstructure(kind(id=id_, result=result))
        except Exception as error:
            return self._refuse(id_, self._reason(method, error))
        self._send_data(answer)
        return None

    def _refuse(self, id_: object, error: JsonRpcException) -> None:
        answer = {"jsonrpc": self.VERSION, "id": id_ if _is_id(id_) else None}
        self._send_data({**answer, "error": {"code": error.code, "message": _short(str(error.message))}})

    def _reason(self, method: str, error: BaseException) -> JsonRpcException:
        """What a client is told; of what should not have happened no more than the log's reader needs."""
        if isinstance(error, JsonRpcException):
            return error
        log.error("%s failed: %s", method, type(error).__name__)
        log.debug("as follows", exc_info=error)
        return JsonRpcInternalError(f"{method} failed here ({type(error).__name__}); the log may say more.")

    def _ended(self, method: str, done: "asyncio.Future[Any]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._missed(method, error)

    def _missed(self, method: str, error: BaseException) -> None:
        log.warning("%s was passed over: %s", method, type(error).__name__)
        log.debug("as follows", exc_info=error)

    # -- documents -----------------------------------------------------------------------------------

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Generator[Any, Any, types.InitializeResult]:
        """Begin the session; nothing here is about the folders of a client, whose names may be odd."""
        params.root_uri, params.root_path = None, None
        result = yield from super().lsp_initialize(params)
        self.documents = Documents(str(result.capabilities.position_encoding or "utf-16"))
        return result

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Take a document."""
        self._open(params.text_document)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Edit a document, one change after another."""
        if (document := self.documents.get(params.text_document.uri)) is None:
            return log.info("a change was passed over: its document is not open")
        for change in params.content_changes:
            _edit(document, change)
        return None

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Forget a document."""
        self.documents.close([params.text_document.uri])

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_OPEN)
    def lsp_notebook_document__did_open(self, params: types.DidOpenNotebookDocumentParams) -> None:
        """Take the cells of a notebook; each is a document."""
        for cell in params.cell_text_documents:
            self._open(cell)

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_CHANGE)
    def lsp_notebook_document__did_change(self, params: types.DidChangeNotebookDocumentParams) -> None:
        """Take, edit and forget cells."""
        cells = params.change.cells
        for cell in (cells and cells.structure and cells.structure.did_open) or ():
            self._open(cell)
        self.documents.close(
            [cell.uri for cell in (cells and cells.structure and cells.structure.did_close) or ()]
        )
        for changed in (cells and cells.text_content) or ():
            if document := self.documents.get(changed.document.uri):
                for change in changed.changes:
                    _edit(document, change)

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_CLOSE)
    def lsp_notebook_document__did_close(self, params: types.DidCloseNotebookDocumentParams) -> None:
        """Forget the cells of a notebook."""
        self.documents.close([cell.uri for cell in params.cell_text_documents])

    def _open(self, item: types.TextDocumentItem) -> None:
        self.documents.open(item.uri, item.language_id, item.text)
        if document := self.documents.get(item.uri):
            self.on_open(document)


def _is_id(id_: object) -> bool:
    return type(id_) in (str, int) or (isinstance(id_, float) and math.isfinite(id_))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def _refusal(error: object) -> JsonRpcException:
    """What a client answered in place of a result, in whatever form."""
    told = error if isinstance(error, Mapping) else {}
    return JsonRpcException(str(told.get("message", "")), told.get("code"))


def _without_diagnostics(message: dict[str, Any]) -> dict[str, Any]:
    """A request for code actions without what it says of others' diagnostics, which may be thousands."""
    match message:
        case {"params": {"context": {"diagnostics": list()} as context} as params}:
            return {**message, "params": {**params, "context": {**context, "diagnostics": []}}}
    return message


def _edit(document: Document, change: types.TextDocumentContentChangeEvent) -> None:
    if isinstance(change, types.TextDocumentContentChangePartial):
        start, end = change.range.start, change.range.end
        document.edit((start.line, start.character), (end.line, end.character), change.text)
    else:
        document.rewrite(change.text)
