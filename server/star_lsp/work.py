"""LSP work-done progress of one connection: created once, reported in order, ended, cancelled."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from lsprotocol import types
from pygls.lsp.server import LanguageServer

__all__ = ["WorkDone"]

#: A client that has not answered by then shows no progress; its answer is not waited for for ever.
_ANSWER_SECONDS = 30.0


class _Moment(NamedTuple):
    """How far a work is; ``percent`` is None at its end."""

    message: str
    percent: int | None


class WorkDone:
    """The progress that one client shows; nothing is sent to a client that shows none."""

    def __init__(self, server: LanguageServer, cancel: Callable[[str], None]) -> None:
        """Draw on a connection; ``cancel`` is told the key of what the developer wants to end."""
        self._server = server
        self._cancel = cancel
        self._queues: dict[str, asyncio.Queue[_Moment]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def report(self, key: str, title: str, message: str, percent: int, cancellable: bool) -> None:
        """Show how far the work named ``key`` is; the first report begins it."""
        window = self._server.client_capabilities.window
        if not (window and window.work_done_progress):
            return
        if key not in self._queues:
            queue = self._queues[key] = asyncio.Queue()
            task = asyncio.create_task(self._draw(queue, key, title, cancellable))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._queues[key].put_nowait(_Moment(message, percent))

    def end(self, key: str, message: str) -> None:
        """Show that the work has ended."""
        if queue := self._queues.pop(key, None):
            queue.put_nowait(_Moment(message, None))

    def cancelled(self, token: int | str) -> None:
        """The client says that its user wants the work of this token to end."""
        if token in self._queues:
            self._cancel(str(token))

    async def _draw(self, queue: asyncio.Queue[_Moment], key: str, title: str, cancellable: bool) -> None:
        progress = self._server.work_done_progress
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await progress.create_async(key)
        except Exception:  # a client may refuse; the work goes on unseen
            return
        now = await queue.get()
        most = now.percent or 0
        progress.begin(
            key,
            types.WorkDoneProgressBegin(
                title=title, cancellable=cancellable, message=now.message, percentage=most
            ),
        )
        while (now := await queue.get()).percent is not None:
            most = max(most, now.percent)  # the protocol lets it grow only
            report = types.WorkDoneProgressReport(
                message=now.message, percentage=most, cancellable=cancellable
            )
            progress.report(key, report)
        progress.end(key, types.WorkDoneProgressEnd(message=now.message or None))
        with contextlib.suppress(KeyError):
            del progress.tokens[key]  # pygls keeps it for ever
