"""Between messages and JSON: camelCase, no unknown names, no value turned into another type.

Knows no message: what is wrong with one is told from its own fields.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
from cattrs import BaseValidationError, ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from star_lsp.documents import valid
from star_lsp.errors import ParameterError

__all__ = ["converter", "structure", "unstructure"]

T = TypeVar("T")

#: Fields too many that are told one by one.
_MOST_EXTRA = 10

_DESCRIBED = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


@cache
def converter() -> Converter:
    """Between messages, which are attrs classes, and JSON; always the same, as each is prepared but once."""
    made = Converter(forbid_extra_keys=True)
    for kind in (str, int, bool):
        made.register_structure_hook(kind, _exactly)
    made.register_structure_hook_func(
        lambda kind: _origin(kind) is list,
        lambda raw, kind: [made.structure(item, get_args(kind)[0]) for item in _exactly(raw, list)],
    )
    made.register_structure_hook_func(
        lambda kind: _origin(kind) is dict, lambda raw, _: dict(_exactly(raw, dict))
    )

    # Factories, so that only the messages that are used are prepared.
    @made.register_structure_hook_factory(attrs.has)
    def _into(message: type, made: Converter) -> Any:
        names: dict[str, Any] = {
            item.name: override(rename=_camel(item.name)) for item in attrs.fields(message)
        }
        return make_dict_structure_fn(message, made, **names)

    @made.register_unstructure_hook_factory(attrs.has)
    def _out(message: type, made: Converter) -> Any:
        names: dict[str, Any] = {
            item.name: override(rename=_camel(item.name), omit_if_default=item.default is not attrs.NOTHING)
            for item in attrs.fields(message)
        }
        return make_dict_unstructure_fn(message, made, **names)

    return made


def structure(message: type[T], raw: object) -> T:
    """The message that ``raw`` is, which is JSON as a client sent it; null stands for no parameters.

    Raises:
        ParameterError: Names every field that is wrong, and what it must be.
    """
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ParameterError(f"{message.__name__} must be one object with named fields; send it as such.")
    try:
        return converter().structure(raw, message)
    except BaseValidationError as error:
        reasons = "; ".join(_reasons(error, raw, ""))
        raise ParameterError(f"{message.__name__} cannot be read: {reasons}.") from error


def unstructure(message: object) -> Any:
    """``message``, or a list of messages, as JSON."""
    return converter().unstructure(message)


def _origin(kind: Any) -> object:
    origin: object = get_origin(kind)
    return origin


def _exactly(raw: Any, kind: type) -> Any:
    if type(raw) is not kind:
        raise TypeError
    return valid(raw) if isinstance(raw, str) else raw


def _reasons(error: BaseException, raw: object, above: str) -> Iterator[str]:
    """What is wrong, a clause for each field, from the tree that cattrs raises."""
    if isinstance(error, ParameterError):
        yield str(error)
    elif isinstance(error, ForbiddenExtraKeysError):
        names = [_camel(item.name) for item in attrs.fields(error.cl)]
        extras = sorted(error.extra_fields)
        if len(extras) > _MOST_EXTRA:
            yield f"{len(extras)} fields are there that it does not have (remove them)"
            return
        for extra in extras:
            near = get_close_matches(extra, names, n=1)
            remedy = f"did you mean {near[0]}?" if near else "remove it"
            yield f"there is no field {above}{extra} ({remedy})"
    elif isinstance(error, ClassValidationError):
        inner, others = error.group_exceptions()
        for problem, note in inner:
            name = _camel(note.name)
            value = raw.get(name) if isinstance(raw, dict) else None
            if isinstance(problem, ClassValidationError) and isinstance(value, dict):
                yield from _reasons(problem, value, f"{above}{name}.")
            elif isinstance(problem, KeyError):
                yield f"{above}{name} is missing and must be {_described(note.type)}"
            else:
                yield f"{above}{name} must be {_described(note.type)}"
        for problem in others:
            yield from _reasons(problem, raw, above)
    else:
        yield "it is not an object with named fields"


def _described(kind: Any) -> str:
    simple = {
        str: "a string",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        type(None): "null",
    }
    if kind in simple:
        return simple[kind]
    if _origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if _origin(kind) is list:
        return "a list of strings"
    if attrs.has(kind):
        return "an object with " + ", ".join(_camel(item.name) for item in attrs.fields(kind))
    # A field that may be left out is described by what it is when it is there.
    inner = [choice for choice in get_args(kind) if choice is not type(None)]
    return _described(inner[0]) if len(inner) == 1 else "an object"


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match.group(1).upper(), name)
