"""The queue of repairs: one at a time, from a flagged case to a patch in the history."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from star.errors import StarError
from star_lsp import jobs
from star_lsp.compares import compare, comparing
from star_lsp.errors import ServerError, StoreError
from star_lsp.patience import patiently
from star_lsp.perform import Repair, new_repair, perform, resume, summary, warm
from star_lsp.process import Process
from star_lsp.protocol import Changed, Compared
from star_lsp.reverts import check, checking, take_back
from star_lsp.settings import Settings
from star_lsp.store import Patch, Store

__all__ = ["Listener", "Repairs"]

log = logging.getLogger(__name__)

_CANCEL_SECONDS = 5.0
#: What the store could not take, as the disk was full or the store held, is tried again after so long.
_AGAIN_SECONDS = 5.0
_NOT_COMPARED = "The comparison was cancelled; ask for it again when you like."


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom the queue tells: that something changed, and how a repair goes."""

    #: Cases, patches or state changed.
    changed: Callable[[Sequence[Changed]], None]
    #: A repair moved on; ``None`` and a last word when it ended.
    progress: Callable[[Repair, jobs.Progress | None, str], None]
    #: The history changed: swap it in. Whatever is asked of the model after this call, awaited or not, is
    #: answered under the new history.
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
        #: Set while nothing runs.
        self._over = asyncio.Event()
        self._over.set()
        #: What was asked for by ``compare``, by the id of the work.
        self._answers: dict[str, asyncio.Future[list[Compared]]] = {}
        self._stopping = False
        self._closed = False
        self._cold = False
        self._warming = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Cases that wait for their repair, or are being repaired."""
        running = [self._running] if self._running else []
        return len({case for repair in (*running, *self._queue) for case in repair.cases})

    @property
    def busy(self) -> bool:
        """Whether anything is being done, or waits."""
        return bool(self._running or self._queue)

    @property
    def running(self) -> Repair | None:
        """The repair that runs now."""
        return self._running

    def history(self) -> list[Patch]:
        """The active patches for the model that is in use."""
        return self._store.active(self._base)

    def others(self) -> set[str]:
        """The cases of other models than the one in use."""
        return self._store.others(self._base, self._model)

    def pending(self) -> list[str]:
        """The pending cases of the model in use."""
        return [case.id for case in self._store.of_model(self._base, self._model, "pending")]

    @property
    def _model(self) -> str:
        return self._settings().model

    def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.create_task(self._work())

    def close(self) -> None:
        """Stop working at once; what was under way is pending again."""
        self._closed = self._stopping = True
        self._queue.clear()
        self._process.close()

    def ask(self, cases: Sequence[str], *, from_base: bool) -> Repair:
        """Queue a repair of some cases; one that waits for nothing but these places is dropped.

        So a place that is flagged again and again is repaired once, with the last fix. A case of another
        model is repaired as one of this model's own.

        Raises:
            NotFound: a case does not exist.
        """
        asked = [self._store.case(id_) for id_ in cases]
        cases = self._store.taken(cases, self._base, self._model)
        repair = new_repair(cases, from_base=from_base)
        here = {case.place for case in asked}
        same = {id_ for place in here for id_ in self._store.flagged_at(*place)}
        self._queue = [each for each in self._queue if not each.cases or not set(each.cases) <= same]
        self._queue.append(repair)
        self._hurry()
        return repair

    def warm(self) -> None:
        """Have the worker ready before anything is flagged: a repair then takes seconds."""
        if self._process.pid is None:
            self._get_warm()

    def _hurry(self) -> None:
        if self._warming:
            self._process.cancel()
        self._wake.set()

    def _get_warm(self) -> None:
        self._cold = True
        self._wake.set()

    def cancel(self, *, repair: str | None = None, case: str | None = None) -> bool:
        """Take a repair off the queue, or stop it where it runs; whether there was one."""

        def meant(each: Repair) -> bool:
            return repair in (None, each.id) and (case is None or case in each.cases)

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
            self._answer(each, ServerError(_NOT_COMPARED))
        return bool(found)

    async def compare(self, patch: str) -> list[Compared]:
        """What the model writes without a patch and with it, once its turn has come; it is kept.

        Asked for twice, it is done once.

        Raises:
            NotFound: there is no such patch.
            ServerError: it cannot be done, or was cancelled.
        """
        work = comparing(self._store, self._base, patch)
        for each in (self._running, *self._queue):
            if each and each.compare == patch and each.id in self._answers:
                work = each
        if work.id not in self._answers:
            self._answers[work.id] = asyncio.get_running_loop().create_future()
            self._queue.append(work)
            self._hurry()
        # Who no longer wants to know takes nothing from the others; the work is cancelled as all work is.
        return await asyncio.shield(self._answers[work.id])

    async def withdraw(self, case: str) -> None:
        """Have no repair of a case under way or waiting when this returns; those with it go on without it."""
        for each in [each for each in self._queue if each.cases == (case,)]:
            self.cancel(repair=each.id)
        self._queue = [
            replace(each, cases=tuple(id_ for id_ in each.cases if id_ != case)) for each in self._queue
        ]
        if (running := self._running) and case in running.cases:
            self.cancel(repair=running.id)
            while self._running is running:
                await self._over.wait()
            known = self._store.known(id_ for id_ in running.cases if id_ != case)
            others = [id_ for id_ in running.cases if id_ in known and known[id_].status == "pending"]
            if others:
                self.ask(others, from_base=running.from_base)

    async def revert(self, *, patch: str | None = None, case: str | None = None) -> None:
        """Take a patch, or one case, out of the history, and swap the rest in.

        A patch that stands for several cases is solved again for the others. Before that, and before
        anything else, what is left is checked, and what leaned on the patch is solved again too.

        Raises:
            NotFound: no active patch is meant.
        """
        found = await patiently(lambda: take_back(self._store, self.history(), patch=patch, case=case))
        await self._listener.install()
        if found.rest:
            self.ask(found.rest, from_base=False)
        if found.leaned_on:
            self.check_rest()
        elif not found.rest and self._process.pid:
            self._get_warm()
        self._listener.changed(["cases", "patches", "revision"])

    def check_rest(self) -> None:
        """Find out, before anything else, which cases are no longer solved without what left the history.

        There may be nothing to find out. What another process was to check, and did not, is meant too; one
        that is at it now is waited for, and what it has checked is not checked again.
        """
        self._queue = [each for each in self._queue if not each.without]
        without = tuple(self._store.unchecked(self._base))
        # What is being checked is due until its end, and is not to be checked twice.
        if without and not (self._running and self._running.without == without):
            self._queue.insert(0, checking(without))
            self._hurry()

    # -- inside ----------------------------------------------------------------------------------

    def _put_right(self) -> None:
        """Have the cases of a repair whose end could not be written down pending again."""
        if self._closed or self._running:  # the next repair does it too
            return
        try:
            resume(self._store)
        except StoreError:
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._put_right)
        else:
            self._listener.changed(["cases"])

    def _insist(self, repair: Repair) -> None:
        if self._running is repair:
            self._process.kill()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            while self._queue and not self._closed:
                self._running = self._queue.pop(0)
                self._stopping = False
                self._over.clear()
                try:
                    await self._one(self._running)
                except Exception:  # whatever it is, the next repair gets its turn
                    log.exception("repair %s", self._running.id)
                finally:
                    self._running = None
                    self._over.set()
                    self._cold = True  # the next repair is judged against another history
                    self._listener.changed(["cases", "patches", "state"])
            self._wake.clear()
            if self._cold and not self._closed:
                self._cold, self._warming = False, True
                try:
                    await warm(self._store, self._base, self._process, self._settings())
                except Exception:
                    log.exception("warming the worker")
                finally:
                    self._warming = False

    async def _one(self, repair: Repair) -> None:
        tell = self._listener
        tell.changed(["state"])

        def on_progress(progress: jobs.Progress) -> None:
            if not progress.percent:  # the cases are marked as being repaired
                tell.changed(["cases"])
            tell.progress(repair, progress, "")

        word = "failed; see the log"
        do = self._compare if repair.compare else self._check if repair.without else self._repair
        try:
            word = await do(repair, on_progress)
        except (ServerError, StarError) as error:
            log.warning("repair %s: %s", repair.id, error)
            word = str(error)
            if isinstance(error, StoreError):
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._put_right)
        finally:
            self._answer(repair, ServerError(word))  # unless it has one
            tell.progress(repair, None, word)

    async def _repair(self, repair: Repair, on_progress: Callable[[jobs.Progress], None]) -> str:
        """A word on what a repair came to, its patch being served."""
        tell = self._listener
        swaps: list[Awaitable[None]] = []
        answer = await perform(
            self._store, self._base, self._process, repair, self._settings(), on_progress,
            cancelled=lambda: self._stopping, on_live=lambda: swaps.append(tell.install()),
        )  # fmt: skip
        if isinstance(answer, jobs.Failed):
            return "cancelled" if answer.cancelled else answer.reason
        for swap in swaps:
            await swap
            tell.changed(["revision"])
        return summary(answer)

    async def _check(self, repair: Repair, on_progress: Callable[[jobs.Progress], None]) -> str:
        """A word on what is left after a revert, the repair of what is broken being queued."""
        answer = await check(
            self._store, self._base, self._process, repair, self._settings(), on_progress,
            cancelled=lambda: self._stopping,
        )  # fmt: skip
        if isinstance(answer, jobs.Failed):
            without = ", ".join(repair.without)
            unchecked = f"What is left without {without} could not be checked; it is tried again later. "
            return "cancelled" if answer.cancelled else unchecked + answer.reason
        if answer.broken:
            self._listener.changed(["cases"])
            self.ask(answer.broken, from_base=False)
        return str(answer)

    async def _compare(self, repair: Repair, on_progress: Callable[[jobs.Progress], None]) -> str:
        """A word on what is written without a patch and with it; it is kept."""
        answer = await compare(
            self._store, self._base, self._process, repair, self._settings(), on_progress,
            cancelled=lambda: self._stopping,
        )  # fmt: skip
        if isinstance(answer, jobs.Failed):
            self._answer(repair, ServerError(_NOT_COMPARED if answer.cancelled else answer.reason))
            return "cancelled" if answer.cancelled else answer.reason
        self._answer(repair, answer)
        changed = sum(each.before != each.after for each in answer)
        return f"{changed} of {len(answer)} places are written otherwise"

    def _answer(self, repair: Repair, answer: list[Compared] | ServerError) -> None:
        """Answer whoever waits for a comparison, if nobody has yet."""
        if (waiting := self._answers.pop(repair.id, None)) and not waiting.done():
            if isinstance(answer, ServerError):
                waiting.set_exception(answer)
                waiting.exception()  # it may be that nobody waits any more
            else:
                waiting.set_result(answer)
