"""Builds the language server of one connection: handlers, settings, and errors → LSP errors, once."""

import asyncio
import functools
import logging
import re
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import unquote

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.protocol import lsp_method

from star.errors import StarError
from star_lsp import __version__, feedback, protocol
from star_lsp.commands import Command, commands
from star_lsp.completion import Completions, Place
from star_lsp.conversation import Conversation
from star_lsp.documents import Document
from star_lsp.errors import FlagError, NotFound, ParameterError, ServerError
from star_lsp.protocol import Changed
from star_lsp.service import Audience, Service
from star_lsp.settings import Settings, read
from star_lsp.shown import Shown
from star_lsp.store import Case
from star_lsp.wire import unstructure
from star_lsp.work import WorkDone

__all__ = ["Session", "build"]

log = logging.getLogger(__name__)
T = TypeVar("T")

#: LSP's own code for "the request is fine, and could not be done".
_REQUEST_FAILED = -32803
#: Of a uri that is repeated to its client; a long one is a mistake.
_SHOWN_URI = 500
#: So much of a document is read as soon as it is open.
_TOP_LINES = 40


class Protocol(Conversation):
    """Offers `textDocument/completion` only to clients that have no inline completion.

    It also ends a connection where pygls ends the process.
    """

    #: The client has asked to end.
    said_goodbye = False
    #: It is to end now.
    ended = False

    @property
    def unanswered(self) -> int:
        """How many requests of the client are under way."""
        return len(self._request_futures)

    def drop(self) -> None:
        """Cancel what is under way for the client."""
        for future in list(self._request_futures.values()):
            future.cancel()

    @lsp_method(types.EXIT)
    def lsp_exit(self, *_args: object) -> None:  # type: ignore[override]
        self.said_goodbye, self.ended = self._shutdown, True

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Generator[Any, Any, types.InitializeResult]:
        result = yield from super().lsp_initialize(params)
        document = params.capabilities.text_document
        if document and document.inline_completion:
            result.capabilities.completion_provider = None
        return result


class _Client(Audience):
    """What one connection is told."""

    def __init__(self, server: LanguageServer, service: Service) -> None:
        self._server = server
        self._service = service
        self.work = WorkDone(server, self._cancel)

    def changed(self, what: Sequence[Changed]) -> None:
        about = protocol.DidChangeParams(list(what), self._service.state, self._service.revision)
        self._server.protocol.notify(protocol.DID_CHANGE, unstructure(about))

    def working(self, key: str, title: str, message: str, percent: int, cancellable: bool) -> None:
        self.work.report(key, title, message, percent, cancellable)

    def ended(self, key: str, message: str) -> None:
        self.work.end(key, message)

    def warn(self, message: str) -> None:
        self._server.window_show_message(
            types.ShowMessageParams(type=types.MessageType.Warning, message=message)
        )

    def _cancel(self, key: str) -> None:
        if key == "pull":
            self._service.cancel_pull()
        else:
            self._service.repairs.cancel(repair=key)


class Session:
    """One connection: what its client has set, and what is shown to it."""

    def __init__(self, service: Service) -> None:
        """Build its language server."""
        self.server = LanguageServer("star-lsp", __version__, protocol_cls=Protocol)
        self.settings = Settings()
        #: How its client names itself.
        self.name = "unnamed"
        #: Whether it has become one that is told what happens.
        self.greeted = False
        self._service = service
        self.client = _Client(self.server, service)
        self.completions = Completions(
            service.engine,
            lambda: service.model,
            lambda: service.history,
            service.suspended,
            lambda: service.state == "ready",
            str(id(self)),
        )

    @property
    def protocol(self) -> Protocol:
        """What reads and writes its messages."""
        return cast(Protocol, self.server.protocol)

    def leave(self) -> None:
        """The client is gone: nothing is told to it, nothing is written for it."""
        if self.client in self._service.audiences:
            self._service.audiences.remove(self.client)
        self.completions.end()
        self.protocol.drop()


def build(service: Service) -> Session:
    """The language server of one connection to a service."""
    session = Session(service)
    _lifecycle(session, service)
    _completing(session, service)
    _commands(session, service)
    return session


