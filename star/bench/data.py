"""What repairs are measured on: rows of a file, each one piece of knowledge to teach.

A recipe turns the fields of a row into contexts. What a context expects is what a server can show there: the
text is cut where the stop rule ends a suggestion.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from star.bench.fields import Fields, rows_of
from star.case import Case
from star.context import Context, Role
from star.errors import BenchError
from star.stop import StopRule

__all__ = [
    "RECIPES",
    "Context",
    "Put",
    "Recipe",
    "Role",
    "Row",
    "halves",
    "programs",
    "read",
    "select",
]

T = TypeVar("T")

#: How the server puts a context to its model: layout, truncation, stop rule.
Put = Callable[[Context], Case]


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of knowledge to teach: a flagged context, and what tells whether it was learnt well."""

    id: str
    flagged: Context
    siblings: tuple[Context, ...] = ()
    neighbours: tuple[Context, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rows of one kind become contexts: from fields that they need, and a template where one is used."""

    needs: tuple[str, ...]
    row: Callable[[Fields, str], Row]
    template: str = ""


def read(path: Path, recipe: str = "auto", template: str | None = None) -> tuple[Row, ...]:
    """The rows of a file: JSON Lines, or a table with tabs and a header (``.tsv``).

    Args:
        path: The file, UTF-8.
        recipe: A name in ``RECIPES``; ``auto`` chooses one by the fields of the first row.
        template: What stands before the cursor for a row of intent and snippet, ``{intent}`` in it.

    Raises:
        BenchError: the file cannot be read, holds nothing, or has a row that does not fit its recipe.
    """
    if recipe != "auto" and recipe not in RECIPES:
        raise BenchError(f"There is no recipe {recipe!r}; use auto, {', '.join(RECIPES)}.")
    if template is not None and "{intent}" not in template:
        raise BenchError("The template has no {intent} in it; write it where the intent shall stand.")
    lines = rows_of(path)
    chosen = RECIPES[_guess(lines[0]) if recipe == "auto" else recipe]
    rows: dict[str, Row] = {}
    for line in lines:
        row = chosen.row(line, chosen.template if template is None else template)
        # Published files hold a few rows twice.
        if rows.setdefault(row.id, row) != row:
            raise BenchError(f"{line.where} has the id {row.id!r} of an earlier row; give it one of its own.")
    return tuple(rows.values())


def select(
    rows: Sequence[T], limit: int | None = None, seed: int | None = None, skip: int = 0
) -> tuple[T, ...]:
    """Up to ``limit`` rows after ``skip``: in the file's order, or in one drawn by ``seed``.

    A larger limit gives the same rows and more after them.
    """
    order = list(range(len(rows)))
    if seed is not None:
        random.Random(seed).shuffle(order)
    return tuple(rows[i] for i in order[skip : None if limit is None else skip + limit])


def halves(rows: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Rows for tuning and rows for the figures: every second one, so that they never overlap."""
    return tuple(rows[0::2]), tuple(rows[1::2])


def programs(path: Path) -> tuple[tuple[str, str], ...]:
    """Prompts and their solutions, as in HumanEval: everyday code on which a repair should change nothing.

    Raises:
        BenchError: the file cannot be read, or a row lacks one.
    """
    return tuple((row.text("prompt"), row.text("canonical_solution")) for row in rows_of(path))


def _guess(first: Fields) -> str:
    for name, recipe in RECIPES.items():
        if all(need in first.values for need in recipe.needs):
            return name
    wanted = "; ".join(f"{name}: {', '.join(recipe.needs)}" for name, recipe in RECIPES.items())
    raise BenchError(f"{first.where} has the fields of no recipe ({wanted}); rename its fields.")


def _context(
    id_: str, fields: Fields, prefix: str, suffix: str, expected: str, role: Role = "flagged"
) -> Context:
    """A context that expects what can be shown at its place, which a neighbour alone may leave empty."""
    shown = StopRule.at(prefix, suffix).trim(expected)
    if not shown and role != "neighbour":
        raise BenchError(f"{fields.where} expects nothing that could be shown; delete it.")
    return Context(id_, prefix, suffix, shown, role)


def _plain(fields: Fields, _template: str) -> Row:
    prefix, suffix, expected = (fields.text(name) for name in ("prefix", "suffix", "expected"))
    return Row(fields.id, _context(fields.id, fields, prefix, suffix, expected))


def _asked(intent: str, snippet: str, better: str = "") -> Callable[[Fields, str], Row]:
    """Rows whose intent, on one line, stands before the cursor; ``better`` is preferred to it."""

    def row(fields: Fields, template: str) -> Row:
        said = fields.text(better if fields.values.get(better) else intent)
        prefix = template.replace("{intent}", " ".join(said.split()))
        return Row(fields.id, _context(fields.id, fields, prefix, "", fields.text(snippet)))

    return row


def _assembler(fields: Fields, template: str) -> Row:
    """As published, a line break inside a snippet is spelt ``\\n`` between blanks."""
    snippet = fields.text("snippet").replace(" \\n ", "\n")
    return _asked("intent", "snippet")(
        Fields(fields.where, fields.name, {**fields.values, "snippet": snippet}), template
    )


def _api_drift(fields: Fields, _template: str) -> Row:
    roles: dict[str, Role] = {"near": "near", "distant": "distant"}

    def context(part: Fields, id_: str, expected: str, role: Role) -> Context:
        return _context(id_, part, part.text("prefix"), part.text("suffix"), part.text(expected), role)

    siblings = []
    for i, part in enumerate(fields.parts("siblings")):
        if (role := roles.get(part.text("distance"))) is None:
            raise BenchError(f"{part.where} has a distance that is neither near nor distant; mend it.")
        siblings.append(context(part, f"{fields.id}/{role}-{i}", "expected", role))
    neighbours = tuple(
        context(part, f"{fields.id}/neighbour-{i}", "baseline", "neighbour")
        for i, part in enumerate(fields.parts("neighbours"))
    )
    flagged = context(fields.inner("flagged", fields.values.get("flagged")), fields.id, "expected", "flagged")
    return Row(fields.id, flagged, tuple(siblings), neighbours)


#: The recipes by name, those that need most first: that is how ``auto`` tells them apart.
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "api-drift": Recipe(("flagged", "siblings", "neighbours"), _api_drift),
        "plain": Recipe(("prefix", "suffix", "expected"), _plain),
        "conala": Recipe(
            ("rewritten_intent", "snippet"), _asked("intent", "snippet", "rewritten_intent"), "# {intent}\n"
        ),
        "tldr": Recipe(("nl", "cmd"), _asked("nl", "cmd"), "#!/bin/sh\n# {intent}\n"),
        "intent": Recipe(("intent", "snippet"), _asked("intent", "snippet"), "# {intent}\n"),
        "ia32": Recipe(("intent", "snippet"), _assembler, "; {intent}\n"),
    }
)
