"""Builds the language server of one connection: handlers, settings, and errors → LSP errors, once."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

from lsprotocol import types
from pygls import uris
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, lsp_method
from pygls.protocol.json_rpc import JsonRPCNotification
from pygls.workspace import TextDocument

from star.errors import StarError
from star_lsp import feedback, protocol
from star_lsp.completion import Completions, Place
from star_lsp.errors import FlagError, ServerError
from star_lsp.listing import case_info, patch_info
from star_lsp.protocol import Changed, structure, unstructure
from star_lsp.service import Audience, Service
from star_lsp.settings import read
from star_lsp.shown import Shown
from star_lsp.work import WorkDone

__all__ = ["build"]

log = logging.getLogger(__name__)
T = TypeVar("T")

#: LSP's own code for "the request is fine, and could not be done".
_REQUEST_FAILED = -32803


class _Protocol(LanguageServerProtocol):
    """Offers `textDocument/completion` only to clients that have no inline completion.

    It also answers requests that cannot be read, which pygls leaves hanging.
    """

    def structure_message(self, data: dict[str, Any]) -> Any:
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "id" in data and "method" in data:
                reason = JsonRpcInvalidParams(f"The parameters of {data['method']} cannot be read.")
                self._send_response(data["id"], error=reason.to_response_error())
                return JsonRPCNotification(method="$/unreadable", jsonrpc=self.VERSION, params=None)
            raise error

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


def build(service: Service) -> LanguageServer:
    """The language server of one connection to a service."""
    server = LanguageServer("star-lsp", version("star-lsp"), protocol_cls=_Protocol)
    client = _Client(server, service)
    _lifecycle(server, service, client)
    completions = Completions(service.engine, lambda: service.model, service.suspended)
    _completing(server, service, completions)
    _commands(server, service, completions)
    return server


def _lifecycle(server: LanguageServer, service: Service, client: _Client) -> None:
    problems: list[str] = []

    def use(raw: object) -> None:
        settings, wrong = read(raw)
        problems.extend(problem.message for problem in wrong)
        if word := service.configure(settings):
            problems.append(word)

    def warn() -> None:
        if problems:
            client.warn("\n".join(problems))
            problems.clear()

    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        use(params.initialization_options)

    @server.feature(types.INITIALIZED)
    async def initialized(_params: types.InitializedParams) -> None:
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
        if client in service.audiences:
            service.audiences.remove(client)
        service.close()


def _completing(server: LanguageServer, service: Service, completions: Completions) -> None:
    async def shown_at(uri: str, position: types.Position) -> Shown | None:
        service.touched()
        if service.state not in ("ready", "repairing"):
            return None
        place = _place(server, uri, position)
        return await completions.complete(place, service.settings.completion)

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

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())
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
            filter_text=_word(server, params.text_document.uri, params.position) + shown.text,
            sort_text="\x00",
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
        shown = completions.shown.at(uri, start.line, start.character)
        only = params.context.only
        if shown is None or (only and not any(_within("quickfix", kind) for kind in only)):
            return []
        try:
            derived = feedback.derive(shown, _document(server, uri).source).rstrip()
        except FlagError:
            return []
        if derived in ("", shown.text):
            return []
        command = types.Command(
            title="Mark completion as wrong",
            command=protocol.FLAG,
            arguments=[{"completionId": shown.id, "expected": derived}],
        )
        title = f"star-lsp: the suggestion {_short(shown.text)} was wrong, {_short(derived)} is right"
        return [types.CodeAction(title=title, kind=types.CodeActionKind.QuickFix, command=command)]


def _commands(server: LanguageServer, service: Service, completions: Completions) -> None:
    def command(name: str) -> Callable[[Callable[[Any], Awaitable[object]]], None]:
        def register(handler: Callable[[Any], Awaitable[object]]) -> None:
            @_reporting
            async def run(*arguments: Any) -> object:
                return unstructure(await handler(arguments[0] if arguments else {}))

            server.command(name)(run)

        return register

    @command(protocol.FLAG)
    async def flag(raw: Any) -> protocol.FlagResult:
        params = structure(protocol.FlagParams, raw)
        shown = _meant(completions, params)
        document = server.workspace.text_documents.get(shown.uri)
        source = document.source if document else None
        case = feedback.flag(service.store, shown, source, params.expected, params.note)
        service.flagged(case.id)
        return protocol.FlagResult(case.id, case.status)

    @command(protocol.ACCEPT)
    async def accept(raw: Any) -> protocol.AcceptResult:
        params = structure(protocol.AcceptParams, raw)
        shown = completions.shown.get(params.completion_id)
        keep = service.settings.feedback
        if shown and keep.keep_accepted:
            feedback.accept(service.store, shown, keep.kept_completions)
        return protocol.AcceptResult(shown is not None)

    @command(protocol.REPAIR_ALL)
    async def repair_all(raw: Any) -> protocol.RepairAllResult:
        params = structure(protocol.RepairAllParams, raw)
        pending = [case.id for case in service.store.cases("pending")]
        cases = pending if params.cases is None else params.cases
        if not cases:
            raise ServerError("No case is pending; flag a completion first, or name cases to repair again.")
        repair = service.repairs.ask(cases, from_base=params.from_base)
        return protocol.RepairAllResult(repair.id, list(repair.cases))

    @command(protocol.CANCEL_REPAIR)
    async def cancel_repair(raw: Any) -> protocol.CancelRepairResult:
        params = structure(protocol.CancelRepairParams, raw)
        done = service.repairs.cancel(repair=params.repair_id, case=params.case_id)
        return protocol.CancelRepairResult(done)

    @command(protocol.LIST_CASES)
    async def list_cases(raw: Any) -> list[protocol.CaseInfo]:
        params = structure(protocol.ListCasesParams, raw)
        return [case_info(case) for case in service.store.cases(params.status)]

    @command(protocol.DELETE_CASE)
    async def delete_case(raw: Any) -> protocol.DeleteCaseResult:
        params = structure(protocol.DeleteCaseParams, raw)
        service.store.delete_case(params.case_id)
        service.tell(["cases"])
        return protocol.DeleteCaseResult(True)

    @command(protocol.LIST_PATCHES)
    async def list_patches(_raw: Any) -> list[protocol.PatchInfo]:
        return [patch_info(patch) for patch in service.store.patches()]

    @command(protocol.REVERT)
    async def revert(raw: Any) -> protocol.RevertResult:
        params = structure(protocol.RevertParams, raw)
        await service.repairs.revert(patch=params.patch_id, case=params.case_id)
        return protocol.RevertResult(service.revision or "")

    @command(protocol.STATUS)
    async def status(_raw: Any) -> protocol.StatusResult:
        return service.status()


# -- between LSP and us ------------------------------------------------------------------------------


def _reporting(handler: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Turns our errors into LSP errors, with their sentence and nothing else."""

    @functools.wraps(handler)
    async def run(*arguments: Any) -> T:
        try:
            return await handler(*arguments)
        except asyncio.CancelledError:
            raise
        except protocol.ParameterError as error:
            raise JsonRpcInvalidParams(str(error)) from error
        except (ServerError, StarError) as error:
            raise JsonRpcException(str(error), _REQUEST_FAILED) from error
        except Exception:
            log.exception("%s failed", handler.__name__)
            raise

    return run


