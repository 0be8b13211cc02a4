"""One repair, from cases in the store to a patch in the history, whatever the process that asks."""

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import AsyncFileLock, FileLock, Timeout

from star_lsp import jobs
from star_lsp.errors import StoreError, WorkerError
from star_lsp.patience import patiently
from star_lsp.process import Process
from star_lsp.settings import Settings
from star_lsp.store import Case, Patch, Store

__all__ = [
    "Repair",
    "alone",
    "carry_over",
    "make_job",
    "new_repair",
    "perform",
    "resume",
    "run",
    "summary",
    "undisturbed",
    "warm",
    "why",
]

log = logging.getLogger(__name__)

#: So many reasons fit into a message.
_REASONS = 4


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair that somebody asked for."""

    id: str
    cases: tuple[str, ...]
    #: Solve them together with all active cases from the pristine base, replacing the history.
    from_base: bool
    #: Patches that left the history: find out what is no longer solved without them, and repair nothing.
    without: tuple[str, ...] = ()
    #: A patch: find out what the model writes without it and with it, and repair nothing.
    compare: str = ""

    @property
    def title(self) -> str:
        """What is under way, for people."""
        if self.compare:
            return f"Comparing without and with {self.compare}"
        if self.without:
            return f"Checking what is left without {', '.join(self.without)}"
        count = len(self.cases)
        return f"Repairing {count} case{'s' * (count != 1)}"


async def perform(
    store: Store,
    base: str,
    process: Process,
    repair: Repair,
    settings: Settings,
    on_progress: Callable[[jobs.Progress], None],
    *,
    cancelled: Callable[[], bool] = lambda: False,
    on_live: Callable[[], None] = lambda: None,
    ask_before: bool = False,
) -> jobs.Report | jobs.Failed:
    """What a repair came to, written to the store: the patch is active when this returns.

    ``on_live`` is told in the same breath, before anybody else can see that the history has changed.

    One repair at a time on a store. A worker that dies is started once more; when it dies again, that is
    a failed repair. Cases that were deleted meanwhile are left out. A cancelled repair leaves its cases
    as they were.

    Raises:
        StoreError: the store cannot be used.
    """

    async def solve(
        cases: Sequence[Case], active: Sequence[Patch], out: Path
    ) -> tuple[jobs.Job, jobs.Report | jobs.Failed]:
        asked = replace(repair, cases=tuple(case.id for case in cases))
        job = make_job(store, asked, cases, active, settings, out, ask_before)
        answer = await run(process, job, base, on_progress, cancelled)
        if isinstance(answer, jobs.Failed) or not (vain := _in_vain(store, active, answer)):
            return job, answer
        # Their places would lose the fix that they have: all again without them.
        out.unlink(missing_ok=True)
        told = tuple(case for case in answer.cases if case.id in vain)
        if not (rest := [case for case in cases if case.id not in vain]):
            return job, replace(answer, cases=told, digest=None, revision=None)
        job, answer = await solve(rest, active, out)
        if isinstance(answer, jobs.Report):
            answer = replace(answer, cases=(*answer.cases, *told))
        return job, answer

    async with alone(store, cancelled) as our_turn:
        try:
            if our_turn:
                # Whoever was at work on a repair is gone, or the lock would be taken.
                await patiently(_tidy, store)
            while our_turn:
                cases = await patiently(store.begin, repair.cases, settings.model)
                if not cases or cancelled():
                    break
                on_progress(jobs.Progress(repair.id, "starting", 0))
                active = store.active(base)
                patch_id = store.new_patch_id()
                out = store.patch_path(patch_id)
                job, answer = await solve(cases, active, out)
                if isinstance(answer, jobs.Failed) and answer.cancelled:
                    return answer
                if await patiently(_commit, store, base, repair, job, answer, active, patch_id):
                    if isinstance(answer, jobs.Report) and answer.digest:
                        on_live()
                    return answer
                # Somebody reverted meanwhile: the patch leans on what is no longer there.
                out.unlink(missing_ok=True)
        finally:
            if our_turn:
                await patiently(store.put_back, repair.cases, "pending")  # whatever came between
    return jobs.Failed(repair.id, "The repair was cancelled; the cases stay pending.", cancelled=True)


async def warm(store: Store, base: str, process: Process, settings: Settings) -> None:
    """Have the worker ready: started, the history installed, the regression sample read."""
    job = make_job(store, new_repair([], from_base=False), [], store.active(base), settings)
    try:
        await process.run(job, lambda progress: None)
    except WorkerError as error:  # the repair that needs it will say more
        log.warning("%s", error)


def new_repair(cases: Sequence[str], *, from_base: bool) -> Repair:
    """A repair of some cases, each once."""
    return Repair(f"r{secrets.token_hex(5)}", tuple(dict.fromkeys(cases)), from_base)


def resume(store: Store) -> list[str]:
    """Cases whose repair was cut off, now pending again; none while any process is at work on a repair."""
    try:
        with FileLock(_lock(store), timeout=0, mode=0o600):
            return _tidy(store)
    except Timeout:
        return []
    except OSError as error:
        raise _unlocked(store, error) from error


def _tidy(store: Store) -> list[str]:
    resumed = store.resume()
    store.sweep()
    return resumed


def carry_over(store: Store, earlier: Sequence[str]) -> list[str]:
    """Cases that patches for earlier bases solved, now pending, to be repaired on the one that serves.

    The patches are kept, and taken out of the history of a base that nothing computes with any more.
    """
    patches = [patch for base in earlier for patch in store.active(base)]
    cases = [case.id for case in store.solved_by(patches)]
    if patches:
        store.deactivate([patch.id for patch in patches], [], cases, check=False)
    for base in earlier:  # what was to be checked there never will be
        store.checked(base, [], "", [])
    return cases


@contextmanager
def undisturbed(store: Store) -> Iterator[None]:
    """No process repairs in this context.

    Raises:
        StoreError: one does already.
    """
    try:
        with FileLock(_lock(store), timeout=0, mode=0o600):
            yield
    except Timeout as error:
        raise StoreError(
            "A repair is under way; cancel it in your editor, or wait for its end, and try again."
        ) from error


def summary(report: jobs.Report) -> str:
    """What a repair came to, in a few words, with every reason that stood against a case."""
    solved = sum(case.solved for case in report.cases)
    if solved == len(report.cases):
        return f"solved in {report.steps} step{'s' * (report.steps != 1)}, {report.seconds:.0f} s"
    reasons = [
        f"{', '.join(cases)}: {reason}" if len(report.cases) > 1 else reason
        for reason, cases in why(_reasons(report)).items()
    ]
    if len(reasons) > _REASONS:
        reasons[_REASONS:] = [f"And {len(reasons) - _REASONS} more; the cases name them."]
    return f"{solved} of {len(report.cases)} solved. {' '.join(reasons)}"


def why(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Each reason once, with the cases that it is for."""
    found: dict[str, list[str]] = {}
    for id_, reason in reasons.items():
        found.setdefault(reason, []).append(id_)
    return found


