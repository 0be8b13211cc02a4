"""What can still be read of a damaged database: found out without SQLite where SQLite would say nothing.

SQLite takes a log (``-wal``) whose checksums do not hold for one that ends there, and an empty file for a new
database: both would lose cases without a word. So the log is looked at first, frame by frame.
"""

import contextlib
import os
import sqlite3
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["damage", "is_damage", "is_held", "rows"]

_BUSY, _LOCKED, _CORRUPT, _NOT_A_DATABASE = 5, 6, 11, 26
_HEADER, _FRAME = 32, 24  # bytes before the frames, and before the page in each
_DATABASE_HEADER = 100
_MAGIC = b"SQLite format 3\0"
_LOG_MAGIC = 0x377F0682  # and its last bit: the checksums are of big-endian words
_PAGE_BYTES = 4096
#: Rows are asked for by number up to this one when not even the last one can be told.
_MOST = 10_000

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A page in the log, and whether it is what was written."""

    page: int
    #: Pages of the database after it, where it ends a transaction.
    pages: int
    salts: bytes
    content: memoryview
    #: Its checksum follows from the one that the frame before it states.
    sound: bool
    #: And so do those of all frames before it.
    reached: bool


def is_damage(error: Exception) -> bool:
    """Whether SQLite says that what it reads is no whole database, not that a disk or lock is in the way."""
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, sqlite3.DatabaseError) and code & 0xFF in (_CORRUPT, _NOT_A_DATABASE)


def is_held(error: Exception) -> bool:
    """Whether SQLite says that another connection is in the way."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (_BUSY, _LOCKED)


def damage(path: Path, wait_seconds: float = 10.0) -> str | None:
    """What is wrong with a database, in a few words; None if all of it can be used.

    Raises:
        sqlite3.Error, OSError: it cannot be told, as the disk or a lock is in the way.
    """
    log = _log(path)
    size = path.stat().st_size if path.exists() else 0
    frames = list(_frames(log, _page_bytes(path)))
    if not size and frames:
        return "it is empty, and what was last written to it is not"
    if any(frame.sound and frame.pages and not frame.reached and _current(frame, log) for frame in frames):
        return "what was last written to it has been altered"
    if not size:
        return None
    try:
        # To read alone: a connection that may write would put the log into the database when it ends.
        to_read = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(to_read, timeout=wait_seconds, uri=True)) as db:
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise
    return None if found == "ok" else str(found).replace("\n", " ")[:200]


def rows(
    path: Path, empty: Path, tables: Mapping[str, Callable[[Mapping[str, Any]], bool]], scratch: Path
) -> dict[str, list[Mapping[str, Any]]]:
    """What can be read of a damaged database, by table, in the order in which it was written.

    Args:
        path: the database; its log beside it, if there is one.
        empty: a new database of the same tables, whose first page stands in for one that cannot be read.
        tables: whether a row of each can be what was written.
        scratch: a file that may be written, to read from.
    """
    pages = _pages(path)
    size = len(next(iter(pages.values()), b"")) or _PAGE_BYTES
    first, new = pages.get(1, bytes(size)), empty.read_bytes()[:size]
    # As it is; with the header of a new one; with its whole first page.
    best: dict[str, list[Mapping[str, Any]]] = {name: [] for name in tables}
    for page in (first, new[:_DATABASE_HEADER] + first[_DATABASE_HEADER:], new):
        _write(scratch, pages | {1: _made_plain(page, max(pages, default=1))}, size)
        found = {name: _read(scratch, name, plausible) for name, plausible in tables.items()}
        if sum(map(len, found.values())) > sum(map(len, best.values())):
            best = found
    scratch.unlink()
    return best


# -- the log ------------------------------------------------------------------------------------------


def _log(path: Path) -> memoryview:
    try:
        return memoryview(path.with_name(f"{path.name}-wal").read_bytes())
    except FileNotFoundError:
        return memoryview(b"")


def _number(content: memoryview | bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "big")


def _page_bytes(path: Path) -> int:
    """The page size that a database states; ours if it states none."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        stated = int.from_bytes(file.read(18)[16:18], "big")
        if stated >= 512 and stated & (stated - 1) == 0:
            return stated
    return _PAGE_BYTES


def _current(frame: _Frame, log: memoryview) -> bool:
    """Whether a frame is of the log's present round, as far as that can be told."""
    return not _has_header(log) or frame.salts == log[16:24]


def _has_header(log: memoryview) -> bool:
    swapped = _swapped(log)
    return _number(log, 0) | 1 == _LOG_MAGIC | 1 and _summed((0, 0), log[:24], swapped) == (
        _number(log, 24),
        _number(log, 28),
    )


def _swapped(log: memoryview) -> bool:
    """Whether the words that are summed up are in the other order than this machine's."""
    big = _number(log, 0) == _LOG_MAGIC | 1
    return big != (sys.byteorder == "big")


