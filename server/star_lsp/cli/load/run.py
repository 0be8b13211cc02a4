"""A run: editors that share one server in a scratch home type their traces, flag, and take repairs back."""

import asyncio
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

import psutil

from star.bench.plan import OnProgress
from star_lsp import __version__, address, logfile
from star_lsp.cli.client import ServerDied
from star_lsp.cli.latency.ours import ready
from star_lsp.cli.latency.replay import Document, Pace, gaps, replay
from star_lsp.cli.latency.trace import Trace
from star_lsp.cli.load.editor import Editor
from star_lsp.cli.load.moment import anonymous, moment
from star_lsp.cli.load.summary import Load, Window
from star_lsp.errors import ListenError
from star_lsp.protocol import LIST_CASES, LIST_PATCHES, STOP
from star_lsp.running import ask

__all__ = ["Asked", "run"]

#: The server is looked at so often, and at least so many times in a run of known length.
_LOOK_SECONDS, _LOOKS = 5.0, 60
_STOP_SECONDS = 10.0
#: Files that a second window opens, one after another, and the time that a cursor rests before the first key.
_FILES, _REST_SECONDS = 20, 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is asked for.

    Attributes:
        traces: What is typed, again and again.
        editors: How many type at a time.
        pace: How fast.
        seconds: After which it ends; None for no end but by ``keys``.
        keys: That all of them hit together; None for no end but by ``seconds``.
        flag_seconds: From one flag to the next, whichever editor's; None for none.
        seed: Of all that is drawn.
        model: The model's folder; its name is what the server is told.
    """

    traces: Sequence[Trace]
    editors: int
    pace: Pace
    seconds: float | None
    keys: int | None
    flag_seconds: float | None
    seed: int
    model: Path


async def run(asked: Asked, folder: Path, load: Load, on_progress: OnProgress) -> None:
    """Have editors at work until the end; ``load`` holds all that is known when it is stopped.

    Requests and looks at the server go to ``load.jsonl`` in ``folder`` as soon as they are there.

    Raises:
        ServerError: the server cannot serve the model.
    """
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="star-lsp-load-")))
        await stack.enter_async_context(_ended(home, load))
        editors = await _opened(asked, home, load, stack)
        lines = stack.enter_context((folder / "load.jsonl").open("w", encoding="utf-8"))
        at_work = _Run(asked, home / "data", _server(home).pid, load, lines, on_progress)
        try:
            await at_work.whole(editors)
        finally:
            await _told(editors[0], load)


# -- the server ----------------------------------------------------------------------------------------------


def _place(home: Path) -> Path:
    return address.folder(home / "data", __version__)


def _server(home: Path) -> address.Running:
    """What the server of a home tells of itself.

    Raises:
        ServerDied: none runs.
    """
    if found := address.running(_place(home)):
        return found
    raise ServerDied("The server that all editors share has ended.")


@asynccontextmanager
async def _ended(home: Path, load: Load) -> AsyncIterator[None]:
    """See the server of a home to its end, whatever happens, and read what it has logged of errors."""
    try:
        yield
    finally:
        if told := address.running(_place(home)):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(told.pid)
                with suppress(ListenError):
                    await asyncio.to_thread(ask, _place(home), STOP)
                try:
                    await asyncio.to_thread(process.wait, _STOP_SECONDS)
                except psutil.TimeoutExpired:
                    process.kill()
        with suppress(OSError):
            logged = logfile.file_in(home / "data").read_text("utf-8", "replace").splitlines()
            load.errors += [f"logged: {line}" for line in logged if " ERROR " in line]


# -- the editors ---------------------------------------------------------------------------------------------


async def _opened(asked: Asked, home: Path, load: Load, stack: AsyncExitStack) -> list[Editor]:
    """Editors that are ready, one after another: the second tells what one more window costs."""
    editors: list[Editor] = []
    for number in range(asked.editors):
        editor = Editor(f"editor-{number + 1}", home, asked.model.parent, asked.model.name)
        editor.client.on_message = partial(_heard, load, editor.name)
        stack.push_async_callback(editor.client.stop)
        before = anonymous(_server(home).pid) if number == 1 else 0
        began = time.monotonic()
        await editor.client.start()
        if number == 1:
            load.window = await _window(editor, asked.traces, began, before, home)
        await editor.client.until(partial(ready, editor.client))
        editors.append(editor)
        load.editors.append(editor.name)
    return editors


def _heard(load: Load, name: str, text: str) -> None:
    load.errors.append(f"{name} was told: {text}")


async def _window(editor: Editor, traces: Sequence[Trace], began: float, before: int, home: Path) -> Window:
    """What a second window costs: it opens the shortest file, and asks for a completion at once."""
    introduced = time.monotonic() - began
    shortest = min(traces, key=lambda each: len(each.prefix + each.suffix))
    await _first(editor, replace(shortest, name="second-window"))
    seconds = time.monotonic() - began
    more = anonymous(editor.client.pid) + anonymous(_server(home).pid) - before
    at_once, later = [], []
    for trace in traces[:_FILES]:
        # In turn, as the machine has other work now and then.
        at_once.append(await _first(editor, replace(trace, name=f"{trace.name}-at-once")))
        later.append(await _first(editor, replace(trace, name=f"{trace.name}-later"), _REST_SECONDS))
    characters = len(shortest.prefix + shortest.suffix)
    return Window(introduced, seconds, more, characters, tuple(at_once), tuple(later))


async def _first(editor: Editor, trace: Trace, rest: float = 0.0) -> float:
    """How long the first completion takes in a file that was just opened, and in which the cursor rested."""
    document = Document(trace.uri, trace.prefix, trace.suffix)
    await editor.open(document)
    if rest:
        await editor.client.rest(document.uri, document.line, document.character)
        await asyncio.sleep(rest)
    asked = time.monotonic()
    await editor.complete(document)
    seconds = time.monotonic() - asked
    editor.client.close(trace.uri)
    return seconds


async def _told(editor: Editor, load: Load) -> None:
    """Count what became of the flags, and why of those that did not become a repair."""
    with suppress(ServerDied):
        cases = await editor.client.command(LIST_CASES)
        load.cases = dict(Counter(each["status"] for each in cases))
        load.reasons = [each["reason"] or "not told" for each in cases if each["status"] == "failed"]
        load.patches = len(await editor.client.command(LIST_PATCHES))


@dataclass(slots=True)
class _Run:
    """Editors at work."""

    asked: Asked
    data: Path
    pid: int
    load: Load
    lines: IO[str]
    on_progress: OnProgress
    began: float = 0.0
    #: Who is to flag something next, as soon as there is something to flag.
    flags: Editor | None = None

    async def whole(self, editors: Sequence[Editor]) -> None:
        """Type until the end."""
        self.began = time.monotonic()
        await self._look()
        looking = asyncio.create_task(self._looking())
        flagging = asyncio.create_task(self._flagging(editors))
        try:
            async with asyncio.TaskGroup() as group:
                for number, editor in enumerate(editors):
                    group.create_task(self._type(editor, number))
        except* ServerDied as died:
            raise died.exceptions[0] from None
        finally:
            for each in (looking, flagging):
                each.cancel()
            await asyncio.gather(looking, flagging, return_exceptions=True)
            await self._look()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _over(self) -> bool:
        late = self.asked.seconds is not None and self._seconds >= self.asked.seconds
        return late or (self.asked.keys is not None and self.load.keys >= self.asked.keys)

    async def _type(self, editor: Editor, number: int) -> None:
        """Type one trace after another; all editors type all of them, but begin at different ones."""
        traces = self.asked.traces
        first = number * len(traces) // self.asked.editors
        for turn in itertools.count():
            drawn = traces[(first + turn) % len(traces)]
            trace = replace(drawn, name=f"{editor.name}-{drawn.name}")  # a file of its own
            editor.turn_to(trace)
            between = gaps(self.asked.pace, f"{self.asked.seed}/{trace.name}/{turn}")
            try:
                async with aclosing(replay(trace, editor, between)) as requests:
                    async for request in requests:
                        self.load.add(request)
                        self._write("request", request)
                        if self._over():
                            return
                editor.client.close(trace.uri)
                await self._flag(editor)
            except ServerDied as error:
                self.load.errors.append(f"{editor.name}: {error}")
                if editor.client.gone:
                    raise

    async def _flag(self, editor: Editor) -> None:
        if self.flags is not editor:
            return
        self.flags = None  # others wait for their turn, which is the next
        self.load.reverted += await editor.take_back()
        if await editor.flag_last():
            self.load.flagged += 1
        else:
            self.flags = editor

    async def _flagging(self, editors: Sequence[Editor]) -> None:
        if self.asked.flag_seconds is None:
            return
        for editor in itertools.cycle(editors):
            await asyncio.sleep(self.asked.flag_seconds)
            if self.flags is None:
                self.flags = editor

    async def _looking(self) -> None:
        of_all = self.asked.seconds / _LOOKS if self.asked.seconds else _LOOK_SECONDS
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, of_all))
            await self._look()

    async def _look(self) -> None:
        # In a thread: it takes milliseconds that are nobody's wait for a suggestion.
        seen = await asyncio.to_thread(moment, self.pid, self.data, self._seconds, self.load.keys)
        self.load.moments.append(seen)
        self._write("moment", seen)
        done, of = (
            (self.load.keys, self.asked.keys) if self.asked.keys else (self._seconds, self.asked.seconds)
        )
        assert of
        left = self._seconds * (of - done) / done if done else None
        what = f"{self.load.keys} keys, {seen.resident_bytes / 1e6:,.0f} MB, {len(self.load.errors)} errors"
        self.on_progress(int(done), int(of), what, left)

    def _write(self, kind: str, what: object) -> None:
        self.lines.write(json.dumps({"kind": kind, **_fields(what)}) + "\n")
        self.lines.flush()


def _fields(what: object) -> dict[str, object]:
    found = asdict(what)  # type: ignore[call-overload]
    return {("what" if name == "kind" else name): value for name, value in found.items()}