def _lifecycle(session: Session, service: Service) -> None:
    server, client = session.server, session.client
    problems: list[str] = []

    def use(raw: object) -> None:
        session.settings, wrong = read(raw)
        problems.extend(problem.message for problem in wrong)
        if word := service.configure(session.settings):
            problems.append(word)

    def warn() -> None:
        if problems:
            client.warn("\n".join(problems))
            problems.clear()

    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        if params.client_info:
            session.name = f"{params.client_info.name} {params.client_info.version or ''}".strip()[:80]
        use(params.initialization_options)

    @server.feature(types.INITIALIZED)
    async def initialized(_params: types.InitializedParams) -> None:
        session.greeted = True
        service.audiences.append(client)
        warn()
        service.start()

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    def configured(params: types.DidChangeConfigurationParams) -> None:
        if params.settings:  # some clients announce with nothing that they have nothing to say
            use(params.settings)
            warn()

    @server.feature(types.WINDOW_WORK_DONE_PROGRESS_CANCEL)
    def cancelled(params: types.WorkDoneProgressCancelParams) -> None:
        client.work.cancelled(params.token)

    @server.feature(types.SHUTDOWN)
    def shutdown(*_args: object) -> None:
        session.leave()


def _completing(session: Session, service: Service) -> None:
    server, completions = session.server, session.completions

    def opened(document: Document) -> None:
        # Where it will be completed is not known; whatever comes first will stand in the prompt.
        top, _ = document.around((_TOP_LINES, 0))
        place = Place(document.uri, _path(document.uri), document.language, 0, 0, top, "")
        completions.look_at(place, session.settings.completion)

    session.protocol.on_open = opened

    async def shown_at(uri: str, position: types.Position) -> Shown | None:
        service.touched()
        try:
            place = _place(server, uri, position)
            if reason := service.unready:
                completions.nothing(uri, position.line, position.character, reason)
                return None
            return await completions.complete(place, session.settings.completion)
        except (ServerError, StarError) as error:
            completions.nothing(uri, position.line, position.character, str(error))
            raise

    @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
    @_reporting
    async def inline(params: types.InlineCompletionParams) -> types.InlineCompletionList:
        shown = await shown_at(params.text_document.uri, params.position)
        if shown is None:
            return types.InlineCompletionList(items=[])
        item = types.InlineCompletionItem(
            insert_text=shown.text,
            range=types.Range(params.position, params.position),
            command=_accepting(shown),
        )
        return types.InlineCompletionList(items=[item])

    # Not empty: ALE takes an empty one for none.
    @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(resolve_provider=False))
    @_reporting
    async def completion(params: types.CompletionParams) -> types.CompletionList:
        shown = await shown_at(params.text_document.uri, params.position)
        if shown is None:
            return types.CompletionList(is_incomplete=True, items=[])
        first, *more = shown.text.split("\n")
        item = types.CompletionItem(
            label=first.strip() + (" …" if more else ""),
            kind=types.CompletionItemKind.Snippet if more else types.CompletionItemKind.Text,
            detail="star-lsp",
            documentation=shown.text if more else None,
            # Clients filter by the word left of the cursor, which the text does not repeat.
            filter_text=_document(server, params.text_document.uri).word(_at(params.position)) + shown.text,
            # A blank comes before all else that sorts; NUL would too, but Emacs cannot read it.
            sort_text=" ",
            text_edit=types.TextEdit(types.Range(params.position, params.position), shown.text),
            command=_accepting(shown),
        )
        return types.CompletionList(is_incomplete=True, items=[item])

    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION,
        types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix]),
    )
    @_reporting
    async def code_action(params: types.CodeActionParams) -> list[types.CodeAction]:
        uri, start = params.text_document.uri, params.range.start
        only = params.context.only
        if only and not any(_within("quickfix", kind) for kind in only):
            return []
        if start == params.range.end and _open(server, uri):  # so an editor tells where its cursor rests
            completions.look_at(_place(server, uri, start), session.settings.completion)
        case = _flagged(service, completions, uri, start.line)
        shown = completions.shown.at(uri, start.line, start.character)
        derived = _derived(server, shown) if shown else ""
        actions = []
        if shown and derived not in ("", shown.text) and not (case and case.expected == derived):
            title = f"star-lsp: the suggestion {_short(shown.text)} was wrong, {_short(derived)} is right"
            argument = {"completionId": shown.id, "expected": derived}
            actions.append(_action(title, "Mark completion as wrong", protocol.FLAG, argument))
        if case:
            title = f"star-lsp: undo the flag of {_short(case.rejected)}"
            actions.append(_action(title, "Undo the flag", protocol.UNFLAG, {"caseId": case.id}))
        return actions


