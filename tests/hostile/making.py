"""Messages as an enemy, a broken client or chance would send them; from a source of chance alone."""

import contextlib
import enum
import json
import types as python
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from lsprotocol import types

from star_lsp import protocol
from star_lsp.body import Unreadable, parse

URIS = (
    "file:///work/a.py", "untitled:Untitled-1", "file:///work/%00.py", "file:///work/../../.env",
    "file://[x/a.py",
    "http://[::1/x", "", "a.py", "C:\\work\\a.py", "vscode-notebook-cell:/work/n.ipynb#W0",
    "file:///%ff%fe.py", "data:,x",
    "file:///\ud800.py", "x" * 70_000, "file:///" + "a/" * 3000,
)  # fmt: skip
TEXTS = ("", "x", "def f(x):\n    return ", "\x00", "\ud800", "\udc00\ud83d", "🎉", "a\r\nb\rc\n",
    "\x0c\u2028\x85", "\r" * 3000, " " * 5000,
         "<|fim_prefix|>", "x" * 20_000)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 7, 2**31 - 1, 2**31, 2**63, -(2**70), 10**400, 1.5, -0.0, 1e308, 1.0)
IDS: tuple[Any, ...] = (None, True, False, 1.5, -1, 0, 2**80, "", "x", "\ud800", [], {}, [1], {"a": 1})
COMMANDS = (*protocol.COMMANDS, "star.none", "", "\ud800")
PARAMS = {
    name: kind
    for name, kind in vars(protocol).items()
    if isinstance(kind, type) and attrs.has(kind) and name.endswith("Params")
}
METHODS = tuple(types.METHOD_TO_TYPES)
#: What clients send most, and what most happens on.
USUAL = (
    "textDocument/inlineCompletion", "textDocument/completion", "textDocument/codeAction",
    "workspace/executeCommand",
    "textDocument/didOpen", "textDocument/didChange", "textDocument/didClose", "notebookDocument/didOpen",
    "notebookDocument/didChange", "workspace/didChangeConfiguration", "window/workDoneProgress/cancel",
    "$/cancelRequest", "$/setTrace", "initialized", "textDocument/didSave",
)  # fmt: skip
#: Ends the session, or begins another: said where that is what is tested.
ENDS = ("exit", "shutdown")


def message(chance: Random) -> Any:
    """One message that does not end the session, as it is once it has been read from the wire."""
    while True:
        made = _message(chance)
        if isinstance(made, dict) and made.get("method") in ENDS:
            continue
        with contextlib.suppress(RecursionError, Unreadable):
            return parse(json.dumps(made).encode())


def _message(chance: Random) -> Any:
    """Mostly of a form that the protocol knows, then made worse."""
    kind = chance.random()
    if kind < 0.02:
        return anything(chance, 3)
    if kind < 0.05:
        return {
            "jsonrpc": "2.0",
            "id": odd_id(chance),
            chance.choice(("result", "error")): anything(chance, 2),
        }
    if kind < 0.07:
        return [_message(chance) for _ in range(chance.randrange(3))]
    made = request(chance)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 5))):
        made = worse(chance, made)
    return made


def request(chance: Random) -> dict[str, Any]:
    """A request or notification as the protocol has it."""
    method = chance.choice(USUAL if chance.random() < 0.8 else METHODS)
    if chance.random() < 0.03:
        method = chance.choice(("$/x", "x", "", "star/flag", "\ud800", "x" * 9000, "rpc.discover"))
    kinds = types.METHOD_TO_TYPES.get(method)
    made: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if kinds is None or kinds[1] is not None:
        made["id"] = chance.randrange(1_000_000) if chance.random() < 0.95 else odd_id(chance)
    if method == "workspace/executeCommand":
        command = chance.choice(COMMANDS)
        kind = PARAMS.get(
            command.removeprefix("star.")[:1].upper() + command.removeprefix("star.")[1:] + "Params"
        )
        argument = of_type(kind, chance, 3) if kind and chance.random() < 0.8 else anything(chance, 3)
        made["params"] = {"command": command, "arguments": [argument]}
    elif kinds is not None and kinds[2] is not None and chance.random() < 0.98:
        made["params"] = of_type(kinds[2], chance, 6)
    return made


