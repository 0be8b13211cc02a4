"""Traces: a place in a file, and the line that a developer types there."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from star.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Trace", "of_source", "traces"]

#: A line shorter than this, without its indentation, is not worth a trace.
_LINE_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Trace:
    """A document as it is opened, and the ground truth: what is typed between its two parts."""

    name: str
    prefix: str
    suffix: str
    truth: str

    @property
    def uri(self) -> str:
        """How the document is named; it need not be on disk."""
        return f"file:///star-lsp-bench/{self.name}.py"


def traces(files: "Sequence[Path]", rows: int, seed: int) -> list[Trace]:
    """Up to ``rows`` traces of each file, drawn by ``seed``.

    Raises:
        BenchError: a file cannot be read, or has nothing to type.
    """
    found: list[Trace] = []
    for number, path in enumerate(files):
        of = _of_python if path.suffix == ".py" else _of_rows
        found += of(path, f"{number}-{path.stem}", rows, seed)
    return found


def of_source(text: str, name: str, rows: int, seed: int) -> list[Trace]:
    """Up to ``rows`` lines of a source file, each to be typed again where it was."""
    lines = text.split("\n")
    worth = [
        number
        for number, line in enumerate(lines)
        if len(line.strip()) >= _LINE_CHARACTERS and not line.lstrip().startswith("#")
    ]
    drawn = random.Random(f"{seed}/{name}").sample(worth, min(rows, len(worth)))
    return [
        Trace(
            f"{name}-{number + 1}",
            "".join(f"{line}\n" for line in lines[:number]),
            "".join(f"\n{line}" for line in lines[number + 1 :]),
            lines[number].rstrip(),
        )
        for number in drawn
    ]


def _of_rows(path: Path, name: str, rows: int, seed: int) -> list[Trace]:
    """Rows of HumanEval infilling. The line end of what was cut out stands right of the cursor already."""
    from star.bench.data import select
    from star.bench.fields import rows_of

    found = []
    for index, row in enumerate(rows_of(path)):
        solution = row.text("canonical_solution")
        truth = solution.removesuffix("\n")
        if truth.strip():
            rest = solution[len(truth) :] + row.text("suffix")
            found.append(Trace(f"{name}-{index + 1}", row.text("prompt"), rest, truth))
    if not found:
        raise BenchError(f"{path} has no row with anything to type; give rows of HumanEval infilling.")
    return list(select(found, rows, seed))


def _of_python(path: Path, name: str, rows: int, seed: int) -> list[Trace]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({error}); give a Python file in UTF-8.") from error
    found = of_source(text, name, rows, seed)
    if not found:
        raise BenchError(
            f"{path} has no line of {_LINE_CHARACTERS} characters to type again; give a longer file."
        )
    return found
