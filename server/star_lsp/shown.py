"""The completions that were shown last, so that one of them can be flagged, accepted or corrected."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["Shown", "ShownCompletions"]

_KEPT = 64


@dataclass(frozen=True, slots=True)
class Shown:
    """One completion that a client was given.

    ``prefix`` and ``suffix`` are the texts that its prompt was made of; ``line`` and ``character`` are in
    the client's position encoding.
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
        self._by_id: OrderedDict[str, Shown] = OrderedDict()
        self._flagged: OrderedDict[tuple[str, int], str] = OrderedDict()

    @staticmethod
    def new_id() -> str:
        """An id that no completion has."""
        return f"s{secrets.token_hex(6)}"

    def add(self, shown: Shown) -> None:
        """Remember one, and forget the oldest beyond 64."""
        self._by_id[shown.id] = shown
        while len(self._by_id) > _KEPT:
            self._by_id.popitem(last=False)

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
        self._flagged[shown.uri, shown.line] = case
        self._flagged.move_to_end((shown.uri, shown.line))
        while len(self._flagged) > _KEPT:
            self._flagged.popitem(last=False)

    def flagged(self, uri: str, line: int) -> str | None:
        """The case that came last of a line, if any did."""
        return self._flagged.get((uri, line))
