"""The queue of repairs: one at a time, from a flagged case to a patch in the history."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import AsyncFileLock

from star_lsp import jobs
from star_lsp.errors import NotFound, WorkerError
from star_lsp.process import Process
from star_lsp.settings import Settings
from star_lsp.store import Case, Patch, Store

__all__ = ["Listener", "Repair", "Repairs", "perform"]

_CANCEL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair that somebody asked for."""

    id: str
    cases: tuple[str, ...]
    #: Solve them together with all active cases from the pristine base, replacing the history.
    from_base: bool


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom the queue tells: that something changed, and how a repair goes."""

    #: Cases, patches or state changed.
    changed: Callable[[Sequence[str]], None]
    #: A repair moved on; ``None`` and a last word when it ended.
    progress: Callable[[Repair, jobs.Progress | None, str], None]
    #: The history changed: swap it in.
    install: Callable[[], Awaitable[None]]


class Repairs:
    """The queue of one server."""

    def __init__(
        self,
        store: Store,
        base: str,
        process: Process,
        settings: Callable[[], Settings],
        listener: Listener,
    ) -> None:
        """Take up the queue for one base; ``start`` begins to work."""
        self._store = store
        self._base = base
        self._process = process
        self._settings = settings
        self._listener = listener
        self._queue: list[Repair] = []
        self._running: Repair | None = None
        self._stopping = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Repairs that wait or run."""
        return len(self._queue) + (self._running is not None)

    @property
    def running(self) -> Repair | None:
        """The repair that runs now."""
        return self._running

    def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop working; what was under way is pending again."""
        self._process.kill()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def ask(self, cases: Sequence[str], *, from_base: bool) -> Repair:
        """Queue a repair of some cases.

        Raises:
            NotFound: a case does not exist.
        """
        for id_ in cases:
            self._store.case(id_)
        repair = Repair(f"r{secrets.token_hex(5)}", tuple(dict.fromkeys(cases)), from_base)
        self._queue.append(repair)
        self._wake.set()
        return repair

    def cancel(self, *, repair: str | None = None, case: str | None = None) -> bool:
        """Take a repair off the queue, or stop it where it runs; whether there was one."""

        def meant(each: Repair) -> bool:
            return each.id == repair or case in each.cases

        found = [each for each in self._queue if meant(each)]
        self._queue = [each for each in self._queue if not meant(each)]
        if self._running and meant(self._running):
            self._stopping = True
            self._process.cancel()
            # One that does not listen is ended: nothing it has done so far counts.
            asyncio.get_running_loop().call_later(_CANCEL_SECONDS, self._insist, self._running)
            return True
        for each in found:
            self._listener.progress(each, None, "cancelled")
        return bool(found)

    async def revert(self, *, patch: str | None = None, case: str | None = None) -> None:
        """Take a patch, or one case, out of the history, and swap the rest in.

        A patch that stands for several cases is solved again for the others.

        Raises:
            NotFound: no active patch is meant.
        """
        active = self._store.active(self._base)
        for each in active:
            if each.id == patch or case in each.cases:
                break
        else:
            raise NotFound(
                f"No active patch is or covers {patch or case}; `star-lsp patches` lists those there are."
            )
        rest = _revert(self._store, each, case)
        await self._listener.install()
        if rest:
            self.ask(rest, from_base=False)
        self._listener.changed(["cases", "patches", "revision"])

    # -- inside ----------------------------------------------------------------------------------

    def _insist(self, repair: Repair) -> None:
        if self._running is repair:
            self._process.kill()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            while self._queue:
                self._running = self._queue.pop(0)
                self._stopping = False
                try:
                    await self._one(self._running)
                finally:
                    self._running = None
                    self._listener.changed(["cases", "patches", "state"])
            self._wake.clear()

    async def _one(self, repair: Repair) -> None:
        tell = self._listener
        tell.changed(["cases", "state"])
        word = "failed"
        try:
            report = await perform(
                self._store, self._base, self._process, repair, self._settings(),
                lambda progress: tell.progress(repair, progress, ""),
            )  # fmt: skip
            if isinstance(report, jobs.Report):
                if report.digest:
                    await tell.install()
                    tell.changed(["revision"])
                word = summary(report)
            else:
                word = "cancelled" if report.cancelled else report.reason
        except WorkerError as error:
            # A worker killed by a cancel is a cancel, and not a fault.
            status = "pending" if self._stopping else "failed"
            word = "cancelled" if self._stopping else str(error)
            _put_back(self._store, repair, status, None if self._stopping else word)
        except asyncio.CancelledError:
            _put_back(self._store, repair, "pending", None)
            raise
        finally:
            tell.progress(repair, None, word)


async def perform(
    store: Store,
    base: str,
    process: Process,
    repair: Repair,
    settings: Settings,
    on_progress: Callable[[jobs.Progress], None],
    *,
    ask_before: bool = False,
) -> jobs.Report | jobs.Failed:
    """What a repair came to, written to the store: the patch is active when this returns.

    One repair at a time on a store, whatever the process that asks.

    Raises:
        WorkerError: the worker died; the cases are still marked as being repaired.
    """
    async with AsyncFileLock(store.path.with_name("repair.lock"), poll_interval=0.2):
        while True:
            cases = [store.case(id_) for id_ in repair.cases]
            active = store.active(base)
            store.set_status(repair.cases, "repairing")
            patch_id = store.new_patch_id()
            job = _job(store, repair, cases, active, settings, store.patch_path(patch_id), ask_before)
            answer = await process.run(job, on_progress)
            # Somebody reverted meanwhile: the patch leans on what is no longer there.
            if [each.id for each in store.active(base)] == [each.id for each in active]:
                break
        if isinstance(answer, jobs.Failed):
            reason = None if answer.cancelled else answer.reason
            _put_back(store, repair, "pending" if answer.cancelled else "failed", reason)
            return answer
        _commit(store, repair, answer, active, patch_id)
        return answer


def _job(
    store: Store,
    repair: Repair,
    cases: Sequence[Case],
    active: Sequence[Patch],
    settings: Settings,
    out: Path,
    ask_before: bool,
) -> jobs.Job:
    solved = [store.case(id_) for patch in active for id_ in patch.cases]
    others = [case for case in solved if case.id not in repair.cases]
    asked = [*cases, *others] if repair.from_base else cases
    history = () if repair.from_base else tuple(str(store.patch_path(each.id)) for each in active)
    flagged = {(case.prefix, case.suffix) for case in (*cases, *solved)}
    accepted = [
        jobs.Teach(f"a{number}", each.prefix, each.suffix, each.text)
        for number, each in enumerate(store.accepted(settings.gate.sample_size))
        if (each.prefix, each.suffix) not in flagged
    ]
    return jobs.Job(
        id=repair.id,
        history=history,
        teach=tuple(map(_teach, asked)),
        hold=tuple(map(_teach, others)),
        accepted=tuple(accepted),
        strength=settings.repair.strength,
        max_steps=settings.repair.max_steps,
        max_seconds=settings.repair.max_seconds,
        prefix_tokens=settings.completion.prefix_tokens,
        suffix_tokens=settings.completion.suffix_tokens,
        max_tokens=settings.completion.max_tokens,
        min_unchanged=settings.gate.min_unchanged,
        max_kl=settings.gate.max_kl,
        out=str(out),
        ask_before=ask_before,
    )


def _teach(case: Case) -> jobs.Teach:
    return jobs.Teach(case.id, case.prefix, case.suffix, case.expected)


def _commit(
    store: Store, repair: Repair, report: jobs.Report, active: Sequence[Patch], patch_id: str
) -> None:
    solved = [case.id for case in report.cases if case.solved]
    failed = {
        case.id: case.reason or "not solved"
        for case in report.cases
        if not case.solved and case.id in repair.cases
    }
    if report.digest and report.revision:
        store.activate(
            patch_id,
            base=report.base,
            digest=report.digest,
            revision=report.revision,
            solved=solved,
            failed=failed,
            verdict=report.verdict,
            replaces=[each.id for each in active] if repair.from_base else [],
        )
        return
    for id_, reason in failed.items():
        store.set_status([id_], "failed", reason)
    right = [id_ for id_ in solved if id_ in repair.cases]
    store.set_status(right, "solved", "The model already wrote this; nothing had to change.")


def _revert(store: Store, patch: Patch, case: str | None) -> list[str]:
    """Take a patch out of the history; the cases that are to be solved again without it."""
    rest = [id_ for id_ in patch.cases if case is not None and id_ != case]
    store.deactivate(patch.id, [id_ for id_ in patch.cases if id_ not in rest], rest)
    return rest


def _put_back(store: Store, repair: Repair, status: str, reason: str | None) -> None:
    under_way = [id_ for id_ in repair.cases if store.case(id_).status == "repairing"]
    store.set_status(under_way, "pending" if status == "pending" else "failed", reason)


def summary(report: jobs.Report) -> str:
    """What a repair came to, in a few words."""
    solved = sum(case.solved for case in report.cases)
    if solved == len(report.cases):
        return f"solved in {report.steps} steps, {report.seconds:.0f} s"
    first = next(case.reason for case in report.cases if not case.solved)
    return f"{solved} of {len(report.cases)} solved. {first}"
