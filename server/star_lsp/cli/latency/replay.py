"""A developer at work: types what a trace has, looks at what is suggested, and takes what is right."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from star_lsp.cli.latency.trace import Trace

__all__ = ["Completer", "Document", "Kind", "Pace", "Request", "Suggestion", "acceptable", "gaps", "replay"]

#: What came before a request: the document was opened, a key was hit, a suggestion was accepted. The others
#: are keys that begin no suggestion: with no repair under way, with one, and once its patch is served.
Kind = Literal["cold", "next keystroke", "after accept", "at rest", "during repair", "after repair"]
Pace = Literal["human", "fast"]

#: Seconds between two keys of a person who knows what to write.
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.120, 0.250
#: A suggestion of one character is typed as fast as it is accepted.
_LEAST_CHARACTERS = 2


@dataclass(frozen=True, slots=True)
class Document:
    """An open document with a cursor in it."""

    uri: str
    prefix: str
    suffix: str

    @property
    def line(self) -> int:
        """The cursor's line, from 0."""
        return self.prefix.count("\n")

    @property
    def character(self) -> int:
        """The cursor's place on its line, from 0, in UTF-16 units."""
        return len(self.prefix[self.prefix.rfind("\n") + 1 :].encode("utf-16-le")) // 2

    def typed(self, text: str) -> "Document":
        """The document after ``text`` was written at the cursor."""
        return replace(self, prefix=self.prefix + text)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What is shown, empty for nothing, and how the server names it."""

    text: str = ""
    id: str = ""


class Completer(Protocol):
    """A server of completions as an editor uses it."""

    @property
    def name(self) -> str:
        """What tables call it."""

    async def open(self, document: Document) -> None:
        """Show it a document."""

    async def insert(self, document: Document, text: str) -> None:
        """Tell it that ``text`` is written at the cursor of ``document``."""

    async def complete(self, document: Document) -> Suggestion:
        """What it suggests at the cursor. To cancel this is to cancel the request."""

    async def accept(self, suggestion: Suggestion) -> None:
        """Tell it that a suggestion was taken."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request and what became of it.

    Attributes:
        server: Who was asked.
        trace: What was being typed.
        kind: What came before.
        milliseconds: Until the answer, or until the next key took the request back.
        answered: Whether there was an answer before that.
        suggested: Characters of the suggestion.
        accepted: How many of them were accepted: all or none.
        left: Characters of the ground truth that were still to be written.
    """

    server: str
    trace: str
    kind: Kind
    milliseconds: float
    answered: bool
    suggested: int
    accepted: int
    left: int


def acceptable(text: str, rest: str) -> bool:
    """Whether a developer who is about to write ``rest`` accepts the suggestion ``text``."""
    return len(text) >= _LEAST_CHARACTERS and rest.startswith(text)


def gaps(pace: Pace, seed: str) -> Iterator[float | None]:
    """Seconds from one key to the next, for ever; None: the next key waits for the answer."""
    chance = random.Random(seed)
    while True:
        yield None if pace == "fast" else chance.uniform(_SHORTEST_SECONDS, _LONGEST_SECONDS)


async def replay(
    trace: Trace, server: Completer, between: Iterator[float | None]
) -> AsyncGenerator[Request, None]:
    """Type a trace; every request as soon as it is over.

    The first suggestion is waited for, as one looks at a file that one has just opened, and the last one,
    so that the next trace begins at rest. An editor asks again after every key and every accepted
    suggestion.
    """
    document = Document(trace.uri, trace.prefix, trace.suffix)
    await server.open(document)
    kind: Kind = "cold"
    at = 0
    while True:
        rest = trace.truth[at:]
        gap = next(between)
        patient = kind == "cold" or not rest
        asked = time.perf_counter()
        found = await _within(server, document, None if patient else gap)
        waited = time.perf_counter() - asked
        text = found.text if found else ""
        accepts = acceptable(text, rest)
        yield Request(
            server.name,
            trace.name,
            kind,
            waited * 1000,
            found is not None,
            len(text),
            len(text) if accepts else 0,
            len(rest),
        )
        if not rest:
            return
        if gap is not None:  # what is left of the time between two keys
            await asyncio.sleep(gap if patient else max(0.0, gap - waited))
        written = text if accepts else rest[0]
        await server.insert(document, written)
        document = document.typed(written)
        at += len(written)
        kind = "after accept" if accepts else "next keystroke"
        if accepts and found:
            await server.accept(found)


async def _within(server: Completer, document: Document, seconds: float | None) -> Suggestion | None:
    """The suggestion, None when it took too long and was taken back."""
    try:
        async with asyncio.timeout(seconds):
            return await server.complete(document)
    except TimeoutError:
        return None
