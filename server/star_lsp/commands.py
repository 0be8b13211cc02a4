"""What our own commands do, from parameters as JSON to a message: LSP's part of it is app's."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from star_lsp import feedback, protocol, report, undo
from star_lsp.completion import Completions
from star_lsp.errors import FlagError, ServerError
from star_lsp.listing import case_info, patch_info
from star_lsp.patience import patiently
from star_lsp.repairs import Repairs
from star_lsp.service import Service
from star_lsp.settings import Settings
from star_lsp.shown import Shown
from star_lsp.store import Store
from star_lsp.wire import structure

__all__ = ["Command", "commands"]

Command = Callable[[Any], Awaitable[object]]


def commands(
    service: Service,
    completions: Completions,
    settings: Callable[[], Settings],
    source: Callable[[str], str | None],
) -> Mapping[str, Command]:
    """Every command of one connection by its name.

    ``settings`` are those of its client; ``source`` is the text of an open document by its uri.
    """
    said = asyncio.Lock()  # what is said of completions is stored in the order in which it is said

    async def flag(raw: Any) -> protocol.FlagResult:
        params = structure(protocol.FlagParams, raw)
        shown = _meant(completions, params)
        async with said:
            case, masked = await feedback.flag(
                await service.opened(), shown, source(shown.uri), params.expected, params.note
            )
        completions.shown.flag(shown, case.id)
        service.flagged(case.id, settings().repair.schedule)
        return protocol.FlagResult(case.id, case.status, list(masked))

    async def unflag(raw: Any) -> protocol.UnflagResult:
        params = structure(protocol.UnflagParams, raw)
        was = await undo.undo(await service.opened(), service.queue, params.case_id)
        service.tell(["cases"])
        return protocol.UnflagResult(was)

    async def accept(raw: Any) -> protocol.AcceptResult:
        params = structure(protocol.AcceptParams, raw)
        shown = completions.shown.get(params.completion_id)
        keep = settings().feedback
        if shown and keep.keep_accepted:
            async with said:
                await feedback.accept(await service.opened(), shown, keep.kept_completions)
        return protocol.AcceptResult(shown is not None)

    async def repair_all(raw: Any) -> protocol.RepairAllResult:
        params = structure(protocol.RepairAllParams, raw)
        repairs = service.repairs
        cases = _asked(await service.opened(), repairs, params.cases)
        if not cases:
            raise ServerError("No case is pending; flag a completion first, or name cases to repair again.")
        repair = await patiently(repairs.ask, cases, from_base=params.from_base)
        return protocol.RepairAllResult(repair.id, list(repair.cases))

    async def cancel_repair(raw: Any) -> protocol.CancelRepairResult:
        params = structure(protocol.CancelRepairParams, raw)
        done = service.repairs.cancel(repair=params.repair_id, case=params.case_id)
        return protocol.CancelRepairResult(done)

    async def estimate(raw: Any) -> protocol.EstimateResult:
        params = structure(protocol.EstimateParams, raw)
        store = await service.opened()
        cases = {store.case(id_).id for id_ in _asked(store, service.queue, params.cases)}
        # One system from the base solves again what the history solves.
        again = store.solved_by(service.queue.history() if service.queue and cases else ())
        count = len(cases | {case.id for case in again})
        return protocol.EstimateResult(report.seconds(store.patches()) * count, len(cases))

    async def list_cases(raw: Any) -> list[protocol.CaseInfo]:
        params = structure(protocol.ListCasesParams, raw)
        cases = (await service.opened()).cases(params.status)
        others = service.queue.others() if service.queue else set[str]()
        return [case_info(case, others) for case in cases]

    async def delete_case(raw: Any) -> protocol.DeleteCaseResult:
        params = structure(protocol.DeleteCaseParams, raw)
        await patiently((await service.opened()).delete_case, params.case_id)
        service.tell(["cases"])
        return protocol.DeleteCaseResult(True)

    async def list_patches(_raw: Any) -> list[protocol.PatchInfo]:
        return [patch_info(patch, service.base) for patch in (await service.opened()).patches()]

    async def show_patch(raw: Any) -> protocol.PatchReport:
        params = structure(protocol.ShowPatchParams, raw)
        return await report.patch_report(
            await service.opened(), params.patch_id, service.models, service.base
        )

    async def compare(raw: Any) -> protocol.CompareResult:
        params = structure(protocol.CompareParams, raw)
        return protocol.CompareResult(await service.repairs.compare(params.patch_id))

    async def revert(raw: Any) -> protocol.RevertResult:
        params = structure(protocol.RevertParams, raw)
        await service.repairs.revert(patch=params.patch_id, case=params.case_id)
        return protocol.RevertResult(service.revision or "")

    async def why(raw: Any) -> list[protocol.Nothing]:
        params = structure(protocol.WhyParams, raw)
        return [each for each in reversed(completions.reasons) if params.uri in (None, each.uri)]

    async def status(_raw: Any) -> protocol.StatusResult:
        return await service.status()

    return {
        protocol.FLAG: flag,
        protocol.UNFLAG: unflag,
        protocol.ACCEPT: accept,
        protocol.REPAIR_ALL: repair_all,
        protocol.CANCEL_REPAIR: cancel_repair,
        protocol.ESTIMATE: estimate,
        protocol.LIST_CASES: list_cases,
        protocol.DELETE_CASE: delete_case,
        protocol.LIST_PATCHES: list_patches,
        protocol.SHOW_PATCH: show_patch,
        protocol.COMPARE: compare,
        protocol.REVERT: revert,
        protocol.WHY: why,
        protocol.STATUS: status,
    }


def _asked(store: Store, queue: Repairs | None, cases: list[str] | None) -> list[str]:
    """Cases that are named, each once, or all pending ones of the model in use."""
    if cases is None:
        return queue.pending() if queue else [case.id for case in store.cases("pending")]
    return list(dict.fromkeys(cases))


def _meant(completions: Completions, params: protocol.FlagParams) -> Shown:
    if params.completion_id is not None:
        shown = completions.shown.get(params.completion_id)
    else:
        assert params.uri is not None
        assert params.position is not None
        shown = completions.shown.at(params.uri, params.position.line, params.position.character)
    if shown is None:
        raise FlagError(
            "No completion is remembered there (the last 64 are); ask for one at that place, then flag it."
        )
    return shown
