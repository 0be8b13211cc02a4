"""The open documents of one connection, as its edits make them. Pure: knows lines and units, and no LSP.

A text is kept in pieces, so that an edit costs as much in a file of 50 MB as in a short one, and a line may
be as long as the file. Lines end where the protocol says: at LF, CRLF and CR, and nowhere else.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

__all__ = ["Document", "Documents", "Place", "after_breaks", "breaks_in", "valid"]

Place = tuple[int, int]  # line and character, both from 0, as the client counts

_PIECE = 16_384  # characters
#: Around a place: more than the longest prompt can be made of.
_NEAR = 1 << 18
_SURROGATE = re.compile("[\ud800-\udfff]")
_BREAK = re.compile("\r\n|\r|\n")
#: Line breaks that are sought one by one.
_FEW = 8
_LONGEST_URI = 65_536
#: How many units of each encoding one character takes at most.
_UNITS = {"utf-8": 4, "utf-16": 2, "utf-32": 1}
_CODECS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2)}


class _Piece(NamedTuple):
    """A part of a text, and how many line breaks and units it has."""

    text: str
    breaks: int
    units: int


class _At(NamedTuple):
    """A place in the pieces: which one, and how many of its characters stand before."""

    piece: int
    offset: int


class Document:
    """A text that is edited at places as a client counts them.

    A place beyond the end of a line is its end, one within a character is before it, one beyond the last
    line is the end of the text, and a range is the same from either end.
    """

    def __init__(self, uri: str, language: str, text: str, encoding: str = "utf-16") -> None:
        """Take a text as it was opened; ``encoding`` says what a client's characters are."""
        self.uri = uri
        self.language = language
        self._encoding = encoding if encoding in _UNITS else "utf-16"
        self._pieces: list[_Piece] = []
        self.rewrite(text)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(piece.text for piece in self._pieces)

    def rewrite(self, text: str) -> None:
        """Put another text in place of all of it."""
        self._pieces = list(self._split(text)) or [_Piece("", 0, 0)]

    def edit(self, start: Place, end: Place, text: str) -> None:
        """Put a text in place of what stands between two places."""
        first, last = sorted((self._find(start), self._find(end)))
        pieces = self._pieces
        new = pieces[first.piece].text[: first.offset] + text + pieces[last.piece].text[last.offset :]
        begin, stop = first.piece, last.piece + 1
        # A line break is in one piece, and pieces that shrank are not left to be many.
        if stop < len(pieces) and (new.endswith("\r") or len(new) < _PIECE // 4):
            new, stop = new + pieces[stop].text, stop + 1
        if begin and (pieces[begin - 1].text.endswith("\r") or not new):
            new, begin = pieces[begin - 1].text + new, begin - 1
        pieces[begin:stop] = self._split(new) or [_Piece("", 0, 0)]

    def around(self, place: Place) -> tuple[str, str]:
        """The text before a place and after it: all of it, or in a large document what is near."""
        at = self._find(place)
        before = [self._pieces[at.piece].text[: at.offset]]
        after = [self._pieces[at.piece].text[at.offset :]]
        return self._back(before, at.piece), self._forth(after, at.piece)

    def word(self, place: Place) -> str:
        """The letters, digits and underscores on either side of a place, as far as a word goes."""
        at = self._find(place)
        text = self._pieces[at.piece].text
        left = re.search(r"[A-Za-z_0-9]{0,128}\Z", text[max(0, at.offset - 128) : at.offset])
        right = re.match(r"[A-Za-z_0-9]{0,128}", text[at.offset : at.offset + 128])
        return (left[0] if left else "") + (right[0] if right else "")

    # -- places --------------------------------------------------------------------------------------

    def _find(self, place: Place) -> _At:
        line, character = place
        if (at := self._line(line)) is None:
            return _At(len(self._pieces) - 1, len(self._pieces[-1].text))
        while True:
            piece = self._pieces[at.piece]
            whole = at.offset == 0 and not piece.breaks
            if whole and character > piece.units and at.piece + 1 < len(self._pieces):
                character -= piece.units
                at = _At(at.piece + 1, 0)
                continue
            ended = _BREAK.search(piece.text, at.offset, at.offset + character + 1) if piece.breaks else None
            line_end = ended.start() if ended else len(piece.text)
            part = piece.text[at.offset : min(line_end, at.offset + character)]
            taken, left = self._characters(part, character)
            offset = at.offset + taken
            at_end = offset == len(piece.text) and not ended
            if not (left and at_end and at.piece + 1 < len(self._pieces)):
                return _At(at.piece, offset)
            at, character = _At(at.piece + 1, 0), left

    def _line(self, line: int) -> _At | None:
        """Where a line begins; None where there are not so many."""
        if line == 0:
            return _At(0, 0)
        for index, piece in enumerate(self._pieces):
            if line <= piece.breaks:
                return _At(index, after_breaks(piece.text, line))
            line -= piece.breaks
        return None

    def _characters(self, text: str, units: int) -> tuple[int, int]:
        """How many characters of a text the first ``units`` are, and how many units go beyond it."""
        most = 1 if text.isascii() else _UNITS[self._encoding]
        at = 0
        while units and at < len(text):
            # So many characters cannot be too many: the rest is at least halved each time.
            part = text[at : at + max(1, units // most)]
            size = self._size(part)
            if size > units:  # within a character
                return at, 0
            at, units = at + len(part), units - size
        return at, units

    def _size(self, text: str) -> int:
        if self._encoding == "utf-32" or text.isascii():
            return len(text)
        codec, width = _CODECS[self._encoding]
        return len(text.encode(codec, "surrogatepass")) // width

    # -- pieces --------------------------------------------------------------------------------------

    def _split(self, text: str) -> list[_Piece]:
        pieces, start = [], 0
        while start < len(text):
            stop = start + _PIECE
            if text[stop - 1 : stop + 1] == "\r\n":
                stop += 1
            part = text[start:stop]
            pieces.append(_Piece(part, breaks_in(part), self._size(part)))
            start = stop
        return pieces

    def _back(self, found: list[str], piece: int) -> str:
        """What is found, with pieces before it; they begin where they did, though what is found grows."""
        size = 0
        while piece and size < _NEAR:
            piece -= 1
            found.append(self._pieces[piece].text)
            size += len(found[-1])
        return "".join(reversed(found))

    def _forth(self, found: list[str], piece: int) -> str:
        size = 0
        while piece + 1 < len(self._pieces) and size < _NEAR:
            piece += 1
            found.append(self._pieces[piece].text)
            size += len(found[-1])
        return "".join(found)


class Documents:
    """What is open, by uri: with or without its escapes it is the same document."""

    def __init__(self, encoding: str = "utf-16") -> None:
        """Nothing yet."""
        self._encoding = encoding
        self._open: dict[str, Document] = {}

    def __iter__(self) -> Iterator[Document]:
        """All that are open."""
        return iter(self._open.values())

    def open(self, uri: str, language: str, text: str) -> None:
        """Take a document as it was opened; opened again, it is as it was opened last."""
        if len(uri) <= _LONGEST_URI:
            self._open[_key(uri)] = Document(uri, language, text, self._encoding)

    def get(self, uri: str) -> Document | None:
        """The document of a uri, if it is open."""
        return self._open.get(_key(uri)) if len(uri) <= _LONGEST_URI else None

    def close(self, uris: Sequence[str]) -> None:
        """Forget documents; those that are not open are passed over."""
        for uri in uris:
            self._open.pop(_key(uri), None)


def breaks_in(text: str) -> int:
    """How many line breaks a text has."""
    returns = text.count("\r")
    return text.count("\n") + (returns - text.count("\r\n") if returns else 0)


def after_breaks(text: str, breaks: int) -> int:
    """Where so many line breaks of a text are over; its end, if it has fewer."""
    at = 0
    while breaks > _FEW and at < len(text):
        # So many characters cannot have too many of them.
        stop = at + breaks
        if text[stop - 1 : stop + 1] == "\r\n":
            stop += 1
        breaks -= breaks_in(text[at:stop])
        at = stop
    for _ in range(breaks):
        if (found := _BREAK.search(text, at)) is None:
            return len(text)
        at = found.end()
    return at


def valid(text: str) -> str:
    """``text`` with what is not valid Unicode replaced."""
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _key(uri: str) -> str:
    return unquote(uri, errors="surrogateescape")
