"""A double of the engine, and a server on it within this process."""

import asyncio
import json
import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from star.errors import PatchError
from star.stop import StopRule
from star_lsp.engine import Request, Written
from star_lsp.listen import alone
from star_lsp.places import Places
from star_lsp.service import Service
from tests.server.client import Client


class FakeEngine:
    """Writes what it is told to, on one thread as the real one does."""

    def __init__(self, text: str = "sum(y)") -> None:
        self.text = text
        #: What was to be completed, and what was to be read alone.
        self.requests: list[Request] = []
        self.reads: list[Request] = []
        #: Whether whoever does not wait for ever has a line and no more.
        self.slow = False
        self.written: list[Written] = []
        self.histories: list[list[str]] = []
        self.stopped: list[str] = []
        self.closed = False
        #: Cleared to have it load, or write, until it is set again.
        self.loads, self.writes = threading.Event(), threading.Event()
        self.loads.set()
        self.writes.set()
        self.refuses_to_load: Exception | None = None
        self._thread = ThreadPoolExecutor(1)

    def load(self, folder: Path, patches: Sequence[Path]) -> "asyncio.Future[str]":
        def work() -> str:
            self.loads.wait(10)
            if self.refuses_to_load:
                raise self.refuses_to_load
            return self._installed(patches)

        return asyncio.wrap_future(self._thread.submit(work))

    def complete(self, request: Request, cancelled: threading.Event) -> "asyncio.Future[Written]":
        def work() -> Written:
            (self.requests if request.max_tokens else self.reads).append(request)
            while not (self.writes.is_set() or cancelled.is_set()):
                cancelled.wait(0.005)
            if cancelled.is_set():
                self.stopped.append(request.prefix)
            stop = StopRule.at(request.prefix, request.suffix)
            ended = "cancelled" if cancelled.is_set() else "stop"
            revision = f"revision {len(self.histories)}"
            text = self.text
            if self.slow and request.soon_milliseconds < math.inf:
                text, ended = text.split("\n")[0], "line"
            found = Written(text, request.prefix, request.suffix, stop, revision, 1.0, ended)
            self.written.append(found)
            return found

        return asyncio.wrap_future(self._thread.submit(work))

    def install(self, patches: Sequence[Path]) -> "asyncio.Future[str]":
        return asyncio.wrap_future(self._thread.submit(self._installed, patches))

    def close(self) -> None:
        self.closed = True
        self.loads.set()
        self.writes.set()

    def _installed(self, patches: Sequence[Path]) -> str:
        for path in patches:
            if not path.exists():
                raise PatchError(
                    f"The patch {path.name} cannot be read; delete it, or take a good copy of it."
                )
        self.histories.append([path.stem for path in patches])
        return f"revision {len(self.histories)}"


class Session:
    """A server in a thread, and a client of it."""

    def __init__(self, folder: Path, *, idle_seconds: float = 20.0, answers: bool = True) -> None:
        for name in ("qwen2.5-coder-0.5b", "other"):
            model = folder / "models" / name
            model.mkdir(parents=True, exist_ok=True)
            (model / "star-model.json").write_text(json.dumps({"format": 1, "fingerprint": f"base-{name}"}))
        self.model = folder / "models" / "qwen2.5-coder-0.5b"
        self.engine = FakeEngine()
        self.data = folder / "data"
        self.service = Service(Places(self.data, folder / "models"), self.engine, idle_seconds)
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._server_files = os.fdopen(theirs_in, "rb"), os.fdopen(theirs_out, "wb")
        self._client_files = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        served = (self.service, *self._server_files)
        self._thread = threading.Thread(target=alone, args=served, daemon=True)
        self._thread.start()
        self.client = Client(*self._client_files, answers=answers)

    def ready(self, options: object = None) -> Client:
        """The client, once completions are served."""
        self.client.initialize(options)
        self.client.until_state("ready")
        return self.client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.client.ask("shutdown")
        self.client.notify("exit")
        self._thread.join(5)
        assert not self._thread.is_alive(), "the server did not end"
        assert self.client.wire_is_clean
        self.client.ended.wait(5)
        for file in (*self._server_files, *self._client_files):
            file.close()
