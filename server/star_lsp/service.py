"""What all connections of a server share: the model, the store, the queue of repairs, the state."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import psutil

from star.errors import PatchError, StarError
from star.history import earlier_bases
from star_lsp import catalogue, jobs, progress
from star_lsp.engine import Serving
from star_lsp.errors import CatalogueError, ServerError, StoreError
from star_lsp.installed import altered, folder_name, sweep
from star_lsp.patience import patiently
from star_lsp.perform import Repair, carry_over, resume
from star_lsp.places import Places
from star_lsp.process import Process
from star_lsp.protocol import Changed, Memory, ServerState, StatusResult, Working
from star_lsp.repairs import Listener, Repairs
from star_lsp.settings import Settings
from star_lsp.sound import Out, take_out
from star_lsp.store import Store

__all__ = ["Audience", "Service"]

log = logging.getLogger(__name__)

#: How often the store is asked whether another process (the command line) has changed it.
_WATCH_SECONDS = 0.5
#: Quiet time after the last completion before repairs begin when their schedule is "idle".
_IDLE_SECONDS = 20.0
#: Another program that writes to the store is waited for no longer on the event loop; see ``patience``.
_HELD_SECONDS = 0.02
#: Quiet time after a completion before the worker is made ready for a repair.
_WARM_SECONDS = 2.0


class Audience:
    """One connection that wants to know; a subclass draws what it is told."""

    def changed(self, what: Sequence[Changed]) -> None:
        """Cases, patches, revision or state are no longer what they were."""

    def working(self, key: str, title: str, message: str, percent: int, cancellable: bool) -> None:
        """Long work named ``key`` is under way."""

    def ended(self, key: str, message: str) -> None:
        """That work has ended."""

    def warn(self, message: str) -> None:
        """Something went wrong that a person should read."""


class Service:
    """One server: its model, store and queue. Everything here runs on the event loop."""

    def __init__(self, places: Places, engine: Serving, idle_seconds: float = _IDLE_SECONDS) -> None:
        """Nothing is opened or loaded before ``start``."""
        self._places = places
        self.engine = engine
        self._idle_seconds = idle_seconds
        self.settings = Settings()
        #: The model that is served, or will be once it is loaded.
        self.model = self.settings.model
        self.audiences: list[Audience] = []
        self.state: ServerState = "loading"
        self.failure: str | None = None
        self.revision: str | None = None
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._base = ""
        #: The history with which whatever is asked of the engine from now on is answered.
        self.history: tuple[Path, ...] = ()
        self._process: Process | None = None
        self._repairs: Repairs | None = None
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._cancel_pull = threading.Event()
        self._idle: asyncio.TimerHandle | None = None
        #: The long work that is under way, and its key.
        self._working: Working | None = None
        self._working_key = ""

    # -- for the handlers ----------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store, once it has been opened.

        Raises:
            StoreError: it has not.
        """
        if self._store is None:
            raise StoreError("The store is not open yet; try again in a few seconds.")
        return self._store

    async def opened(self) -> Store:
        """The store, opened by a thread when it is first needed.

        Raises:
            StoreError: it cannot be opened.
        """
        async with self._opening:
            if self._store is None:
                store = await asyncio.to_thread(Store, self._places.data)
                store.wait(_HELD_SECONDS)
                self._store = store
        return self._store

    def suspended(self) -> AbstractContextManager[None]:
        """The repairing process, if there is one, stands still in this context."""
        return self._process.suspended() if self._process else nullcontext()

    @property
    def repairs(self) -> Repairs:
        """The queue.

        Raises:
            ServerError: there is no model yet to repair.
        """
        if self._repairs is None:
            raise ServerError(
                self.failure
                or f"The model is still {self.state}; all cases are kept. Try again when it is ready."
            )
        return self._repairs

    @property
    def queue(self) -> Repairs | None:
        """The queue; None while there is no model to repair."""
        return self._repairs

    @property
    def base(self) -> str:
        """The base of the model in use; nothing while it is not known."""
        return self._base

    @property
    def models(self) -> Path:
        """Where models are kept."""
        return self._places.models

    @property
    def unready(self) -> str | None:
        """Why no completion can be had now, None when one can."""
        if self.state in ("ready", "repairing"):
            return None
        if self.state == "failed":
            return self.failure
        if self.state == "downloading":
            percent = f" ({self._working.percent} %)" if self._working else ""
            return (
                f"The model {self.model} is being downloaded{percent}; completions begin when it is here. "
                "The setting model names another one."
            )
        return f"The model {self.model} is being loaded; completions begin in a few seconds."

    def start(self) -> None:
        """Begin to load the model, pulling it first if need be."""
        if self._starting is None or (self.state == "failed" and self._starting.done()):
            self._starting = asyncio.create_task(self._start())

    def configure(self, settings: Settings) -> str | None:
        """Use other settings from now on; a word on what is not used yet.

        There is one model and one queue: for these, what the last client has set counts. Another model is
        taken when no client has the present one.
        """
        before, self.settings = self.settings, settings
        if before.log.level != settings.log.level:
            logging.getLogger("star_lsp").setLevel(settings.log.level.upper())
        if self._starting is None:
            self.model = settings.model
        elif self.state == "failed" and before != settings:
            self.start()
        elif settings.model != self.model and not self.audiences:
            self._starting = asyncio.create_task(self._start_anew())
        elif settings.model != self.model:
            return f"The model {self.model} stays in use; restart the server to use {settings.model} instead."
        if before.repair.schedule != settings.repair.schedule:
            self.touched()
            if settings.repair.schedule == "at once":
                self._repair_pending()
        return None

    def flagged(self, case: str, schedule: str) -> None:
        """A case was stored: repair it when the ``schedule`` of who flagged it says so."""
        self.tell(["cases"])
        if schedule == "at once" and self._repairs:
            self._repairs.ask([case], from_base=False)
        elif schedule == "idle":
            self.touched()

    def touched(self) -> None:
        """The developer is at work: idle time begins anew."""
        if self._idle:
            self._idle.cancel()
            self._idle = None
        loop = asyncio.get_running_loop()
        if self.settings.repair.schedule == "idle":
            self._idle = loop.call_later(self._idle_seconds, self._repair_pending)
        elif self.settings.repair.schedule == "at once" and self._repairs:
            self._idle = loop.call_later(_WARM_SECONDS, self._repairs.warm)

    async def status(self) -> StatusResult:
        """How the server is."""
        # Off the loop: the system counts pages for it, 10 ms with a large model.
        pid = self._process.pid if self._process else None
        memory = await asyncio.to_thread(_memory, pid)
        return StatusResult(
            self.state,
            self.failure,
            self._working,
            self.model,
            self.revision,
            self._repairs.queued if self._repairs else 0,
            pid if memory.worker_bytes is not None else None,
            memory,
        )

    def cancel_pull(self) -> None:
        """Stop a download that is under way."""
        self._cancel_pull.set()

    def tell(self, what: Sequence[Changed]) -> None:
        """Tell every connection what changed."""
        for audience in list(self.audiences):
            audience.changed(what)

    def close(self) -> None:
        """End now: the worker dies, a download stops; all that matters is on disk already."""
        self._cancel_pull.set()
        if self._repairs:
            self._repairs.close()
        self.engine.close()

    async def end(self) -> None:
        """Close, and wait until the worker is gone."""
        self.close()
        if self._process:
            await self._process.end()

    @property
    def busy(self) -> bool:
        """Whether work is under way that nobody needs to wait for: a repair, a download."""
        return self.state == "downloading" or bool(self._repairs and self._repairs.busy)

    # -- starting --------------------------------------------------------------------------------------

    async def _start_anew(self) -> None:
        """Let the present model go, and what repairs it, and begin with the one that the settings name."""
        self.state = "loading"
        if self._watching:
            self._watching.cancel()
        repairs, process = self._repairs, self._process
        self._repairs = self._process = None
        if repairs and process:
            repairs.close()
            await process.end()
        await self._start()

    async def _start(self) -> None:
        self.model = self.settings.model
        self.failure = None
        self._cancel_pull.clear()
        self._set_state("loading")
        try:
            model = await self._model()
            self._set_state("loading")
            self._base = model.base
            await self._clean(earlier_bases(model.fingerprint, model.weights))
            sweep(model.folder)
            await self._sound()
            self.history = self._active()
            self.revision = await self.engine.load(model.folder, self.history)
        except asyncio.CancelledError:
            self._cancel_pull.set()
            raise
        except Exception as error:  # whatever it is, the developer must hear of it
            ours = isinstance(error, ServerError | StarError)  # says all there is to say
            log.error("the server cannot serve completions: %s", error, exc_info=not ours)
            self.failure = str(error)
            self._set_state("failed")
            for audience in list(self.audiences):
                audience.warn(f"star-lsp cannot offer completions: {error}")
            return
        self._process = Process(model.folder)
        listener = Listener(self._on_changed, self._on_progress, self._install)
        self._repairs = Repairs(self.store, self._base, self._process, self._in_use, listener)
        self._repairs.start()
        self._watching = asyncio.create_task(self._watch())
        self._set_state("ready")
        self.tell(["revision"])
        self.touched()
        self._repairs.check_rest()
        if self.settings.repair.schedule == "at once":
            self._repair_pending()

    def _in_use(self) -> Settings:
        """The settings, with the model that is in use as cases have its name, whatever they name."""
        return replace(self.settings, model=folder_name(self.model))

    async def _model(self) -> catalogue.Installed:
        """The model that the settings name, pulled if it is not here and may be."""
        try:
            found = catalogue.locate(self.model, self._places.models)
        except CatalogueError:
            if not self.settings.auto_pull:
                raise
        else:
            await asyncio.to_thread(altered, found)
            return found
        self._set_state("downloading")
        loop = asyncio.get_running_loop()
        title = f"Pulling the model {self.model}"

        def on_progress(now: progress.Progress) -> None:
            percent = round(100 * now.done / now.total) if now.total else 0
            left = f", {now.seconds_left:.0f} s left" if now.seconds_left is not None else ""
            message = now.note or f"{now.phase} {now.done >> 20} of {now.total >> 20} MB{left}"
            loop.call_soon_threadsafe(self._work, "pull", title, message, percent)

        try:
            return await asyncio.to_thread(
                catalogue.pull,
                self.model,
                self._places.models,
                on_progress,
                self._cancel_pull.is_set,
            )
        finally:
            self._ended("pull", "")

    async def _clean(self, earlier: Sequence[str]) -> None:
        """Take up what an earlier server left when it was cut off, unless another one is at work on it.

        What was repaired for ``earlier`` bases of the same model is to be repaired anew.
        """
        store = await self.opened()
        if resumed := await patiently(resume, store):
            log.info("%d repairs were cut off and are pending again", len(resumed))
        if carried := await patiently(carry_over, store, earlier):
            log.info("%d cases were repaired with other int8 weights and are pending again", len(carried))

    def _repair_pending(self) -> None:
        if self._repairs and not self._repairs.queued:
            for case in self._repairs.pending():  # each by itself: one that fails holds up no other
                self._repairs.ask([case], from_base=False)

    # -- the history -----------------------------------------------------------------------------------

    def _active(self) -> tuple[Path, ...]:
        return tuple(self.store.patch_path(patch.id) for patch in self.store.active(self._base))

    def _install(self) -> Awaitable[None]:
        """Swap the history in: queued before this returns, so that nothing asked for later is without it."""
        self.history = self._active()
        return self._swapped(self.engine.install(self.history))

    async def _swapped(self, revision: Awaitable[str]) -> None:
        try:
            self.revision = await revision
        except PatchError:
            if not await self._sound():
                raise
            self.history = self._active()
            self.revision = await self.engine.install(self.history)
            self.tell(["cases", "patches"])
            if self._repairs:
                self._repairs.check_rest()

    async def _sound(self) -> list[Out]:
        """The patches that had to leave the history, as their files are not what they were; all are told."""
        out = await take_out(self.store, self._base)
        for word in (self.store.word, *map(str, out)):
            if word:
                log.warning("%s", word)
                for audience in list(self.audiences):
                    audience.warn(f"star-lsp: {word}")
        self.store.word = None
        return out

    async def _watch(self) -> None:
        """Follow what other processes change in the store."""
        seen = -1  # whatever came between the loading of the history and now
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                if (version := self.store.version()) == seen:
                    continue
                if seen >= 0:
                    self.tell(["cases", "patches"])
                seen = version
                if self._repairs:
                    self._repairs.check_rest()
                if self._active() != self.history:
                    await self._install()
                    self.tell(["revision"])
            except Exception as error:
                log.warning("following the store failed: %s", error)

    # -- telling ---------------------------------------------------------------------------------------

    def _set_state(self, state: ServerState) -> None:
        self.state = state
        self.tell(["state"])

    def _on_changed(self, what: Sequence[Changed]) -> None:
        if self.state in ("ready", "repairing") and self._repairs:
            self.state = "repairing" if self._repairs.running else "ready"
        self.tell(what)

    def _on_progress(self, repair: Repair, now: jobs.Progress | None, word: str) -> None:
        if now is None:
            self._ended(repair.id, word)
            return
        self._work(repair.id, repair.title, now.phase, now.percent, cancellable=True)

    def _work(self, key: str, title: str, message: str, percent: int, cancellable: bool = True) -> None:
        most = max(percent, self._working.percent if self._working and key == self._working_key else 0)
        self._working, self._working_key = Working(title, message, most), key
        for audience in list(self.audiences):
            audience.working(key, title, message, percent, cancellable)

    def _ended(self, key: str, word: str) -> None:
        if key == self._working_key:
            self._working = None
        for audience in list(self.audiences):
            audience.ended(key, word)


def _memory(worker: int | None) -> Memory:
    """What this process takes, and the repairing one, if it is there."""
    server = psutil.Process().memory_full_info()
    if worker is not None:
        with contextlib.suppress(psutil.Error):
            other = psutil.Process(worker).memory_full_info()
            return Memory(server.rss, server.uss, other.rss, other.uss)
    return Memory(server.rss, server.uss, None, None)