def odd_id(chance: Random) -> Any:
    return chance.choice(IDS)


def anything(chance: Random, depth: int) -> Any:
    """Any JSON."""
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.random() < 0.5,
        lambda: chance.choice(NUMBERS),
        lambda: chance.choice((*TEXTS, *URIS)),
    ]
    if depth:
        kinds += [
            lambda: [anything(chance, depth - 1) for _ in range(chance.randrange(4))],
            lambda: {chance.choice(KEYS): anything(chance, depth - 1) for _ in range(chance.randrange(4))},
            lambda: nested(chance.choice((10, 200, 900)), chance.random() < 0.5),
        ]
    return chance.choice(kinds)()


KEYS = ("jsonrpc", "id", "method", "params", "result", "error", "uri", "from", "class", "type_name", "",
    "\ud800", "completion", "star-lsp", "x")  # fmt: skip


def nested(depth: int, lists: bool) -> Any:
    made: Any = 0
    for _ in range(depth):
        made = [made] if lists else {"a": made}
    return made


def of_type(kind: Any, chance: Random, depth: int) -> Any:
    """JSON of one of the protocol's types, or of ours."""
    origin = get_origin(kind)
    if kind is str:
        return chance.choice(URIS if chance.random() < 0.5 else TEXTS)
    if kind is int:
        return chance.choice((0, 0, 1, 2, 3, 9, 100, 2**31 - 1))
    if kind is float:
        return 0.5
    if kind is bool:
        return chance.random() < 0.5
    if kind in (None, type(None)):
        return None
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return chance.choice(list(kind)).value
    if isinstance(kind, type) and attrs.has(kind):
        return _object(kind, chance, depth)
    if origin in (Union, python.UnionType):
        return of_type(chance.choice(get_args(kind)), chance, depth)
    if origin is Literal:
        return chance.choice(get_args(kind))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {
            chance.choice(TEXTS): of_type(get_args(kind)[1], chance, depth - 1)
            for _ in range(chance.randrange(3))
        }
    if origin is tuple:
        return [of_type(each, chance, depth - 1) for each in get_args(kind) if each is not ...]
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        count = chance.randrange(3) if depth > 0 else 0
        return [of_type(get_args(kind)[0], chance, depth - 1) for _ in range(count)]
    return anything(chance, 1)


def _object(kind: Any, chance: Random, depth: int) -> dict[str, Any]:
    hints = _hints(kind)
    made = {}
    for field in attrs.fields(kind):
        if field.default is attrs.NOTHING or (depth > 0 and chance.random() < 0.4):
            value = of_type(hints[field.name], chance, depth - 1)
            if value is not None:
                made[_camel(field.name)] = value
    return made


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _camel(name: str) -> str:
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(map(str.capitalize, rest))


def worse(chance: Random, made: Any) -> Any:
    """The same with one thing in it altered, left out, doubled or put somewhere else."""
    places = list(_places(made))
    if not places:
        return anything(chance, 2)
    holder, key = chance.choice(places)
    act = chance.random()
    if act < 0.25:
        del holder[key]
    elif act < 0.75:
        holder[key] = anything(chance, 2)
    elif act < 0.9 and isinstance(holder, dict):
        holder[chance.choice(KEYS)] = anything(chance, 2)
    else:
        other, name = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[name]))
    return made


def _places(made: Any, depth: int = 8) -> Any:
    if depth:
        for key in (
            list(made) if isinstance(made, dict) else range(len(made)) if isinstance(made, list) else ()
        ):
            yield made, key
            yield from _places(made[key], depth - 1)
