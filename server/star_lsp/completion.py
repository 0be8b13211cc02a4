"""From a document and a place in it to a completion, remembered as shown; or the reason for none."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from star.errors import StarError
from star.stop import StopRule
from star_lsp.ahead import Ahead, Known
from star_lsp.allow import completion_allowed
from star_lsp.engine import Request, Serving, Written
from star_lsp.errors import ServerError
from star_lsp.listing import when
from star_lsp.postprocess import line_above, whole_lines, worthwhile
from star_lsp.prompt import Limits, window
from star_lsp.protocol import Nothing, Position
from star_lsp.settings import CompletionSettings
from star_lsp.shown import Shown, ShownCompletions

__all__ = ["Completions", "Place"]

log = logging.getLogger(__name__)

#: Answers with nothing that are remembered: those of the last minutes of typing.
_KEPT = 32
#: Whoever types on does so within this time of a suggestion, mostly.
_PAUSE_SECONDS = 0.2
#: After this time a suggestion is shown with the lines that are whole, and the rest is written meanwhile.
_SOON_MILLISECONDS = 600.0
_FRUGAL_TOKENS = 24
#: Of a uri that is remembered with a reason; those of documents are shorter.
_LONGEST_URI = 4096

_CANCELLED = "The editor took the request back, as it does when more is typed; pause for a moment."
_REPLACED = "A newer request in this document took its place; that one is answered."
_EMPTY = "The document is empty; write something for the model to go on from."
_UNTOLD = "What the model wrote is not shown, as {}; write a little more, and ask again."
_LATE = (
    "It took longer than {} ms; raise completion.timeBudgetMilliseconds, or lower completion.prefixTokens "
    "so that the model reads less."
)


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
        history: Callable[[], Hashable] = lambda: None,
        suspended: Callable[[], AbstractContextManager[None]] = nullcontext,
        quiet: Callable[[], bool] = lambda: False,
        client: str = "",
    ) -> None:
        """Serve from an engine; while it writes, what would slow it down is ``suspended``.

        ``history`` names the patches with which whatever is asked of the engine now will be answered;
        while it is ``quiet``, it is read and written before it is asked for. ``client`` names the connection:
        those that share an engine take turns.
        """
        self._engine = engine
        self._model = model
        self._history = history
        self._suspended = suspended
        self._quiet = quiet
        self._client = client
        self._ahead = Ahead()
        #: Ends what is being written for a place that nobody has asked for yet.
        self._looking_ahead = threading.Event()
        self._next: asyncio.Task[None] | None = None
        #: The same for what is only read.
        self._looking_at = threading.Event()
        self._read: asyncio.Task[Written | None] | None = None
        self._latest: dict[str, threading.Event] = {}
        self.shown = ShownCompletions()
        #: The last requests that were answered with nothing, newest last.
        self.reasons: deque[Nothing] = deque(maxlen=_KEPT)

    def end(self) -> None:
        """Stop whatever is being written for this connection: nobody is there to read it."""
        self._look_away()
        for cancelled in self._latest.values():
            cancelled.set()

    def nothing(self, uri: str, line: int, character: int, reason: str) -> None:
        """Remember why a request was answered with nothing.

        The same reason again in the same document takes the place of the one before: typing cancels a
        request with every key, and would push out all others.
        """
        uri = uri[:_LONGEST_URI]
        if self.reasons and (self.reasons[-1].uri, self.reasons[-1].reason) == (uri, reason):
            self.reasons.pop()
        self.reasons.append(Nothing(uri, Position(line, character), reason, when(time.time())))

    async def complete(self, place: Place, settings: CompletionSettings) -> Shown | None:
        """The completion at a place, None with a reason in ``reasons``.

        Raises:
            asyncio.CancelledError: the client no longer wants it; the model stops at the next token.
            StarError: the model failed.
        """
        if reason := completion_allowed(settings, place.language, place.path):
            self._nothing(place, reason)
            return None
        if (older := self._latest.pop(place.uri, None)) is not None:
            older.set()
        self._look_away()
        limits = Limits(settings.prefix_tokens, settings.suffix_tokens)
        prefix, suffix = window(place.prefix, place.suffix, limits)
        if not prefix.strip() and not suffix.strip():
            self._nothing(place, _EMPTY)
            return None
        frugal = settings.latency == "frugal"
        most = min(settings.max_tokens, _FRUGAL_TOKENS) if frugal else settings.max_tokens
        # The history is named before the engine is asked, which answers one after another.
        key = (place.uri, self._history(), limits, most)
        eager = settings.latency == "eager" and self._quiet()
        request = Request(
            prefix,
            suffix,
            limits,
            most,
            settings.time_budget_milliseconds,
            place.uri,
            self._client,
            soon_milliseconds=_SOON_MILLISECONDS if eager else math.inf,
        )
        known = self._ahead.rest(key, prefix, suffix) or await self._written(place, request, key)
        if known and known.cut and _withheld(known, prefix):  # its other lines may be worth showing
            whole = replace(request, soon_milliseconds=math.inf)
            known = await self._written(place, whole, key)
        if known is None:
            return None
        if reason := _withheld(known, prefix):
            self._nothing(place, _UNTOLD.format(reason))
            return None
        shown = Shown(
            self.shown.new_id(),
            place.uri,
            place.line,
            place.character,
            place.language,
            known.prefix,
            known.suffix,
            known.text,
            self._model(),
            known.revision,
        )
        self.shown.add(shown)
        if eager:
            follows = prefix if known.cut else prefix + known.text
            ahead = replace(request, prefix=follows, ahead=True, soon_milliseconds=math.inf)
            self._looking_ahead = threading.Event()
            self._next = asyncio.create_task(self._look_ahead(key, ahead, self._looking_ahead))
        return shown

    def look_at(self, place: Place, settings: CompletionSettings) -> None:
        """Have read, while nothing else is asked, what stands around a place where it may be asked next."""
        if settings.latency != "eager" or completion_allowed(settings, place.language, place.path):
            return
        limits = Limits(settings.prefix_tokens, settings.suffix_tokens)
        prefix, suffix = window(place.prefix, place.suffix, limits)
        budget = settings.time_budget_milliseconds
        request = Request(prefix, suffix, limits, 0, budget, place.uri, self._client, ahead=True)
        if prefix.strip():  # at the very top stands a cursor that has not been put anywhere yet
            self._looking_at.set()
            self._looking_at = threading.Event()
            self._read = asyncio.create_task(self._spare(request, self._looking_at))

    def _look_away(self) -> None:
        self._looking_ahead.set()
        self._looking_at.set()

    async def _look_ahead(self, key: Hashable, ahead: Request, ended: threading.Event) -> None:
        """Have ready what comes after a suggestion, should it be taken, or what it lacks."""
        known = self._ahead.rest(key, ahead.prefix, ahead.suffix)
        if known and not known.cut:
            return
        written = await self._spare(ahead, ended)
        if written and written.ended not in ("cancelled", "time"):
            self._ahead.keep(key, ahead.prefix, ahead.suffix, _known(written))

    async def _spare(self, request: Request, ended: threading.Event) -> Written | None:
        """What the model makes of a request that nobody waits for; only while nothing else is asked."""
        await asyncio.sleep(_PAUSE_SECONDS)
        if ended.is_set() or not self._quiet():
            return None
        try:
            return await self._engine.complete(request, ended)
        except (ServerError, StarError) as error:
            log.warning("looking ahead failed: %s", error)
            return None

    async def _written(self, place: Place, request: Request, key: Hashable) -> Known | None:
        """What the model writes; None, with a reason, when it was late or a newer request took its place."""
        cancelled = self._latest[place.uri] = threading.Event()
        try:
            with self._suspended():
                written = await self._engine.complete(request, cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            self._nothing(place, _CANCELLED)
            raise
        finally:
            if self._latest.get(place.uri) is cancelled:
                del self._latest[place.uri]
        if written.ended == "cancelled":
            self._nothing(place, _REPLACED)
            return None
        known = _known(written)
        if written.ended != "time":
            self._ahead.keep(key, request.prefix, request.suffix, known)
        elif not known.text:
            self._nothing(place, _LATE.format(request.milliseconds))
            return None
        return known

    def _nothing(self, place: Place, reason: str) -> None:
        self.nothing(place.uri, place.line, place.character, reason)


def _withheld(known: Known, prefix: str) -> str | None:
    """Why something is not shown behind ``prefix``; None when it is."""
    return worthwhile(known.text, StopRule.at(known.prefix, known.suffix), line_above(prefix))


def _known(written: Written) -> Known:
    text, cut = whole_lines(written.text, written.ended), written.ended == "line"
    return Known(text, written.prefix, written.suffix, written.revision, cut)