def _commands(session: Session, service: Service) -> None:
    server, completions = session.server, session.completions

    def source(uri: str) -> str | None:
        document = _open(server, uri)
        return document.text if document else None

    def register(name: str, handler: Command) -> None:
        @_reporting
        async def run(*arguments: Any) -> object:
            return unstructure(await handler(arguments[0] if arguments else {}))

        server.command(name)(run)

    for name, handler in commands(service, completions, lambda: session.settings, source).items():
        register(name, handler)


# -- code actions --------------------------------------------------------------------------------------


def _derived(server: LanguageServer, shown: Shown) -> str:
    """What now stands where a completion was shown; empty when nothing does, or the place is lost."""
    try:
        return feedback.derive(shown, _document(server, shown.uri).text).rstrip()
    except FlagError:
        return ""


def _flagged(service: Service, completions: Completions, uri: str, line: int) -> Case | None:
    """The last case of a line, unless nothing is left of it that could be undone."""
    id_ = completions.shown.flagged(uri, line)
    if id_ is None:
        return None
    try:
        case = service.store.case(id_)
    except NotFound:
        return None
    return None if case.status == "reverted" else case


def _action(title: str, word: str, command: str, argument: dict[str, str]) -> types.CodeAction:
    run = types.Command(title=word, command=command, arguments=[argument])
    return types.CodeAction(title=title, kind=types.CodeActionKind.QuickFix, command=run)


# -- between LSP and us ------------------------------------------------------------------------------


def _reporting(handler: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Turns our errors into LSP errors, with their sentence and nothing else."""

    @functools.wraps(handler)
    async def run(*arguments: Any) -> T:
        try:
            return await handler(*arguments)
        except asyncio.CancelledError:
            raise
        except ParameterError as error:
            raise JsonRpcInvalidParams(str(error)) from error
        except (ServerError, StarError) as error:
            raise JsonRpcException(str(error), _REQUEST_FAILED) from error
        except Exception:
            log.exception("%s failed", handler.__name__)
            raise

    return run


def _open(server: LanguageServer, uri: str) -> Document | None:
    """A document that is open."""
    return cast(Conversation, server.protocol).documents.get(uri)


def _document(server: LanguageServer, uri: str) -> Document:
    """An open document; a closed one is not read from the disk behind the editor's back."""
    if (document := _open(server, uri)) is None:
        raise ServerError(f"The document {uri[:_SHOWN_URI]} is not open here; open it first.")
    return document


def _within(kind: str, asked: str) -> bool:
    """Whether a kind of code action is one of those asked for: ``a.b`` is within ``a``."""
    return f"{kind}.".startswith(f"{asked}.") or asked == ""


def _place(server: LanguageServer, uri: str, position: types.Position) -> Place:
    document = _document(server, uri)
    prefix, suffix = document.around(_at(position))
    return Place(uri, _path(uri), document.language, position.line, position.character, prefix, suffix)


def _at(position: types.Position) -> tuple[int, int]:
    return position.line, position.character


def _path(uri: str) -> str:
    """The path in a uri, whatever its scheme: a cell's is that of its notebook."""
    scheme, colon, rest = uri.partition(":")
    if not colon:
        rest = scheme
    elif scheme.lower() != "file":  # a file has neither query nor fragment: clients forget to escape
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    return re.sub("^/(?=[A-Za-z]:)", "", unquote(re.sub("^//[^/]*", "", rest)))


def _accepting(shown: Shown) -> types.Command:
    return types.Command(
        title="Accept completion", command=protocol.ACCEPT, arguments=[{"completionId": shown.id}]
    )


def _short(text: str) -> str:
    line = text.strip().split("\n")[0]
    return f"`{line[:40]}…`" if len(line) > 40 or "\n" in text else f"`{line}`"