def _document(server: LanguageServer, uri: str) -> TextDocument:
    """An open document; a closed one is not read from the disk behind the editor's back."""
    document: TextDocument | None = server.workspace.text_documents.get(uri)
    if document is None:
        raise ServerError(f"The document {uri} is not open here; open it first.")
    return document


def _within(kind: str, asked: str) -> bool:
    """Whether a kind of code action is one of those asked for: ``a.b`` is within ``a``."""
    return f"{kind}.".startswith(f"{asked}.") or asked == ""


def _place(server: LanguageServer, uri: str, position: types.Position) -> Place:
    document = _document(server, uri)
    offset = document.offset_at_position(position)
    source = document.source
    return Place(
        uri,
        uris.to_fs_path(uri) or "",
        document.language_id or "",
        position.line,
        position.character,
        source[:offset],
        source[offset:],
    )


def _word(server: LanguageServer, uri: str, position: types.Position) -> str:
    document = _document(server, uri)
    return document.word_at_position(position)


def _accepting(shown: Shown) -> types.Command:
    return types.Command(
        title="Accept completion", command=protocol.ACCEPT, arguments=[{"completionId": shown.id}]
    )


def _meant(completions: Completions, params: protocol.FlagParams) -> Shown:
    if params.completion_id is not None:
        shown = completions.shown.get(params.completion_id)
    else:
        assert params.uri is not None
        assert params.position is not None
        shown = completions.shown.at(params.uri, params.position.line, params.position.character)
    if shown is None:
        raise FlagError(
            "No completion is remembered there (the last 64 are); ask for one at that place, then flag it."
        )
    return shown


def _short(text: str) -> str:
    line = text.strip().split("\n")[0]
    return f"`{line[:40]}…`" if len(line) > 40 or "\n" in text else f"`{line}`"
