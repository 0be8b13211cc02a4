"""Every message beyond LSP: what a command takes, what it returns, what the server tells by itself.

Its twin is ``vscode-client/src/protocol.ts``; a test holds the two equal. On the wire (``wire.py``) names
are in camelCase, a field with a default may be left out, and a field that may be null is always sent.
"""

from typing import Any, Literal

import attrs

from star_lsp.errors import ParameterError

FLAG = "star.flag"
REPAIR_ALL = "star.repairAll"
CANCEL_REPAIR = "star.cancelRepair"
ACCEPT = "star.accept"
LIST_CASES = "star.listCases"
DELETE_CASE = "star.deleteCase"
UNFLAG = "star.unflag"
LIST_PATCHES = "star.listPatches"
SHOW_PATCH = "star.showPatch"
COMPARE = "star.compare"
REVERT = "star.revert"
ESTIMATE = "star.estimate"
WHY = "star.why"
STATUS = "star.status"
COMMANDS = (
    FLAG,
    REPAIR_ALL,
    CANCEL_REPAIR,
    ACCEPT,
    LIST_CASES,
    DELETE_CASE,
    UNFLAG,
    LIST_PATCHES,
    SHOW_PATCH,
    COMPARE,
    REVERT,
    ESTIMATE,
    WHY,
    STATUS,
)

DID_CHANGE = "star/didChange"
#: What is asked of the server that all editors share, before or after it is somebody's language server.
ABOUT, STOP = "star/about", "star/stop"

CaseStatus = Literal["pending", "repairing", "solved", "failed", "reverted"]
ServerState = Literal["downloading", "loading", "ready", "repairing", "failed"]
Changed = Literal["cases", "patches", "revision", "state"]
ComparedKind = Literal["flagged", "sibling", "neighbour"]

__all__ = [
    "ABOUT",
    "ACCEPT",
    "CANCEL_REPAIR",
    "COMMANDS",
    "COMPARE",
    "DELETE_CASE",
    "DID_CHANGE",
    "ESTIMATE",
    "FLAG",
    "LIST_CASES",
    "LIST_PATCHES",
    "MESSAGES",
    "REPAIR_ALL",
    "REVERT",
    "SHOW_PATCH",
    "STATUS",
    "STOP",
    "UNFLAG",
    "WHY",
    "AcceptParams",
    "AcceptResult",
    "CancelRepairParams",
    "CancelRepairResult",
    "CaseContext",
    "CaseInfo",
    "CaseStatus",
    "Changed",
    "CompareParams",
    "CompareResult",
    "Compared",
    "ComparedKind",
    "DeleteCaseParams",
    "DeleteCaseResult",
    "DidChangeParams",
    "EstimateParams",
    "EstimateResult",
    "FlagParams",
    "FlagResult",
    "ListCasesParams",
    "Memory",
    "MovedLayer",
    "MovedNeuron",
    "Nothing",
    "PatchInfo",
    "PatchReport",
    "Position",
    "RepairAllParams",
    "RepairAllResult",
    "RevertParams",
    "RevertResult",
    "ServerState",
    "ShowPatchParams",
    "StatusResult",
    "UnflagParams",
    "UnflagResult",
    "WhyParams",
    "Working",
]


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
    """The case that was stored; its repair follows with progress.

    ``masked`` names the kinds of what looked like a secret in it and has a placeholder instead.
    """

    case_id: str
    status: CaseStatus
    masked: list[str] = attrs.field(factory=list)


@attrs.frozen
class RepairAllParams:
    """Repair these cases, or all pending ones, in one go; one of another model as one of this model's own."""

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
    """A case; ``created_at`` is ISO 8601 in UTC, ``position`` is where it was flagged in ``uri``.

    ``elsewhere`` says that it is the case of another ``model`` than the one in use.
    """

    id: str
    status: CaseStatus
    language: str
    uri: str | None
    position: Position | None
    rejected: str
    expected: str
    patch_id: str | None
    reason: str | None
    created_at: str
    model: str
    elsewhere: bool = False


