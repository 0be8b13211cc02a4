"""A message's body as JSON: what is none, or would take far more memory than it has bytes, is refused."""

import json
import re

__all__ = ["Unreadable", "parse"]

#: Bodies up to this size are parsed unseen: whatever is in them, it takes some megabytes.
_SMALL_BYTES = 1 << 18
#: Most values of a larger one besides texts: two bytes of it can become eighty.
_MOST_VALUES = 300_000
_TEXT = re.compile(rb'"[^"]*"')


class Unreadable(Exception):
    """A body is no JSON that is read here; the message says why."""


def parse(body: bytes) -> object:
    """The value that a body is.

    Raises:
        Unreadable: it is no JSON by the letter (NaN is none), nests too deeply, or has too many values.
    """
    if len(body) > _SMALL_BYTES and _values(body, 0, len(body)) > _MOST_VALUES and _too_many(body):
        raise Unreadable(f"A message may have {_MOST_VALUES} values at most; send less at once.")
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"A message cannot be read as JSON in UTF-8 ({error}).") from error


def _values(body: bytes, start: int, stop: int) -> int:
    return sum(body.count(mark, start, stop) for mark in (b",", b"[", b"{"))


def _too_many(body: bytes) -> bool:
    """Whether there are too many values, not counting what only looks so within a text."""
    body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    count, at = 0, 0
    for text in _TEXT.finditer(body):
        count += _values(body, at, text.start())
        at = text.end()
        if count > _MOST_VALUES:
            return True
    return count + _values(body, at, len(body)) > _MOST_VALUES


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number")
