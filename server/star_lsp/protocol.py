"""Every message beyond LSP: what a command takes, what it returns, what the server tells by itself.

Its twin is ``vscode-client/src/protocol.ts``; a test holds the two equal. On the wire names are in
camelCase, a field with a default may be left out, and a field that may be null is always sent.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
from cattrs import BaseValidationError, ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from star_lsp.errors import ServerError

FLAG = "star.flag"
REPAIR_ALL = "star.repairAll"
CANCEL_REPAIR = "star.cancelRepair"
ACCEPT = "star.accept"
LIST_CASES = "star.listCases"
DELETE_CASE = "star.deleteCase"
LIST_PATCHES = "star.listPatches"
REVERT = "star.revert"
STATUS = "star.status"
COMMANDS = (FLAG, REPAIR_ALL, CANCEL_REPAIR, ACCEPT, LIST_CASES, DELETE_CASE, LIST_PATCHES, REVERT, STATUS)

DID_CHANGE = "star/didChange"

CaseStatus = Literal["pending", "repairing", "solved", "failed", "reverted"]
ServerState = Literal["downloading", "loading", "ready", "repairing", "failed"]
Changed = Literal["cases", "patches", "revision", "state"]

__all__ = [
    "ACCEPT",
    "CANCEL_REPAIR",
    "COMMANDS",
    "DELETE_CASE",
    "DID_CHANGE",
    "FLAG",
    "LIST_CASES",
    "LIST_PATCHES",
    "MESSAGES",
    "REPAIR_ALL",
    "REVERT",
    "STATUS",
    "AcceptParams",
    "AcceptResult",
    "CancelRepairParams",
    "CancelRepairResult",
    "CaseInfo",
    "CaseStatus",
    "Changed",
    "DeleteCaseParams",
    "DeleteCaseResult",
    "DidChangeParams",
    "FlagParams",
    "FlagResult",
    "ListCasesParams",
    "Memory",
    "ParameterError",
    "PatchInfo",
    "Position",
    "RepairAllParams",
    "RepairAllResult",
    "RevertParams",
    "RevertResult",
    "ServerState",
    "StatusResult",
    "converter",
    "structure",
    "unstructure",
]


class ParameterError(ServerError):
    """What a command was given is not what it takes."""


@attrs.frozen
class Position:
    """A place in a document, as LSP has it: both from 0, characters in UTF-16 units."""

    line: int
    character: int


@attrs.frozen
class FlagParams:
    """A completion is wrong. It is named by its id, or is the last one shown at a place."""

    completion_id: str | None = None
    uri: str | None = None
    position: Position | None = None
    expected: str | None = None
    note: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.completion_id is None and (self.uri is None or self.position is None):
            raise ParameterError(
                "which completion is meant is not said: give completionId, or uri and position"
            )


@attrs.frozen
class FlagResult:
    """The case that was stored; its repair follows with progress."""

    case_id: str
    status: CaseStatus


@attrs.frozen
class RepairAllParams:
    """Repair these cases, or all pending ones, in one go."""

    cases: list[str] | None = None
    from_base: bool = True


@attrs.frozen
class RepairAllResult:
    """The repair that was queued, and the cases it is for."""

    repair_id: str
    cases: list[str]


@attrs.frozen
class CancelRepairParams:
    """Stop a repair, named by itself or by a case it is for."""

    repair_id: str | None = None
    case_id: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.repair_id is None and self.case_id is None:
            raise ParameterError("which repair is meant is not said: give repairId or caseId")


@attrs.frozen
class CancelRepairResult:
    """Whether there was something to stop."""

    cancelled: bool


@attrs.frozen
class AcceptParams:
    """A completion was taken over into the document."""

    completion_id: str


@attrs.frozen
class AcceptResult:
    """Whether the completion was still remembered."""

    accepted: bool


@attrs.frozen
class ListCasesParams:
    """All cases, or those of one status."""

    status: CaseStatus | None = None


@attrs.frozen
class CaseInfo:
    """A case; ``created_at`` is ISO 8601 in UTC."""

    id: str
    status: CaseStatus
    language: str
    uri: str | None
    rejected: str
    expected: str
    patch_id: str | None
    reason: str | None
    created_at: str


@attrs.frozen
class DeleteCaseParams:
    """Forget a case."""

    case_id: str


@attrs.frozen
class DeleteCaseResult:
    """Whether there was such a case."""

    deleted: bool


@attrs.frozen
class PatchInfo:
    """A patch; ``revision`` is the one it led to, ``verdict`` what the gate found."""

    id: str
    cases: list[str]
    active: bool
    revision: str | None
    created_at: str
    verdict: dict[str, Any] | None


@attrs.frozen
class RevertParams:
    """Take back a patch, or what was done for a case."""

    patch_id: str | None = None
    case_id: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.patch_id is None and self.case_id is None:
            raise ParameterError("what is to be reverted is not said: give patchId or caseId")


@attrs.frozen
class RevertResult:
    """The revision that is served from now on."""

    revision: str


@attrs.frozen
class Memory:
    """Memory in bytes: all that is resident, and what is not shared; null while there is no worker."""

    server_bytes: int
    server_private_bytes: int
    worker_bytes: int | None
    worker_private_bytes: int | None


@attrs.frozen
class StatusResult:
    """How the server is; ``queue`` is how many cases wait for their repair."""

    state: ServerState
    model: str
    revision: str | None
    queue: int
    worker_pid: int | None
    memory: Memory | None


@attrs.frozen
class DidChangeParams:
    """Something that clients may show is no longer what it was."""

    what: list[Changed]
    state: ServerState
    revision: str | None


MESSAGES = (
    Position,
    FlagParams,
    FlagResult,
    RepairAllParams,
    RepairAllResult,
    CancelRepairParams,
    CancelRepairResult,
    AcceptParams,
    AcceptResult,
    ListCasesParams,
    CaseInfo,
    DeleteCaseParams,
    DeleteCaseResult,
    PatchInfo,
    RevertParams,
    RevertResult,
    Memory,
    StatusResult,
    DidChangeParams,
)

T = TypeVar("T")


def converter() -> Converter:
    """Between the messages above and JSON: camelCase, no unknown names, no value turned into another type."""
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
    return raw


def _reasons(error: BaseException, raw: object, above: str) -> Iterator[str]:
    """What is wrong, a clause for each field, from the tree that cattrs raises."""
    if isinstance(error, ParameterError):
        yield str(error)
    elif isinstance(error, ForbiddenExtraKeysError):
        names = [_camel(item.name) for item in attrs.fields(error.cl)]
        for extra in sorted(error.extra_fields):
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
    simple = {str: "a string", int: "a whole number", bool: "true or false", type(None): "null"}
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
