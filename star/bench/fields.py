"""Files of rows as they stand: JSON Lines, or a table with tabs and a header."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from star.errors import BenchError

__all__ = ["Fields", "rows_of"]


@dataclass(frozen=True, slots=True)
class Fields:
    """What a row of a file holds, and where it stands, for messages."""

    where: str
    #: A name for the row where the row gives itself none.
    name: str
    values: Mapping[str, object]

    @property
    def id(self) -> str:
        """The row's own id, or its place in the file."""
        return str(self.values.get("id", self.name))

    def text(self, name: str) -> str:
        """A field that must be a text.

        Raises:
            BenchError: it is not there, or something else.
        """
        value = self.values.get(name)
        if not isinstance(value, str):
            kind = "no field" if value is None else "no text in the field"
            raise BenchError(f"{self.where} has {kind} {name!r}; add it, or name another recipe.")
        return value

    def inner(self, name: str, value: object) -> "Fields":
        """A part of this row, which must be an object."""
        if not isinstance(value, dict):
            raise BenchError(f"{self.where} has no object {name!r}; add it, or name another recipe.")
        return Fields(f"{self.where} {name},", f"{self.name}/{name}", value)

    def parts(self, name: str) -> Iterator["Fields"]:
        """The objects in a list, which may be left out."""
        values = self.values.get(name, [])
        if not isinstance(values, list):
            raise BenchError(f"{self.where} has no list {name!r}; mend it, or name another recipe.")
        return (self.inner(f"{name}[{i}]", value) for i, value in enumerate(values))


def rows_of(path: Path) -> list[Fields]:
    """The rows of a file as they stand in it, at least one.

    Raises:
        BenchError: the file cannot be read, or holds nothing.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({error}); give a UTF-8 file of JSON Lines.") from error
    found = _table(text) if path.suffix == ".tsv" else _json_lines(path, text)
    rows = [Fields(f"{path.name}, line {n},", f"{path.stem}-{n}", values) for n, values in found]
    if not rows:
        raise BenchError(f"{path} holds no rows; give a file with at least one.")
    return rows


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BenchError(
                f"{path.name}, line {number}, is no JSON ({error}); mend or delete it."
            ) from error
        if not isinstance(values, dict):
            raise BenchError(f"{path.name}, line {number}, is no JSON object; mend or delete it.")
        yield number, values


def _table(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Rows below a header; the fields' names as ours are: ``INTENTS`` is ``intent``."""
    lines = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    names = [name.strip().lower().removesuffix("s") for name in next(lines, [])]
    for number, cells in enumerate(lines, 2):
        if any(cells):
            yield number, dict(zip(names, cells, strict=False))
