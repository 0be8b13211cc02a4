"""The lines of one run: each on disk before the next is measured, so that a run cut off goes on."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from star.errors import BenchError

__all__ = ["Line", "Results", "read"]

#: One thing that was measured: plain JSON; ``kind`` tells what.
Line = Mapping[str, Any]

_FILE = "results.jsonl"


class Results:
    """A folder's ``results.jsonl``, to look things up in and to add to."""

    def __init__(self, folder: Path, head: Line, *, fresh: bool = False) -> None:
        """Open the results of the run that ``head`` describes, or begin them.

        ``head["same"]`` is what must not change within one run. ``fresh`` puts an earlier run aside.

        Raises:
            BenchError: the folder holds another run, or cannot be written.
        """
        self.folder = folder
        self._path = folder / _FILE
        self._lines: list[Line] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh and self._path.exists():
                _put_aside(folder)
            if self._path.exists():
                self._lines = _whole(self._path)
                _refuse_another(folder, self._lines, head)
            kind = "resumed" if self._lines else "run"
            self.add({**head, "kind": kind})
        except OSError as error:
            raise _unwritable(folder, error) from error

    @property
    def lines(self) -> Sequence[Line]:
        """All that was measured so far."""
        return self._lines

    def add(self, line: Line) -> Line:
        """Put a line on disk; it is there when this returns. The line as it will be read.

        Raises:
            BenchError: the folder cannot be written.
        """
        line = _finite(dict(line))
        raw = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with self._path.open("ab") as file:
                file.write(raw.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._lines.append(line)
        return self._lines[-1]

    def find(self, **fields: object) -> Iterator[Line]:
        """The lines with these very fields, oldest first."""
        for line in self._lines:
            if all(line.get(name) == value for name, value in fields.items()):
                yield line

    def first(self, **fields: object) -> Line | None:
        """The oldest line with these very fields."""
        return next(self.find(**fields), None)


def read(folder: Path) -> list[Line]:
    """The lines in a folder of results, without a last one that was cut off.

    Raises:
        BenchError: there are none.
    """
    path = folder / _FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BenchError(
            f"{folder} holds no results ({error.strerror}); name the folder that a benchmark wrote to."
        ) from error
    lines, _ = _parsed(path, raw)
    if not lines or lines[0].get("kind") != "run":
        raise BenchError(f"{path} is not the results of a run; name the folder that a benchmark wrote to.")
    return lines


def _whole(path: Path) -> list[Line]:
    """The lines of a file, from which a last one that was cut off is cut away."""
    lines, size = _parsed(path, path.read_bytes())
    with path.open("r+b") as file:
        file.truncate(size)
    return lines


def _parsed(path: Path, raw: bytes) -> tuple[list[Line], int]:
    """Whole lines, and how many bytes they take."""
    lines: list[Line] = []
    size = 0
    for number, row in enumerate(raw.splitlines(keepends=True), 1):
        last = size + len(row) == len(raw)
        try:
            line = json.loads(row)
        except ValueError:
            line = None
        if last and (line is None or not row.endswith(b"\n")):
            break
        if not isinstance(line, dict) or "kind" not in line:
            raise BenchError(
                f"Line {number} of {path} is damaged; delete that line, or begin anew with --fresh."
            )
        lines.append(line)
        size += len(row)
    return lines, size


def _finite(value: Any) -> Any:
    """The same, with null for numbers that JSON does not have: a model that was wrecked writes such."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _refuse_another(folder: Path, lines: Sequence[Line], head: Line) -> None:
    """Do nothing, if what is there belongs to the same run."""
    if not lines:
        return
    there, here = lines[0].get("same", {}), head["same"]
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        told = ", ".join(
            f"{name} {_shown(there.get(name))} there and {_shown(here.get(name))} here" for name in names
        )
        raise BenchError(
            f"{folder} holds another run ({told}); give --out another folder, go on as that run began, "
            "or put it aside with --fresh."
        )


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _put_aside(folder: Path) -> None:
    """Rename an earlier run's lines and patches: hours of measuring are not deleted by a flag."""
    number = next(n for n in range(1, 10_000) if not (folder / f"{_FILE}.{n}").exists())
    (folder / _FILE).rename(folder / f"{_FILE}.{number}")
    if (folder / "lifelong").exists():
        (folder / "lifelong").rename(folder / f"lifelong.{number}")


def _unwritable(folder: Path, error: OSError) -> BenchError:
    return BenchError(
        f"{folder} cannot be written ({error.strerror}); make room, or give --out a folder of yours."
    )
