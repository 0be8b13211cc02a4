"""From a document and a place in it to a completion, remembered as shown; or the reason for none."""

import asyncio
import threading
from dataclasses import dataclass

from star_lsp.allow import completion_allowed
from star_lsp.engine import Request, Serving
from star_lsp.postprocess import worthwhile
from star_lsp.process import Process
from star_lsp.prompt import Limits, window
from star_lsp.settings import CompletionSettings
from star_lsp.shown import Shown, ShownCompletions

__all__ = ["Completions", "Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a document: its text left and right of it, and how the client names it."""

    uri: str
    path: str
    language: str
    line: int
    character: int
    prefix: str
    suffix: str


class Completions:
    """The completions of one connection: the newest request for a document replaces the one before."""

    def __init__(self, engine: Serving, process: Process | None, model: str) -> None:
        """Serve from an engine; the repairing ``process`` stands still meanwhile."""
        self._engine = engine
        self._process = process
        self._model = model
        self._latest: dict[str, threading.Event] = {}
        self.shown = ShownCompletions()
        #: Why the last requests were answered with nothing, newest last.
        self.reasons: list[str] = []

    async def complete(self, place: Place, settings: CompletionSettings) -> Shown | None:
        """The completion at a place, None with a reason in ``reasons``.

        Raises:
            asyncio.CancelledError: the client no longer wants it; the model stops at the next token.
            StarError: the model failed.
        """
        if reason := completion_allowed(settings, place.language, place.path):
            return self._nothing(reason)
        cancelled = threading.Event()
        if (older := self._latest.get(place.uri)) is not None:
            older.set()
        self._latest[place.uri] = cancelled
        limits = Limits(settings.prefix_tokens, settings.suffix_tokens)
        prefix, suffix = window(place.prefix, place.suffix, limits)
        if not prefix.strip() and not suffix.strip():
            return self._nothing("The document is empty.")
        request = Request(
            prefix, suffix, limits, settings.max_tokens, settings.time_budget_milliseconds
        )
        try:
            if self._process:
                with self._process.suspended():
                    written = await self._engine.complete(request, cancelled)
            else:
                written = await self._engine.complete(request, cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        finally:
            if self._latest.get(place.uri) is cancelled:
                del self._latest[place.uri]
        if written.ended == "cancelled":
            return self._nothing("A newer request took its place.")
        if reason := worthwhile(written.text, written.stop):
            return self._nothing(reason)
        shown = Shown(
            self.shown.new_id(),
            place.uri,
            place.line,
            place.character,
            place.language,
            written.prefix,
            written.suffix,
            written.text,
            self._model,
            written.revision,
        )
        self.shown.add(shown)
        return shown

    def _nothing(self, reason: str) -> None:
        self.reasons = [*self.reasons[-9:], reason]
