"""The completions that were shown last, so that one of them can be flagged, accepted or corrected."""

import secrets
from dataclasses import dataclass

from star_lsp.recent import Recent

__all__ = ["Shown", "ShownCompletions"]

_KEPT = 64


@dataclass(frozen=True, slots=True)
class Shown:
    """One completion that a client was given.

    ``prefix`` and ``suffix`` are the texts that its prompt was made of; ``line`` and ``character`` are in
    the client's position encoding. ``text`` is what was seen, be it the first lines of what has been written
    since: a fix is compared with that, and is all that shall be suggested there, as the fix of any other is.
    """

    id: str
    uri: str
    line: int
    character: int
    language: str
    prefix: str
    suffix: str
    text: str
    model: str
    revision: str


class ShownCompletions:
    """The last 64 completions of one connection, by id."""

    def __init__(self) -> None:
        """None yet."""
        self._by_id: Recent[str, Shown] = Recent(_KEPT)
        self._flagged: Recent[tuple[str, int], str] = Recent(_KEPT)

    @staticmethod
    def new_id() -> str:
        """An id that no completion has."""
        return f"s{secrets.token_hex(6)}"

    def add(self, shown: Shown) -> None:
        """Remember one, and forget the oldest beyond 64."""
        self._by_id.put(shown.id, shown)

    def get(self, id_: str) -> Shown | None:
        """The completion of that id, if it is still remembered."""
        return self._by_id.get(id_)

    def at(self, uri: str, line: int, character: int) -> Shown | None:
        """The last one shown at a place: there exactly, else on that line, else nearest above it."""
        mine = [shown for shown in reversed(self._by_id.values()) if shown.uri == uri]
        exact = [shown for shown in mine if (shown.line, shown.character) == (line, character)]
        on_line = [shown for shown in mine if shown.line == line]
        # A block that was accepted and corrected ends lines below the place where it began.
        above = [shown for shown in mine if shown.line <= line <= shown.line + shown.text.count("\n") + 1]
        return next(iter((*exact, *on_line, *above)), None)

    def flag(self, shown: Shown, case: str) -> None:
        """Remember which case came last of the line of a completion, and forget the oldest beyond 64."""
        self._flagged.put((shown.uri, shown.line), case)

    def flagged(self, uri: str, line: int) -> str | None:
        """The case that came last of a line, if any did."""
        return self._flagged.get((uri, line))
