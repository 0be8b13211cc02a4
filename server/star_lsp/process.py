"""The repairing process, seen from the server: started when needed, told, suspended, and seen to its end."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from star_lsp import jobs
from star_lsp.errors import WorkerError

__all__ = ["Process"]

log = logging.getLogger(__name__)

#: A message is one line; verdicts on hundreds of cases are long ones.
_LINE_BYTES = 64 * 1024 * 1024
#: While many editors are at work somebody always waits for the model, and no repair would ever end: after
#: so long a stand, whatever breaks were in it, the worker runs for a while beside it.
_STILL_SECONDS, _RUN_SECONDS = 3.0, 1.0


class Process:
    """One worker at a time, kept from job to job, and let go after some idle time."""

    def __init__(
        self,
        model: Path,
        idle_seconds: float = 600.0,
        silent_seconds: float = 240.0,
        still_seconds: float = _STILL_SECONDS,
    ) -> None:
        """Nothing is started before the first job.

        A worker that says nothing for ``silent_seconds`` is ended as one that hangs. It says every second or
        so that it is at work, but imports and loads its model in silence. Time in which it is suspended, or
        the machine asleep, does not count.
        """
        self._model = model
        self._idle_seconds = idle_seconds
        self._silent_seconds = silent_seconds
        #: How long nothing was heard, in seconds in which it could have spoken.
        self._silence = 0.0
        self._hung = False
        self._process: asyncio.subprocess.Process | None = None
        self._retire: asyncio.TimerHandle | None = None
        self._still_seconds = still_seconds
        self._holds = 0
        #: Whether the worker stands still, since when it does so or not, and for how long it has in all.
        self._still = False
        self._since = 0.0
        self._stood = 0.0
        #: It runs, though somebody waits for the model.
        self._granted = False
        self._grant: asyncio.TimerHandle | None = None
        #: The last start of a worker, be it over or not.
        self._birth: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._ending = False
        self._tied = False
        self._closed = False
        self._job: str | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, None when none runs."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process else None

    async def run(
        self, job: jobs.Job, on_progress: Callable[[jobs.Progress], None]
    ) -> jobs.Report | jobs.Failed:
        """What a job came to.

        Raises:
            WorkerError: the worker died.
            asyncio.CancelledError: the caller gave up; the worker is ended.
        """
        if self._retire:
            self._retire.cancel()
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        self._job = job.id
        watching = asyncio.create_task(self._watch())
        try:
            process.stdin.write(jobs.message(job))
            await process.stdin.drain()
            while line := await process.stdout.readline():
                self._silence = 0.0
                value = jobs.read(line)
                if isinstance(value, jobs.Tied):
                    self._tied = True
                    self._settle()
                elif isinstance(value, jobs.Progress):
                    on_progress(value)
                elif isinstance(value, jobs.Failed | jobs.Report):
                    if not value.job:  # it could not even begin, and is gone
                        await process.wait()
                    return value
        except (ConnectionError, ValueError, WorkerError) as error:
            log.warning("talking to the worker failed: %s", error)
        except asyncio.CancelledError:
            self.kill()  # or its answer would be taken for that to the next job
            raise
        finally:
            watching.cancel()
            self._job = None
            loop = asyncio.get_running_loop()
            self._retire = loop.call_later(self._idle_seconds, self.kill)
        self.kill()
        status = await process.wait()
        if self._hung:
            raise WorkerError(
                f"The repairing process said nothing for {self._silent_seconds:.0f} s and was ended; the "
                "cases are kept. Retry; if it happens again, see the log, and that enough memory is free."
            )
        raise WorkerError(
            f"The repairing process ended with status {status}; the cases are kept. "
            "Retry; if it happens again, see the log, and that enough memory is free."
        )

    def cancel(self) -> None:
        """Ask the running job to end at its next step."""
        if self._job and self._process and self._process.stdin and self.pid:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(f"cancel {self._job}\n".encode())

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Stand still while the model serves: two processes computing at once thrash each other.

        It gets a share all the same, when it has stood for long.
        """
        self._holds += 1
        self._settle()
        try:
            yield
        finally:
            self._holds -= 1
            self._settle()

    def kill(self) -> None:
        """End the worker now, suspended or not."""
        self._ending = True
        self._signal("kill")

    async def end(self) -> None:
        """End the worker, and wait until it is gone."""
        if self._retire:
            self._retire.cancel()
        if self._birth:  # or its pipes would stay open when the loop ends
            await asyncio.wait([self._birth])
            if not self._birth.cancelled() and self._birth.exception() is None:
                self._process = self._birth.result()
        self.kill()
        if self._process:
            await self._process.wait()

    def close(self) -> None:
        """End the worker now, and start none any more."""
        self._closed = True
        self.kill()

    def _settle(self) -> None:
        """Have the worker stand still, or run, as it should now."""
        # Before it is tied to us it runs: suspended, it would stay if we died now.
        still = bool(self._holds) and self._tied and not self._granted
        if still == self._still:
            return
        now = time.monotonic()
        share = 1.0 if self._still else -self._still_seconds / _RUN_SECONDS
        self._stood = max(0.0, self._stood + share * (now - self._since))
        self._still, self._since = still, now
        self._signal("suspend" if still else "resume")
        if self._grant:
            self._grant.cancel()
        if still:
            left = max(0.0, self._still_seconds - self._stood)
            self._grant = asyncio.get_running_loop().call_later(left, self._let_run, True)

    def _let_run(self, granted: bool) -> None:
        """Begin, or end, a time in which the worker runs whatever else does."""
        self._granted = granted
        self._settle()
        if granted:
            self._stood = 0.0
            self._grant = asyncio.get_running_loop().call_later(_RUN_SECONDS, self._let_run, False)

    async def _started(self) -> asyncio.subprocess.Process:
        if self._closed:
            raise WorkerError("The server is ending; the cases are kept for its next start.")
        if self._process and self._ending:
            await self._process.wait()
        if self._process is None or self._process.returncode is not None:
            self._ending = self._tied = self._still = False
            # -P: a server runs in folders of other people's code, which must not be imported from.
            birth = self._birth = asyncio.create_task(asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "star_lsp.worker", str(self._model), str(os.getpid()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C at a terminal is for us, who then end it
                env=os.environ | {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"},
            ))  # fmt: skip
            try:
                self._process = await asyncio.shield(birth)
            except asyncio.CancelledError:
                await _unborn(birth)
                raise
            if self._ending:  # while it was being born, when there was nothing to kill
                self.kill()
        return self._process

    async def _watch(self) -> None:
        """End a worker that hangs."""
        self._silence, self._hung = 0.0, False
        tick = min(1.0, self._silent_seconds / 10)
        while self._silence < self._silent_seconds:
            await asyncio.sleep(tick)
            # Counted in ticks, not by a clock: one that jumps, or a machine that slept, is no silence.
            self._silence += 0.0 if self._still else tick
        self._hung = True
        log.warning("the worker has said nothing for %.0f s and is ended", self._silence)
        self.kill()

    def _signal(self, what: str) -> None:
        if pid := self.pid:
            # Not by way of subprocess, which would take the exit status from asyncio.
            with contextlib.suppress(psutil.Error):
                getattr(psutil.Process(pid), what)()


async def _unborn(birth: "asyncio.Task[asyncio.subprocess.Process]") -> None:
    """End a process that is being started.

    Cancelled once, asyncio kills it, and then waits for its pipes to close: for ever, where it has not come
    to opening them. So it is cancelled until it gives up.
    """
    while not birth.done():
        birth.cancel()
        await asyncio.sleep(0.01)
    if not birth.cancelled() and birth.exception() is None:
        birth.result().kill()
