"""Cases and patches as the wire and the command line show them."""

from collections.abc import Container
from datetime import UTC, datetime

from star_lsp.protocol import CaseInfo, PatchInfo, Position
from star_lsp.store import Case, Patch

__all__ = ["case_info", "patch_info", "when"]


def case_info(case: Case, others: Container[str] = ()) -> CaseInfo:
    """A case as it is listed; ``others`` are those of other models than the one in use."""
    return CaseInfo(
        case.id,
        case.status,
        case.language,
        case.uri or None,
        Position(case.line, case.character) if case.uri else None,
        case.rejected,
        case.expected,
        case.patch,
        case.reason,
        when(case.created),
        case.model,
        case.id in others,
    )


def patch_info(patch: Patch, base: str = "") -> PatchInfo:
    """A patch as it is listed; of the model in use, where its ``base`` is told, if it is to be active."""
    return PatchInfo(
        patch.id,
        patch.base,
        list(patch.cases),
        patch.active and base in ("", patch.base),
        patch.revision,
        when(patch.created),
        dict(patch.verdict),
    )


def when(seconds: float) -> str:
    """A time in seconds since the epoch as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
