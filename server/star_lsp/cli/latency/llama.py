"""llama.cpp on the same weights, with the prompt layout and the cache of its own editor plugins.

The plugins put the whole lines above the cursor's line before the hole, and the text that is already on the
line behind the mark of the middle: so a key only appends to what the server has read.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from star.errors import BenchError
from star_lsp.cli.latency.cost import Cost, cost
from star_lsp.cli.latency.rates import Rates
from star_lsp.cli.latency.replay import Document, Suggestion
from star_lsp.postprocess import line_above, whole_lines, worthwhile
from star_lsp.prompt import Layout, Limits, build, layout_of
from star_lsp.settings import Settings

__all__ = ["Layouted", "Llama", "Prompted", "Typed", "beside"]

log = logging.getLogger(__name__)

_LEAVE_SECONDS = 5.0
_KEPT = 64
#: An answer is one line; prompts are longer than asyncio's own limit allows.
_LINE_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Prompted:
    """The token ids that the peer reads, and the text left and right of the cursor for the stop rule."""

    ids: tuple[int, ...]
    prefix: str
    suffix: str


class Layouted:
    """Puts a document into token ids as the plugins do."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Use the tokenizer of a model folder; it is the same as that of the GGUF file of the same model.

        Raises:
            BenchError: it has no fill-in-the-middle.
        """
        from star.tokenizer import Plain, start_ids, tokenizer_in

        self._tokenizer = tokenizer_in(folder)
        self._start_ids, self.encode = start_ids(self._tokenizer), Plain(self._tokenizer)
        self._limits = limits
        found = layout_of(self._tokenizer.token_to_id)
        if found is None or found.middle_id is None or found.marks.suffix_first:
            raise BenchError(
                f"The model {folder.name} has no fill-in-the-middle as llama.cpp's plugins write it; "
                "choose another with --model, or leave --peer out."
            )
        self._layout: Layout = found

    def prompt(self, document: Document) -> Prompted:
        """The prompt at the cursor."""
        start = document.prefix.rfind("\n") + 1
        above, line = document.prefix[:start], document.prefix[start:]
        built = build(self.encode, self._layout, above, document.suffix, self._limits, self._start_ids)
        return Prompted((*built.ids, *self.encode(line)), built.prefix + line, built.suffix)


class Typed:
    """What the plugins remember of what was shown: typed as suggested, the rest of it is shown on."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._known: list[tuple[Document, str]] = []

    def keep(self, document: Document, text: str) -> None:
        """Remember what was shown at the cursor, and forget the oldest beyond 64."""
        self._known = [*self._known[1 - _KEPT :], (document, text)]

    def at(self, document: Document) -> str | None:
        """What is left of it at the cursor, empty if nothing was found here before; None: ask."""
        for before, text in reversed(self._known):
            if (before.uri, before.suffix) != (document.uri, document.suffix):
                continue
            typed = document.prefix.removeprefix(before.prefix)
            if before.typed(typed) != document or not text.startswith(typed):
                continue
            if not typed or len(text) > len(typed):
                return text[len(typed) :]
        return None


class Llama:
    """The peer: its process, and what its plugins remember of what was shown."""

    name = "llama.cpp"

    def __init__(self, process: asyncio.subprocess.Process, layouted: Layouted) -> None:
        """Speak to a process that is starting."""
        self._process = process
        self._layouted = layouted
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._shown = Typed()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    async def open(self, document: Document) -> None:
        """Nothing: the plugins send a document with each request."""

    async def insert(self, document: Document, text: str) -> None:
        """Nothing, likewise."""

    async def accept(self, suggestion: Suggestion) -> None:
        """Nothing: the plugins do not tell."""

    async def complete(self, document: Document) -> Suggestion:
        """What it suggests; what was shown and is being typed is shown on without asking."""
        if (shown := self._shown.at(document)) is not None:
            return Suggestion(shown)
        from star.stop import StopRule

        prompted = self._layouted.prompt(document)
        stop = StopRule.at(prompted.prefix, prompted.suffix)
        most = Settings().completion.max_tokens
        answer = await self._ask(ids=prompted.ids, tokens=most, stop=asdict(stop))
        text = whole_lines(str(answer["text"]), str(answer["ended"]))
        if worthwhile(text, stop, line_above(prompted.prefix)):
            text = ""
        self._shown.keep(document, text)
        return Suggestion(text)

    async def rates(self, ids: Sequence[int], tokens: int) -> Rates:
        """Tokens a second, as the peer itself measures them, of a prompt that it has not read before."""
        timings = (await self._ask(ids=list(ids), tokens=tokens, stop=None))["timings"]
        return Rates(timings["prompt_per_second"], timings["predicted_per_second"])

    def cost(self) -> Cost:
        """What it has cost so far."""
        return cost(self._process.pid)

    async def stop(self) -> None:
        """See the process out; kill it when it does not go."""
        assert self._process.stdin is not None
        self._process.stdin.close()  # the end of its input is its end
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _ask(self, **fields: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._say({"id": number, **fields})
        try:
            found = await answer
        except asyncio.CancelledError:
            self._say({"cancel": number})
            raise
        finally:
            self._waiting.pop(number, None)
        if "error" in found:
            raise BenchError(f"llama.cpp refused a prompt: {found['error']}")
        return found

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if message.get("ready"):
                self.ready.set_result(None)
            elif (waiting := self._waiting.get(message["id"])) and not waiting.done():
                waiting.set_result(message)
        gone = BenchError("llama.cpp ended by itself; check that --gguf names a model that it can load.")
        if not self.ready.done():
            self.ready.set_exception(gone)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(gone)


@asynccontextmanager
async def beside(gguf: Path, folder: Path, threads: int, log_file: Path) -> AsyncIterator[Llama]:
    """The peer in a process of its own, ready; what it logs goes to ``log_file``.

    Raises:
        BenchError: it cannot load the file.
    """
    settings = Settings().completion
    layouted = Layouted(folder, Limits(settings.prefix_tokens, settings.suffix_tokens))
    context = settings.prefix_tokens + settings.suffix_tokens + settings.max_tokens
    # The prompt holds the line's own text and the marks on top of these.
    arguments = [os.fspath(gguf), str(threads), str(2 * context)]
    with log_file.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "star_lsp.cli.latency.llama_process", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
            start_new_session=True, limit=_LINE_BYTES,
        )  # fmt: skip
    peer = Llama(process, layouted)
    try:
        await peer.ready
        yield peer
    finally:
        await peer.stop()
