"""Cases as lines of JSON, read all or not at all."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from star_lsp.errors import FlagError, ServerError
from star_lsp.mask import taught

__all__ = ["CaseFileError", "Written", "read_cases"]

_FIELDS = ("prefix", "suffix", "expected", "rejected", "language")
_REQUIRED = ("prefix", "expected")


class CaseFileError(ServerError):
    """A file of cases cannot be read."""


@dataclass(frozen=True, slots=True)
class Written:
    """A case as it stands in a file, secrets in it masked."""

    prefix: str
    suffix: str
    expected: str
    rejected: str
    language: str
    note: str
    #: Kinds of secrets that were masked.
    masked: tuple[str, ...]


def read_cases(path: str) -> list[Written]:
    """The cases in a file, one JSON object a line; ``-`` is standard input.

    Raises:
        CaseFileError: names every line that is wrong, and what is wrong with it.
    """
    name = "standard input" if path == "-" else path
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CaseFileError(f"{name} cannot be read ({error.strerror}); name a file of cases.") from error
    problems: list[str] = []
    cases: list[Written] = []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        wrong, value = _object(line)
        wrong = wrong or [*_wrong(value)]
        if not wrong:
            try:
                cases.append(_masked(*(value.get(field) or "" for field in _FIELDS)))
            except FlagError as error:
                wrong = [str(error)]
        problems += [f"line {number}: {reason}" for reason in wrong]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise CaseFileError(
            f"{name} has {len(problems)} problem{'s' * (len(problems) != 1)}, so no case was taken from it; "
            f"mend what is listed and try again:\n{listed}"
        )
    if not cases:
        raise CaseFileError(f"{name} holds no case; write one JSON object a line, with prefix and expected.")
    return cases


def _masked(prefix: str, suffix: str, expected: str, rejected: str, language: str) -> Written:
    """A case without its secrets.

    Raises:
        FlagError: what is expected holds one.
    """
    masked = taught(prefix, suffix, expected, rejected, language=language)
    return Written(
        masked.prefix, masked.suffix, expected, masked.middles[1], language, masked.told, masked.kinds
    )


def _object(line: bytes) -> tuple[list[str], Mapping[str, Any]]:
    """What is wrong with a line as JSON, and the object that it is."""
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return ["is not UTF-8"], {}
    except json.JSONDecodeError as error:
        return [f"is not JSON ({error.msg} at column {error.colno})"], {}
    except RecursionError:
        return ["is nested too deeply"], {}
    return ([], value) if isinstance(value, dict) else (["is not an object with named fields"], {})


def _wrong(value: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a case; names that are none of ours, nor nearly so, are passed over."""
    for field in _REQUIRED:
        if field not in value:
            yield f"{field} is missing"
    for field in _FIELDS:
        given = value.get(field)
        if field not in value or (given is None and field not in _REQUIRED):
            continue
        if not isinstance(given, str):
            yield f"{field} must be a string, not {json.dumps(given)[:40]}"
        elif not _encodes(given):
            yield f"{field} has half of a surrogate pair, which is no character"
    for field in value:
        if field not in _FIELDS and (near := get_close_matches(field.lower(), _FIELDS, n=1, cutoff=0.8)):
            yield f"there is no field {field}; did you mean {near[0]}?"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
