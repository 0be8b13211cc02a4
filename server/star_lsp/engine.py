"""The one owner of the serving model: everything that touches it runs on one thread of its own.

The handlers import this module, and it imports torch only on that thread: ``initialize`` is answered
long before.
"""

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from star.stop import StopRule
from star_lsp import prompt
from star_lsp.errors import ServerError
from star_lsp.recent import Recent
from star_lsp.turns import Turns

if TYPE_CHECKING:
    from star.cache import KVCache
    from star.model import CodeModel

__all__ = ["Engine", "Request", "Serving", "Written"]

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Documents of which what was read is kept, as long as there is room in them for no more tokens than this in
#: all: 28 kB a token of the default model, 117 MB. Eight editors with some hundred tokens each find a place.
_CACHES, _CACHED_TOKENS = 32, 4096
#: Of GNU OpenMP, where 300,000 is usual: what two threads at equal work need at rest.
_SPINS = "10000"
#: What is read at once when nobody waits.
_CHUNK_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Request:
    """What to complete: the text around a place, and how much may be spent on it.

    With no tokens at all it is only read, so that it need not be when it is completed.
    """

    prefix: str
    suffix: str
    limits: prompt.Limits
    max_tokens: int
    milliseconds: float
    #: What has been read of it is kept; a few of them at a time.
    document: str = ""
    #: Who asks: clients take turns.
    client: str = ""
    #: Nobody waits for it: it ends, as if cancelled, as soon as anybody waits for something.
    ahead: bool = False
    #: So long after it was asked for, the lines that are whole are enough.
    soon_milliseconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Written:
    """What the model wrote, the text that its prompt was made of, and under which revision."""

    text: str
    prefix: str
    suffix: str
    stop: StopRule
    revision: str
    milliseconds: float
    #: Why it ended: stop, token, length, line, time or cancelled.
    ended: str


class Serving(Protocol):
    """The seam between the handlers and the model; the tests have a double of it."""

    def load(self, folder: Path, patches: Sequence[Path]) -> "asyncio.Future[str]":
        """Load a model with its history; the revision."""
        ...

    def complete(self, request: Request, cancelled: threading.Event) -> "asyncio.Future[Written]":
        """What the model writes at a place."""
        ...

    def install(self, patches: Sequence[Path]) -> "asyncio.Future[str]":
        """Swap another history in, between two completions; the new revision."""
        ...

    def close(self) -> None:
        """Take no more work."""
        ...


