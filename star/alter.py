"""The same place in another file: what a lesson that was learnt, not memorized, survives.

Each alteration keeps what the completion rests on, so that ``expected`` is as right as before. What stands
below is left alone, and so is the line of the cursor, unless a name in it is another now.
"""

import ast
import random
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

from star.context import Context
from star.rename import renamed
from star.syntax import Definition, bindings, lines_of, syntax, texts, words

__all__ = ["alterations"]

#: Lines right above the cursor that are never removed.
_NEAR_LINES = 3

#: Of our own writing, about nothing in particular; the names that each brings along come first.
_PYTHON = (
    ("colorsys", "import colorsys\n\n"),
    ("GRACE_SECONDS", "GRACE_SECONDS = 45\n\n\n"),
    (
        "within",
        'def within(value, low, high):\n    """The value, held between two limits."""\n'
        "    return max(low, min(high, value))\n\n\n",
    ),
)
_COMMENTS = (
    "Checked once a week; ask before you change it.",
    "Kept in step with the notes for operators.",
    "Moved here from the old tree.",
)

_IMPORT = re.compile(
    r"\s*(?:(?:import|from|use|using|#include)\b(?!.*\b__future__\b)[^()\\]*|.*\brequire\([^()]*\);?|\t\"[^\"]+\")"
)
_LITERAL = re.compile(
    r"\s*(?:(?:const|let|var)\s+)?(?P<name>\w+)\s*:?=\s*"
    r"(?:\"[^\"\\]*\"|'[^'\\]*'|[\d._]+|true|false|True|False|None|null);?"
)
#: Words that stand in statements of many languages, and name nothing.
_COMMON = words("as class const def export final for from func function if import in java let new var")

#: Lines that say what is meant, or what the file is.
_TOLD = ("#", "//", "/*", "*", ";", "--", '"', "'", "<?", "package ", "module ", "%")
_CONTINUES = re.compile(r"\s*(?:[)\]}]|(?:else|elif|except|finally|case|end|fi|done|esac)\b)")


def alterations(context: Context, seed: int = 0) -> tuple[Context, ...]:
    """The context with lines above removed, added and reordered, and with an identifier renamed.

    Those that cannot be had of it are left out. The ids say which is which: ``~removed`` and so on.
    """
    made = {
        "removed": _above(context, _removed),
        "added": _above(context, lambda each: _added(each, seed)),
        "reordered": _above(context, _reordered),
        "renamed": renamed(context, seed),
    }
    return tuple(replace(each, id=f"{context.id}~{how}") for how, each in made.items() if each)


def _above(context: Context, alter: Callable[[Context], str | None]) -> Context | None:
    """The context with an altered prefix; None: nothing to alter, or it would no longer be well-formed."""
    prefix = alter(context)
    if prefix is None or prefix == context.prefix:
        return None
    made = replace(context, prefix=prefix)
    return made if _is_sound(context, made) else None


def _is_sound(before: Context, after: Context) -> bool:
    return syntax(_document(before)) is None or syntax(_document(after)) is not None


def _document(context: Context) -> str:
    return context.prefix + context.expected + context.suffix


# -- removed -----------------------------------------------------------------------------------------------


def _removed(context: Context) -> str | None:
    """Without whole statements of the first half: those that nothing above the cursor needs.

    Where there are none, the file begins later, as if a prompt had been cut: then only what is expected is
    sure to have its names.
    """
    return _thinned(context, strictly=True) or _thinned(context, strictly=False)