@asynccontextmanager
async def alone(store: Store, cancelled: Callable[[], bool]) -> AsyncIterator[bool]:
    """One repair at a time on a store, whatever the process; False when it was cancelled while it waited."""
    lock = AsyncFileLock(_lock(store), poll_interval=0.2, mode=0o600)
    try:
        await lock.acquire(cancel_check=cancelled)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise _unlocked(store, error) from error
    try:
        yield True
    finally:
        await lock.release()


def _lock(store: Store) -> Path:
    return store.path.with_name("repair.lock")


def _unlocked(store: Store, error: OSError) -> StoreError:
    return StoreError(
        f"The file {_lock(store)} cannot be locked ({error.strerror}); check the permissions of its "
        "folder, and that the disk has room."
    )


async def run(
    process: Process,
    job: jobs.Job,
    base: str,
    on_progress: Callable[[jobs.Progress], None],
    cancelled: Callable[[], bool],
) -> jobs.Report | jobs.Failed:
    """What a job came to; a worker that dies is started once more."""
    try:
        try:
            answer = await process.run(job, on_progress)
        except WorkerError as error:
            if cancelled():
                raise
            log.warning("%s Trying once more.", error)
            answer = await process.run(job, on_progress)
    except WorkerError as error:
        # A worker that a cancel killed is no fault.
        return jobs.Failed(job.id, str(error), cancelled=cancelled())
    if isinstance(answer, jobs.Failed) or answer.base == base:
        return answer
    if job.out:
        Path(job.out).unlink(missing_ok=True)
    return jobs.Failed(
        job.id, "The model was exchanged on the disk while it is in use; restart, then repair again."
    )


