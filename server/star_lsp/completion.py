"""From a document and a place in it to a completion, remembered as shown; or the reason for none."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from star_lsp.allow import completion_allowed
from star_lsp.engine import Request, Serving, Written
from star_lsp.postprocess import worthwhile
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

    def __init__(
        self,
        engine: Serving,
        model: Callable[[], str],
        suspended: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Serve from an engine; while it writes, what would slow it down is ``suspended``."""
        self._engine = engine
        self._model = model
        self._suspended = suspended
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
            self._nothing(reason)
            return None
        if (older := self._latest.pop(place.uri, None)) is not None:
            older.set()
        limits = Limits(settings.prefix_tokens, settings.suffix_tokens)
        prefix, suffix = window(place.prefix, place.suffix, limits)
        if not prefix.strip() and not suffix.strip():
            self._nothing("The document is empty.")
            return None
        request = Request(prefix, suffix, limits, settings.max_tokens, settings.time_budget_milliseconds)
        cancelled = self._latest[place.uri] = threading.Event()
        try:
            with self._suspended():
                written = await self._engine.complete(request, cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        finally:
            if self._latest.get(place.uri) is cancelled:
                del self._latest[place.uri]
        if written.ended == "cancelled":
            self._nothing("A newer request took its place.")
            return None
        text = _whole_lines(written)
        if written.ended == "time" and not text:
            self._nothing("It took longer than completion.timeBudgetMilliseconds.")
            return None
        if reason := worthwhile(text, written.stop, _line_above(prefix)):
            self._nothing(reason)
            return None
        shown = Shown(
            self.shown.new_id(),
            place.uri,
            place.line,
            place.character,
            place.language,
            written.prefix,
            written.suffix,
            text,
            self._model(),
            written.revision,
        )
        self.shown.add(shown)
        return shown

    def _nothing(self, reason: str) -> None:
        self.reasons = [*self.reasons[-9:], reason]


def _whole_lines(written: Written) -> str:
    """What is shown of a text that a limit cut short: the lines that are whole."""
    lines, more, _ = written.text.rpartition("\n")
    if written.ended == "time" or (written.ended == "length" and more):
        return lines.rstrip()
    return written.text


def _line_above(prefix: str) -> str:
    """The last line above the cursor's that is not blank; empty when there is none."""
    lines = prefix.split("\n")[:-1]
    return next((line for line in reversed(lines) if line.strip()), "")
