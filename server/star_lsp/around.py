"""The places by which two states of a model are compared: flagged ones, their siblings, their neighbours."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from typing import Literal

from star.alter import alterations
from star.case import Case
from star.context import Context
from star.errors import CaseError
from star_lsp import jobs

__all__ = ["Kind", "Spot", "around"]

Kind = Literal["flagged", "sibling", "neighbour"]

#: How the server puts a place to its model: the case, or a CaseError.
Put = Callable[[str, str, str, str], Case]
#: The part of a prefix and a suffix that is near the place between them.
Cut = Callable[[str, str], tuple[str, str]]

_NEIGHBOURS = 4
#: A line that is as short as a closing bracket says nothing about the model.
_TELLING_CHARACTERS = 4
_COMMENTS = ("#", "//", "/*", "*", "--", '"""', "'''")
_WHERE = {
    "removed": "lines above left out",
    "added": "something more above",
    "reordered": "lines above in another order",
    "renamed": "another name",
}


@dataclass(frozen=True, slots=True)
class Spot:
    """One place that the model is asked at; ``where`` says how it differs from the flagged one."""

    kind: Kind
    flagged: str
    where: str
    context: Context
    case: Case


def around(teach: Sequence[jobs.Teach], put: Put, nearer: Cut) -> tuple[Spot, ...]:
    """All flagged places, then a sibling and a neighbour of each in turn, as many as there are.

    The others are made from what is ``nearer`` to a place: less to read for each of them.
    """
    flagged: list[Spot] = []
    others: list[list[Spot]] = []
    for each in teach:
        context = Context(each.id, each.prefix, each.suffix, each.expected)
        flagged += _spots("flagged", each.id, [("the flagged place", context)], put)
        prefix, suffix = nearer(each.prefix, each.suffix)
        context = replace(context, prefix=prefix, suffix=suffix)
        altered = [(_WHERE[made.id.rpartition("~")[2]], made) for made in alterations(context)]
        siblings = _spots("sibling", each.id, altered, put)
        neighbours = islice(_spots("neighbour", each.id, _lines(context), put), _NEIGHBOURS)
        others.append([spot for pair in zip_longest(siblings, neighbours) for spot in pair if spot])
    in_turn = chain.from_iterable(zip_longest(*others))
    return (*flagged, *(spot for spot in in_turn if spot))


def _spots(kind: Kind, flagged: str, contexts: Iterable[tuple[str, Context]], put: Put) -> Iterator[Spot]:
    """Places at which something can be shown at all."""
    for where, context in contexts:
        try:
            case = put(context.id, context.prefix, context.suffix, context.expected)
        except CaseError:
            continue
        yield Spot(kind, flagged, where, context, case)


def _lines(context: Context) -> Iterator[tuple[str, Context]]:
    """Other lines of the same text, nearest first, each taken out so that it is what is to be written.

    What stood there is not what is expected, only what is likely.
    """
    lines = (context.prefix + context.expected + context.suffix).split("\n")
    first = context.prefix.count("\n")
    last = first + context.expected.count("\n")
    seen = {line.strip() for line in lines[first : last + 1]}
    others = [number for number in range(len(lines)) if not first <= number <= last]
    for number in sorted(others, key=lambda number: max(first - number, number - last)):
        line = lines[number]
        code = line.strip()
        if len(code) < _TELLING_CHARACTERS or code in seen or not any(map(str.isalpha, code)):
            continue
        if code.startswith(_COMMENTS):
            continue
        seen.add(code)
        indent = line[: len(line) - len(line.lstrip())]
        prefix = "\n".join([*lines[:number], indent])
        suffix = "\n".join(["", *lines[number + 1 :]])
        count = first - number if number < first else number - last
        where = f"{count} line{'s' * (count != 1)} {'above' if number < first else 'below'}"
        made = replace(context, id=f"{context.id}~{number}", prefix=prefix, suffix=suffix, expected=code)
        yield where, made