def make_job(
    store: Store,
    repair: Repair,
    cases: Sequence[Case],
    active: Sequence[Patch],
    settings: Settings,
    out: Path | None = None,
    ask_before: bool = False,
) -> jobs.Job:
    """The job that a repair of ``cases`` on the history ``active`` is for the worker."""
    solved = store.solved_by(active)
    # What the model wrote by itself, or by way of another case's patch, counts as much.
    solved += [case for case in store.cases("solved") if case.patch is None and case.model == settings.model]
    # A place that was flagged again with another fix: only the newest one counts.
    wanted = {case.id for case in solved} | set(repair.cases)
    newest = {case.place: case.id for case in store.known(wanted).values()}
    newest |= {case.place: case.id for case in cases}
    solved = [case for case in solved if newest[case.place] == case.id]
    others = [case for case in solved if case.id not in repair.cases]
    asked = [*cases, *others] if repair.from_base else cases
    history = () if repair.from_base else tuple(str(store.patch_path(each.id)) for each in active)
    flagged = {case.place for case in (*cases, *solved)}
    accepted = [
        jobs.Teach(f"a{number}", each.prefix, each.suffix, each.text)
        for number, each in enumerate(store.accepted(settings.gate.sample_size))
        if (each.prefix, each.suffix) not in flagged
    ]
    return jobs.Job(
        id=repair.id,
        history=history,
        digests=() if repair.from_base else tuple(each.digest for each in active),
        teach=tuple(map(_teach, asked)),
        hold=tuple(map(_teach, solved if repair.from_base else others)),
        accepted=tuple(accepted),
        strength=settings.repair.strength,
        max_steps=settings.repair.max_steps,
        max_seconds=settings.repair.max_seconds,
        prefix_tokens=settings.completion.prefix_tokens,
        suffix_tokens=settings.completion.suffix_tokens,
        max_tokens=settings.completion.max_tokens,
        min_unchanged=settings.gate.min_unchanged,
        max_kl=settings.gate.max_kl,
        out=str(out) if out else None,
        ask_before=ask_before,
        method=settings.repair.method,
    )


def _teach(case: Case) -> jobs.Teach:
    return jobs.Teach(case.id, case.prefix, case.suffix, case.expected)


def _in_vain(store: Store, active: Sequence[Patch], report: jobs.Report) -> set[str]:
    """The cases that were not solved, in whose places the history has another fix, left out for theirs."""
    taught = {case.id for case in report.cases}
    kept = {case.place for case in store.solved_by(active) if case.id not in taught}
    unsolved = store.known(case.id for case in report.cases if not case.solved)
    return {case.id for case in unsolved.values() if case.place in kept}


def _commit(
    store: Store,
    base: str,
    repair: Repair,
    job: jobs.Job,
    answer: jobs.Report | jobs.Failed,
    active: Sequence[Patch],
    patch_id: str,
) -> bool:
    """Write down what a repair came to; False, and nothing is, when the history is no longer ``active``.

    Done twice, the second time changes nothing.
    """
    leans_on = [each.id for each in active]
    if isinstance(answer, jobs.Report) and answer.digest and answer.revision:
        return store.activate(
            patch_id,
            base=answer.base,
            digest=answer.digest,
            revision=answer.revision,
            solved=[case.id for case in answer.cases if case.solved],
            failed=_reasons(answer),
            verdict={"asked": {"method": job.method, "strength": job.strength}, **answer.verdict},
            replaces=leans_on if repair.from_base else [],
            leans_on=leans_on,
        )
    if [each.id for each in store.active(base)] != leans_on:
        return False
    if isinstance(answer, jobs.Failed):
        store.put_back(repair.cases, "failed", answer.reason)
        return True
    for id_, reason in _reasons(answer).items():
        store.put_back([id_], "failed", reason)
    store.put_back(repair.cases, "solved", "The model already wrote this; nothing had to change.")
    return True


def _reasons(report: jobs.Report) -> dict[str, str]:
    return {case.id: case.reason or "not solved" for case in report.cases if not case.solved}