@attrs.frozen
class DeleteCaseParams:
    """Forget a case."""

    case_id: str


@attrs.frozen
class DeleteCaseResult:
    """Whether there was such a case."""

    deleted: bool


@attrs.frozen
class UnflagParams:
    """Undo a flag, however far its repair has come."""

    case_id: str


@attrs.frozen
class UnflagResult:
    """What the case was before it was forgotten; what was solved is reverted too."""

    was: CaseStatus


@attrs.frozen
class PatchInfo:
    """A patch of ``base``; ``revision`` is the one it led to, ``verdict`` what the gate found.

    In a list of the server's it is active when it is in the history of the model in use.
    """

    id: str
    base: str
    cases: list[str]
    active: bool
    revision: str | None
    created_at: str
    verdict: dict[str, Any] | None


@attrs.frozen
class ShowPatchParams:
    """Everything about one patch."""

    patch_id: str


@attrs.frozen
class CaseContext:
    """A case with the lines around its place."""

    case: CaseInfo
    prefix: str
    suffix: str


@attrs.frozen
class MovedNeuron:
    """A neuron whose row of the output projection moved, and by how much (L2 norm)."""

    neuron: int
    norm: float


@attrs.frozen
class MovedLayer:
    """A layer of which a patch moves some of ``width`` neurons; ``most`` has those that moved most."""

    layer: int
    neurons: int
    width: int
    norm: float
    most: list[MovedNeuron]


@attrs.frozen
class Compared:
    """A place, and what the model writes there without the patch and with it.

    ``where`` says in words how it differs from the flagged place, ``prefix`` and ``suffix`` are the lines
    around it, ``expected`` is what should be there if that is known.
    """

    kind: ComparedKind
    case_id: str
    where: str
    prefix: str
    suffix: str
    expected: str | None
    before: str
    after: str


@attrs.frozen
class PatchReport:
    """A patch in full; ``depth`` is how many layers the model has, ``comparison`` null until it was made."""

    patch: PatchInfo
    cases: list[CaseContext]
    depth: int
    layers: list[MovedLayer]
    bytes: int
    comparison: list[Compared] | None


@attrs.frozen
class CompareParams:
    """Have the model write at flagged places, siblings and neighbours, without the patch and with it."""

    patch_id: str


@attrs.frozen
class CompareResult:
    """What it wrote; kept, and part of the report from now on."""

    comparison: list[Compared]


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
class EstimateParams:
    """How long would a repair of these cases take, or of all pending ones, as one system?"""

    cases: list[str] | None = None


@attrs.frozen
class EstimateResult:
    """About how long it takes, from what earlier repairs took, and how many cases it is for."""

    seconds: float
    cases: int


@attrs.frozen
class WhyParams:
    """Why was nothing suggested: in one document, or anywhere?"""

    uri: str | None = None


@attrs.frozen
class Nothing:
    """A request that was answered with nothing: where, why, and when (ISO 8601 in UTC)."""

    uri: str
    position: Position
    reason: str
    at: str


@attrs.frozen
class Memory:
    """Memory in bytes: all that is resident, and what is not shared; null while there is no worker."""

    server_bytes: int
    server_private_bytes: int
    worker_bytes: int | None
    worker_private_bytes: int | None


@attrs.frozen
class Working:
    """Long work that is under way, as its progress is told."""

    title: str
    message: str
    percent: int


@attrs.frozen
class StatusResult:
    """How the server is; ``queue`` is how many cases wait for a repair, ``failure`` why it cannot serve."""

    state: ServerState
    failure: str | None
    working: Working | None
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
    UnflagParams,
    UnflagResult,
    PatchInfo,
    ShowPatchParams,
    CaseContext,
    MovedNeuron,
    MovedLayer,
    Compared,
    PatchReport,
    CompareParams,
    CompareResult,
    RevertParams,
    RevertResult,
    EstimateParams,
    EstimateResult,
    WhyParams,
    Nothing,
    Memory,
    Working,
    StatusResult,
    DidChangeParams,
)
