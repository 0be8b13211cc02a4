"""Where a suggestion ends, at the level of text.

This is the one definition: the server's decoding loop asks it after every token, and the judge of a repair
asks it for what would have been shown. It knows no language, no tokens and no model.

What it takes for granted, and why that is enough:

- Indentation is compared in columns, a tab reaching to the next multiple of four. Only deeper, equal and
  less deep matter, so any width serves as long as a file does not mix them.
- Brackets are counted by a scanner that skips quoted strings and comments it is sure of: a hash mark or two
  slashes at the start of the line's code. Where it takes a comment for code it may believe a block to be
  opened, and then the next line's indentation ends the suggestion; the other mistake would lose a block.
- A closing bracket whose partner stands on an earlier line counts for nothing.

Every answer of ``end`` rests on finished lines, or on the first written character of a line: so it never
changes when more text is written after it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["StopRule"]

TAB = 4
SUFFIX_LINES = 20
SUFFIX_CHARACTERS = 4_000
LINE_CHARACTERS = 1_000
REST_CHARACTERS = 256  # as much of the line right of the cursor as is compared with the suggestion
REPEAT_CHARACTERS = 4  # a line shorter than this is too common to say that the file goes on with it
OVERLAP_CHARACTERS = 3

OPENERS = "([{"
CLOSERS = ")]}"
SEPARATORS = ";,:"
QUOTES = "\"'`"
TRAILING = CLOSERS + ">" + QUOTES + SEPARATORS  # what editors write by themselves right of a cursor
CONTINUES = ":" + OPENERS + ",\\"

_CODE = re.compile(r"\"\"\"|'''|[\"'`()\[\]{}]|\\.|\s#(?=[\s#!]|$)|^#(?=[\s#!]|$)|//", re.DOTALL)
_STRING_END = {
    quote: re.compile(r"\\.|" + re.escape(quote), re.DOTALL) for quote in ('"""', "'''", '"', "'", "`")
}


@dataclass(frozen=True, slots=True)
class Scan:
    """What is open after some text, and how many of its closing brackets close nothing in it.

    A string that was open when the scan began counts as a bracket: its end is among ``unmatched``.
    """

    depth: int = 0
    unmatched: int = 0
    string: str = ""
    last: str = ""  # last non-blank character before a trailing comment


NOTHING = Scan()


def scan(text: str, state: Scan = NOTHING) -> Scan:
    """What is open after ``text``, which is one line or less, when ``state`` was open before it. Linear."""
    depth, unmatched, string = state.depth, state.unmatched, state.string
    inherited = string != ""
    at, code_end = 0, len(text)
    while at < len(text):
        match = (_STRING_END[string] if string else _CODE).search(text, at)
        if match is None:
            break
        at, found = match.end(), match.group()
        if string:
            if found == string:
                string, unmatched, inherited = "", unmatched + inherited, False
        elif found in _STRING_END:
            string = found
        elif found in OPENERS:
            depth += 1
        elif found in CLOSERS:
            depth, unmatched = (depth - 1, unmatched) if depth else (0, unmatched + 1)
        elif found == "//" and not _begins_comment(text, match.start()):
            continue
        elif not found.startswith("\\"):
            code_end = match.start()
            break
    return Scan(depth, unmatched, string, text[:code_end].rstrip()[-1:])


def scan_lines(text: str, state: Scan = NOTHING) -> Scan:
    """What is open after ``text`` of any number of lines."""
    for number, row in enumerate(text.split("\n")):
        state = scan(row, _next_line(state) if number else state)
    return state


def column(line: str) -> int:
    """Indentation of ``line`` in columns."""
    return len(line[: len(line) - len(line.lstrip())].expandtabs(TAB))


@dataclass(frozen=True, slots=True)
class StopRule:
    """Where a suggestion ends that is written at one place of one document.

    Attributes:
        line: Text left of the cursor on its line.
        multiline: Whether more than one line may be suggested.
        suffix: Text right of the cursor; about twenty lines of it are enough.
    """

    line: str
    multiline: bool
    suffix: str

    @classmethod
    def at(cls, prefix: str, suffix: str) -> "StopRule":
        """The rule for a cursor between ``prefix`` and ``suffix``, which may be a whole document."""
        line = prefix[prefix.rfind("\n") + 1 :]
        if len(line) > LINE_CHARACTERS:
            line = line[: len(line) - len(line.lstrip())][:LINE_CHARACTERS] + line[-LINE_CHARACTERS:].lstrip()
        suffix = "\n".join(suffix[:SUFFIX_CHARACTERS].split("\n", SUFFIX_LINES)[:SUFFIX_LINES])
        rest = suffix.split("\n", 1)[0]
        return cls(line, all(mark in TRAILING or mark.isspace() for mark in rest), suffix)

    def end(self, text: str) -> int | None:
        """Index at which the raw text written so far has ended; None: go on.

        Once it is a number for a text, it is the same number for all that begins with that text.
        """
        if "\n" not in text:
            return None
        if not self.multiline:
            return _before(text, text.index("\n") + 1)
        return self._end_of_block(text) if self._on_blank_line else self._end_of_statement(text)

    def trim(self, text: str) -> str:
        """The suggestion to show: ``text`` up to its end, without what the suffix already has and without
        trailing blanks. A beginning of ``text``; trimming it again changes nothing."""
        shorter = text[: self.end(text)].rstrip()
        while True:
            text, shorter = shorter, self._without_overlap(shorter).rstrip()
            if shorter == text:
                return text

    @property
    def _on_blank_line(self) -> bool:
        return not self.line.strip()

    def _end_of_block(self, text: str) -> int | None:
        indent: int | None = None
        for start, row, complete in _rows(text):
            whole = row if start else self.line + row
            if not whole.strip():
                if complete and indent is not None:
                    return _before(text, start)
                continue
            if indent is None:
                # The first line written may be deeper than the cursor: then that is where the block stands.
                indent = max(column(self.line), column(whole)) if start else column(whole)
            if column(whole) < indent or (complete and self._is_next_line(row)):
                return _before(text, start)
        return None

    def _end_of_statement(self, text: str) -> int | None:
        indent = column(self.line)
        follows = self._following()
        # A body that already stands below is not written a second time.
        has_body = bool(follows) and column(follows[0]) > indent
        state = NOTHING
        for start, row, complete in _rows(text):
            if start == 0:
                state = scan(self.line + row)
                if complete and (has_body or self._is_complete(state)):
                    return _before(text, len(row) + 1)
                continue
            if not row.strip():
                if complete:
                    return _before(text, start)
                continue
            here = column(row)
            closes = here == indent and state.depth > 0 and row.lstrip()[0] in CLOSERS
            if here <= indent and not closes:
                return _before(text, start)
            if complete and self._is_next_line(row):
                return _before(text, start)
            state = scan(row, _next_line(state))
            if complete and closes and self._is_complete(state):
                return _before(text, start + len(row) + 1)
        return None

    def _is_complete(self, state: Scan) -> bool:
        """Whether a statement may end at the end of this line; brackets that the editor has closed already,
        right of the cursor, need not be closed again."""
        closed = sum(mark in CLOSERS for mark in self._rest())
        return state.depth <= closed and not _next_line(state).string and state.last not in CONTINUES

    def _is_next_line(self, row: str) -> bool:
        follows = self._following()
        row = row.strip()
        return len(row) >= REPEAT_CHARACTERS and bool(follows) and follows[0].strip() == row

    def _rest(self) -> str:
        return self.suffix.split("\n", 1)[0].strip()[:REST_CHARACTERS]

    def _following(self) -> list[str]:
        return [row for row in self.suffix.split("\n")[1:] if row.strip()]

    def _without_overlap(self, text: str) -> str:
        rest = self._rest()
        return self._without_rest(text, rest) if rest else self._without_following(text)

    def _without_rest(self, text: str, rest: str) -> str:
        tail = text[text.rfind("\n") + 1 :]
        overlaps = [size for size in range(1, min(len(rest), len(tail)) + 1) if tail.endswith(rest[:size])]
        mixed = [size for size in overlaps if rest[:size].strip(TRAILING + " \t")]
        if mixed and mixed[-1] >= OVERLAP_CHARACTERS:
            return text[: -mixed[-1]]
        marks = [size for size in overlaps if size not in mixed]
        if not marks:
            return text
        if not set(rest[: marks[-1]]) - set(SEPARATORS):
            return text[: -marks[-1]]
        if not set(rest[: marks[-1]]) - set(">" + SEPARATORS):
            return text[: -marks[-1]] if _angles(self.line + text + rest) < 0 else text
        # As few closing marks as bring the closers in balance with what the line has open.
        excess = {size: self._excess(text[: len(text) - size], rest) for size in (0, *marks)}
        return text[: len(text) - min(excess, key=lambda size: (excess[size], size))]

    def _excess(self, text: str, rest: str) -> int:
        """How many closers too many stand in ``text`` and ``rest`` together; 0 when ``text`` closes only
        what it opened itself, for then the rest closes something on an earlier line."""
        line = scan(self.line)
        mine = scan_lines(text, Scan(string=line.string)).unmatched
        theirs = scan(rest, Scan(string=line.string)).unmatched
        return max(0, mine + theirs - line.depth - bool(line.string)) if mine else 0

    def _without_following(self, text: str) -> str:
        follows = self._following()
        rows = text.split("\n")
        own = len(rows) - (not self._on_blank_line)  # the first line was begun by the developer
        for size in range(min(own, len(follows)), 0, -1):
            pairs = zip(rows[-size:], follows[:size], strict=True)
            if all(self._is_same(text, row, next_row) for row, next_row in pairs):
                return "\n".join(rows[:-size])
        return text

    def _is_same(self, text: str, row: str, next_row: str) -> bool:
        if row.strip() != next_row.strip():
            return False
        if not row.strip().strip(CLOSERS + ">" + SEPARATORS):
            # A line of closers is one too many only if both together close more than was opened.
            balance = scan_lines(self.line + text + "\n" + next_row)
            return column(row) == column(next_row) and balance.unmatched > 0
        return len(row.strip()) >= REPEAT_CHARACTERS or column(row) == column(next_row)


def _rows(text: str) -> Iterator[tuple[int, str, bool]]:
    """Each line with its index and whether it is finished."""
    start = 0
    rows = text.split("\n")
    for number, row in enumerate(rows):
        yield start, row, number < len(rows) - 1
        start += len(row) + 1


def _before(text: str, start: int) -> int:
    """Index of the line break before ``start``, which is where a text ends that lacks the line there."""
    if start == 0:
        return 0
    return start - 2 if text[max(0, start - 2) : start] == "\r\n" else start - 1


def _next_line(state: Scan) -> Scan:
    """The state at the beginning of the next line, to which only strings of many lines reach."""
    string = state.string if state.string in ('"""', "'''", "`") else ""
    return Scan(state.depth, state.unmatched, string)


def _begins_comment(line: str, at: int) -> bool:
    """Whether two slashes can be no integer division, by what stands before them."""
    before = line[max(0, at - 80) : at].rstrip()[-1:]  # a bounded look, so that a scan stays linear
    return before in ("", *";{}(),[:")


def _angles(text: str) -> int:
    """Opening less closing angle brackets; arrows are none."""
    return text.count("<") - len(re.findall(r"(?<![-=])>", text))
