"""What of a finished suggestion is shown, and whether it is worth it. Pure: text in, text or a reason out."""

from typing import Protocol

__all__ = ["Place", "line_above", "whole_lines", "worthwhile"]

CLOSERS = ")]}>\"'`;,: \t\r\n"
REPEAT_CHARACTERS = 4  # shorter lines, such as closing brackets, are rightly written more than once
LOOP_TIMES = 3
UNIT_TIMES = 5
UNIT_CHARACTERS = 40


class Place(Protocol):
    """Where a suggestion stands; a ``StopRule`` is one."""

    @property
    def line(self) -> str:
        """Text left of the cursor on its line."""

    @property
    def suffix(self) -> str:
        """Text right of the cursor."""


def worthwhile(text: str, rule: Place, above: str = "") -> str | None:
    """Why ``text`` is not shown, None when it is.

    Args:
        text: The suggestion, trimmed.
        rule: Where it stands.
        above: The last line above the cursor's that is not blank; empty when there is none.
    """
    if not text.strip():
        return "it is blank"
    rest, _, following = rule.suffix.partition("\n")
    if not text.strip(CLOSERS) and "".join(rest.split()).startswith("".join(text.split())):
        return "it only closes what is closed already"
    rows = text.split("\n")
    first = _telling(rule.line + rows[0])
    if first and len(rows) == 1 and first == above.strip():
        return "it repeats the line above"
    below = next((row.strip() for row in following.split("\n") if row.strip()), "")
    if first and len(rows) == 1 and not rest.strip() and first == below:
        return "it repeats the line below"
    if _loops(rows):
        return "it goes round in circles"
    return None


def whole_lines(text: str, ended: str) -> str:
    """What is shown of a text that a limit cut short: the lines that are whole."""
    lines, more, _ = text.rpartition("\n")
    return lines.rstrip() if ended == "time" or (ended == "length" and more) else text


def line_above(prefix: str) -> str:
    """The last line above the cursor's that is not blank; empty when there is none."""
    lines = prefix.split("\n")[:-1]
    return next((line for line in reversed(lines) if line.strip()), "")


def _telling(line: str) -> str:
    """``line`` without outer blanks, empty when it is too short or too plain to count as repeated."""
    line = line.strip()
    return line if len(line) >= REPEAT_CHARACTERS and any(map(str.isalpha, line)) else ""


def _loops(rows: list[str]) -> bool:
    """Whether a line stands several times in a row, or the last one ends in the same few characters over
    and over. Linear in the text."""
    run, before = 1, ""
    for row in map(_telling, rows):
        run, before = (run + 1 if row and row == before else 1), row
        if run >= LOOP_TIMES:
            return True
    last = rows[-1]
    for size in range(REPEAT_CHARACTERS, UNIT_CHARACTERS + 1):
        unit = last[-size:]
        if any(map(str.isalpha, unit)) and last.endswith(unit * UNIT_TIMES):
            return True
    return False