def _thinned(context: Context, *, strictly: bool) -> str | None:
    lines = context.prefix.split("\n")
    document = _document(context)
    told, is_python = texts(document), syntax(document) is not None
    gone: set[int] = set()
    # From below, so that what only the removed needed goes as well.
    for unit in reversed(list(_units(lines, len(lines) // 2, len(lines) - 1 - _NEAR_LINES))):
        if unit.start in told:
            continue
        rest = [line for i, line in enumerate(lines) if i not in gone and i not in unit] if strictly else []
        if words("\n".join([*rest, context.expected])) & _bound([lines[i] for i in unit], is_python):
            continue
        spaced = unit.start > 0 and lines[unit.start - 1].strip()
        tried = gone | {i for i in unit if lines[i].strip() or not spaced}
        if _is_sound(context, replace(context, prefix=_without(lines, tried))):
            gone = tried
    return _without(lines, gone).lstrip("\n") if gone else None


def _without(lines: list[str], gone: set[int]) -> str:
    return "\n".join(line for i, line in enumerate(lines) if i not in gone)


def _units(lines: list[str], half: int, end: int) -> Iterator[range]:
    """Statements with all that is under them, which begin before ``half`` and are over by ``end``."""
    start = 0
    while start < half:
        line = lines[start]
        stop = _end(lines, start)
        while stop < len(lines) and lines[stop - 1].strip() and line.lstrip().startswith("@"):
            line, stop = lines[stop], _end(lines, stop)  # a decorator goes with what it decorates
        if not line.strip() or line.lstrip().startswith(_TOLD) or _CONTINUES.match(line) or stop > end:
            start += 1  # what is under it may be removed all the same
        else:
            yield range(start, stop)
            start = stop


def _end(lines: list[str], start: int) -> int:
    """Where the statement that begins at a line is over, all that is deeper and blank lines with it."""
    for i in range(start + 1, len(lines)):
        line = lines[i]
        if line.strip() and _indent(line) <= _indent(lines[start]) and not _CONTINUES.match(line):
            return i
    return len(lines)


def _indent(line: str) -> int:
    return len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())


def _bound(lines: list[str], is_python: bool) -> set[str]:
    """The names that a statement brings along; all its words where it cannot be read."""
    text = "\n".join(lines)
    tree = syntax(textwrap.dedent(text)) if is_python else None
    return bindings(tree) if tree and tree.body else words(text) - _COMMON


# -- added -------------------------------------------------------------------------------------------------


def _added(context: Context, seed: int) -> str | None:
    """With something more at the top level: code in Python, elsewhere a comment."""
    document = _document(context)
    lines = context.prefix.split("\n")
    drawn = random.Random(f"{seed} {context.id}")
    if (tree := syntax(document)) and tree.body:
        known = words(document)
        pieces = [text for name, text in _PYTHON if name not in known]
        if not pieces:
            return None
        at, text = _opening(context), drawn.choice(pieces)
    else:
        at = 1 if lines[0].startswith(("#!", "<?")) and len(lines) > 1 else 0
        text = f"{_marker(document)} {drawn.choice(_COMMENTS)}\n\n"
    return "\n".join([*lines[:at], text + "\n".join(lines[at:])])


def _opening(context: Context) -> int:
    """The line, at most the cursor's, before the first statement that is no import and no docstring.

    Comments right above the statement stay with it.
    """
    tree = syntax(_document(context))
    lines = context.prefix.split("\n")
    at = 0
    for number, node in enumerate(tree.body if tree else ()):
        first, _ = lines_of(node)
        if first >= len(lines):
            break
        at = first
        if not (
            isinstance(node, ast.Import | ast.ImportFrom) or (number == 0 and isinstance(node, ast.Expr))
        ):
            break
    while at > 0 and lines[at - 1].startswith("#") and not lines[at - 1].startswith("#!"):
        at -= 1
    return at


def _marker(document: str) -> str:
    """What begins a comment."""
    if re.search(r"^\s*(?://|/\*|#\s*(?:include|define|pragma|if))", document, re.MULTILINE):
        return "//"
    for marker in ("#", ";", "--"):
        if re.search(rf"^\s*{marker}", document, re.MULTILINE):
            return marker
    return "//" if re.search(r"[;{]\s*$", document, re.MULTILINE) else "#"


# -- reordered ---------------------------------------------------------------------------------------------


def _reordered(context: Context) -> str | None:
    """With two neighbours swapped that know nothing of each other: imports, literals, definitions."""
    lines = context.prefix.split("\n")
    for pattern in (_IMPORT, _LITERAL):
        for i in range(len(lines) - 2):
            pair = lines[i : i + 2]
            if pair[0] != pair[1] and _are_free(pattern, *pair):
                return "\n".join([*lines[:i], *reversed(pair), *lines[i + 2 :]])
    return _definitions_swapped(context, lines)


def _are_free(pattern: re.Pattern[str], one: str, two: str) -> bool:
    first, second = pattern.fullmatch(one), pattern.fullmatch(two)
    if not first or not second or _indent(one) != _indent(two):
        return False
    return "name" not in pattern.groupindex or first["name"] != second["name"]


def _definitions_swapped(context: Context, lines: list[str]) -> str | None:
    tree = syntax(_document(context))
    body = tree.body if tree else []
    for one, two in pairwise(body):
        if not (isinstance(one, Definition) and isinstance(two, Definition)):
            continue
        (a, b), (c, d) = lines_of(one), lines_of(two)
        if d >= len(lines):
            return None
        first, between, second = lines[a:b], lines[b:c], lines[c:d]
        known = one.name in words("\n".join(second)) or two.name in words("\n".join(first))
        if not known and not any(line.strip() for line in between):
            return "\n".join([*lines[:a], *second, *between, *first, *lines[d:]])
    return None