class Engine:
    """A real model behind the seam."""

    def __init__(self) -> None:
        """Start the thread; it waits for work."""
        self._work = Turns()
        self._model: CodeModel | None = None
        self._layout: prompt.Layout | None = None
        self._revision = ""
        #: What the model has read, by document, the last one last.
        self._caches: Recent[str, KVCache] = Recent(_CACHES)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def load(self, folder: Path, patches: Sequence[Path]) -> "asyncio.Future[str]":
        """Load a model with its history; the revision.

        Raises (in the future):
            StarError: the model or a patch cannot be used.
        """
        return self._ask(lambda: self._load(folder, patches))

    def complete(self, request: Request, cancelled: threading.Event) -> "asyncio.Future[Written]":
        """What the model writes at a place; ends at the next token once ``cancelled`` is set."""
        soon = time.perf_counter() + request.soon_milliseconds / 1000
        return self._ask(
            lambda: self._complete(request, cancelled, lambda: time.perf_counter() > soon),
            request.client,
            cancelled.is_set,
            spare=request.ahead,
        )

    def install(self, patches: Sequence[Path]) -> "asyncio.Future[str]":
        """Swap another history in, between two completions; the new revision.

        Raises (in the future):
            PatchError: a patch cannot be used; the old history stays.
        """
        return self._ask(lambda: self._install(patches))

    def close(self) -> None:
        """Take no more work."""
        self._work.put(_end)

    def join(self) -> None:
        """Wait, after ``close``, until all is done; a process that ends while torch works aborts."""
        self._thread.join()

    # -- on the engine's thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self._work.get()()
            except SystemExit:
                return

    def _load(self, folder: Path, patches: Sequence[Path]) -> str:
        _spin_less()
        from star.model import CodeModel

        self._model = CodeModel.load(folder)
        self._layout = prompt.layout_of(self._model.token_id)
        self._caches.clear()
        return self._install(patches)

    def _install(self, patches: Sequence[Path]) -> str:
        from star.history import revision
        from star.patch import install, load, strip

        model = self._need_model()
        loaded = [load(path, model) for path in patches]
        last = next(reversed(self._caches.values()), None)
        had = last.ids if last else ()
        install(model, loaded)
        self._revision = revision(model.fingerprint, [patch.digest for patch in loaded])
        strip(model)
        # Before it is said that it is live: who asks then shall not wait for it.
        try:
            self._warm(last, had)
        except Exception:  # the swap has been made all the same
            log.exception("reading ahead failed")
        return self._revision

    def _warm(self, cache: "KVCache | None", ids: Sequence[int]) -> None:
        """Be ready: read again, under the new history, what was read last. Whatever is asked comes first."""
        self._need_model().vocabulary.beginning(" ")
        if cache is not None:
            _read(cache, ids, lambda: not self._work.empty())

    def _complete(self, request: Request, cancelled: threading.Event, enough: Callable[[], bool]) -> Written:
        from star.cache import KVCache
        from star.decode import decode

        started = time.perf_counter()
        model = self._need_model()
        built = prompt.build(
            model.encode, self._layout, request.prefix, request.suffix, request.limits, model.start_ids
        )
        late = False

        def stopped() -> bool:
            nonlocal late
            late = (time.perf_counter() - started) * 1000 > request.milliseconds
            return late or cancelled.is_set() or (request.ahead and not self._work.empty())

        stop = StopRule.at(built.prefix, built.suffix)
        if not built.ids:  # nothing to go on: the very start of a file, without fill-in-the-middle
            return Written("", built.prefix, built.suffix, stop, self._revision, 0.0, "stop")
        cache = self._caches.get(request.document) or KVCache(model)
        self._caches.put(request.document, cache)
        most = request.max_tokens
        try:
            decoded = decode(
                model, built.ids, stop, most, stopped, enough=enough, cache=cache, healed=built.healed
            )
            if not most:
                _read(cache, built.ids, stopped)
        finally:
            self._forget()
        return Written(
            decoded.text,
            built.prefix,
            built.suffix,
            stop,
            self._revision,
            (time.perf_counter() - started) * 1000,
            "time" if late else decoded.ended,
        )

    def _forget(self) -> None:
        """Let go what was read longest ago, until the rest is no more than there is room for."""
        while len(self._caches) > 1 and sum(each.room for each in self._caches.values()) > _CACHED_TOKENS:
            self._caches.popitem(last=False)

    def _need_model(self) -> "CodeModel":
        if self._model is None:
            raise ServerError("The model is not loaded; see `star-lsp status`.")
        return self._model

    def _ask(
        self,
        work: Callable[[], T],
        client: str | None = None,
        over: Callable[[], bool] = lambda: False,
        *,
        spare: bool = False,
    ) -> "asyncio.Future[T]":
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._work.put(run, client, lambda: future.cancelled() or over(), spare=spare)
        return asyncio.wrap_future(future)


def _read(cache: "KVCache", ids: Sequence[int], stopped: Callable[[], bool]) -> None:
    """Have all of ``ids`` read, part by part, unless it is stopped."""
    while (at := cache.rewind(ids)) < len(ids) and not stopped():
        cache.read(ids[at : at + _CHUNK_TOKENS], 1)


def _spin_less() -> None:
    """Have threads that wait for one another sleep, after some turns; to be said before torch is imported.

    A token is some hundred such waits. Beside a build or tests the other thread mostly has no processor just
    then, and who spins for it takes the time of somebody else: beside two busy processes on two cores reading
    took 1.7 to 2.7 times as long. At rest it is no slower; without any spinning it took 15 % longer.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def _end() -> None:
    raise SystemExit