def _summed(sums: Sums, content: memoryview, swapped: bool) -> Sums:
    """SQLite's checksum of a log."""
    words = array("I", content.tobytes())
    if swapped:
        words.byteswap()
    first, second = sums
    numbers = iter(words)
    for even, odd in zip(numbers, numbers, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _frames(log: memoryview, page_bytes: int) -> Iterator[_Frame]:
    if len(log) < _HEADER + _FRAME + page_bytes:
        return
    swapped, known = _swapped(log), _has_header(log)
    if known:
        page_bytes = _number(log, 8)
    stated = (_number(log, 24), _number(log, 28))
    reached = known
    for start in range(_HEADER, len(log) - _FRAME - page_bytes + 1, _FRAME + page_bytes):
        head, content = log[start : start + _FRAME], log[start + _FRAME : start + _FRAME + page_bytes]
        sums = _summed(_summed(stated, head[:8], swapped), content, swapped)
        before, stated = stated, (_number(head, 16), _number(head, 20))
        sound = sums == stated
        reached = reached and sound and (not known or head[8:16] == log[16:24])
        # The first one follows from the header, which may be what is damaged: a page 1 speaks for itself.
        if not sound and start == _HEADER and not known and content[: len(_MAGIC)] == _MAGIC:
            sound = before != stated
        yield _Frame(_number(head, 0), _number(head, 4), bytes(head[8:16]), content, sound, reached)


def _pages(path: Path) -> dict[int, bytes]:
    """Every page as it was last written, as far as that can be read."""
    size, log = _page_bytes(path), _log(path)
    content = path.read_bytes() if path.exists() else b""
    # A page that is cut short is none: what stood in the rest of it would be read as zeros.
    pages = {
        number + 1: content[start : start + size]
        for number, start in enumerate(range(0, len(content) - size + 1, size))
    }
    frames = [frame for frame in _frames(log, size) if _current(frame, log)]
    if not _has_header(log) and frames:  # the round is told by most of them
        salts = [frame.salts for frame in frames]
        frames = [frame for frame in frames if frame.salts == max(set(salts), key=salts.count)]
    last = max((number for number, frame in enumerate(frames) if frame.pages and frame.sound), default=-1)
    for frame in frames[: last + 1]:
        if frame.sound and frame.page:
            pages[frame.page] = bytes(frame.content)
    return pages


# -- the image that is read -----------------------------------------------------------------------------


def _made_plain(page: bytes, pages: int) -> bytes:
    """A first page that says: so many pages, none of them free, and no log beside."""
    made = bytearray(page)
    made[18:20] = b"\1\1"
    made[28:32] = pages.to_bytes(4, "big")
    made[32:40] = bytes(8)
    made[92:96] = made[24:28]
    return bytes(made)


def _write(path: Path, pages: Mapping[int, bytes], size: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        for number, page in pages.items():
            file.seek((number - 1) * size)
            file.write(page)


def _read(path: Path, table: str, plausible: Callable[[Mapping[str, Any]], bool]) -> list[Mapping[str, Any]]:
    """The rows of a table that can be read and can be what was written, each once."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as db:
        db.row_factory = sqlite3.Row
        db.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
        try:
            db.execute(f"SELECT rowid FROM {table} LIMIT 0")
        except sqlite3.OperationalError as error:
            if "no such column" not in str(error):
                return []
            found = _from_both_ends(db, table)
        except sqlite3.Error:
            return []
        else:
            found = list(_between(db, table, 1, _last(db, table)))
    return [row for row in map(dict, found) if plausible(row)]


def _last(db: sqlite3.Connection, table: str) -> int:
    with contextlib.suppress(sqlite3.Error):
        return int(db.execute(f"SELECT max(rowid) FROM {table} NOT INDEXED").fetchone()[0] or 0)
    return _MOST


def _between(db: sqlite3.Connection, table: str, first: int, last: int) -> Iterator[sqlite3.Row]:
    """Rows by number; where some cannot be read, those around them."""
    if first > last:
        return
    order = f"SELECT * FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
    try:
        found = db.execute(order, [first, last]).fetchall()
    except (sqlite3.Error, UnicodeError):
        if first < last:
            middle = (first + last) // 2
            yield from _between(db, table, first, middle)
            yield from _between(db, table, middle + 1, last)
        return
    yield from found


def _from_both_ends(db: sqlite3.Connection, table: str) -> Sequence[sqlite3.Row]:
    """Rows of a table without numbers, up to what cannot be read, from either end."""
    found: dict[tuple[Any, ...], sqlite3.Row] = {}
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error, UnicodeError):
            for row in db.execute(f"SELECT * FROM {table} ORDER BY 1 {order}"):
                found[tuple(row)] = row
    return list(found.values())
