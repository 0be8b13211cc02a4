"""Our server, as it runs below an editor: a process of its own, spoken to over its standard input."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from star_lsp.cli.client import Client, ServerDied
from star_lsp.cli.latency.cost import Cost, cost
from star_lsp.cli.latency.replay import Document, Suggestion
from star_lsp.protocol import ACCEPT, FLAG, LIST_CASES, STATUS

__all__ = ["Ours", "ready", "serving"]


class Ours:
    """A real star-lsp."""

    name = "star-lsp"

    def __init__(self, client: Client) -> None:
        """Complete by a server that is ready."""
        self._client = client

    async def open(self, document: Document) -> None:
        """Show it a document."""
        self._client.open(document.uri, document.prefix + document.suffix)

    async def insert(self, document: Document, text: str) -> None:
        """Tell it that ``text`` is written at the cursor of ``document``."""
        self._client.insert(document.uri, document.line, document.character, text)

    async def complete(self, document: Document) -> Suggestion:
        """What it suggests at the cursor."""
        text, id_ = await self._client.complete(document.uri, document.line, document.character)
        return Suggestion(text, id_)

    async def accept(self, suggestion: Suggestion) -> None:
        """Run the command that is in the item."""
        await self._client.command(ACCEPT, completionId=suggestion.id)

    async def revision(self) -> str:
        """What is served now."""
        return str((await self._client.command(STATUS))["revision"])

    async def flag(self, suggestion: Suggestion, expected: str) -> "asyncio.Task[bool]":
        """Flag a suggestion: a task that ends with the repair, and tells whether it solved the case."""
        flagged = await self._client.command(FLAG, completionId=suggestion.id, expected=expected)

        async def ended() -> str | None:
            for case in await self._client.command(LIST_CASES):
                if case["id"] == flagged["caseId"] and case["status"] not in ("pending", "repairing"):
                    return str(case["status"])
            return None

        async def solved() -> bool:
            return await self._client.until(ended) == "solved"

        return asyncio.create_task(solved())

    async def until_other_than(self, revision: str) -> None:
        """Wait until another revision is served."""

        async def other() -> bool | None:
            return await self.revision() != revision or None

        await self._client.until(other)

    def cost(self) -> Cost:
        """What it has cost so far."""
        return cost(self._client.pid)


@asynccontextmanager
async def serving(model: str, models: Path) -> AsyncIterator[Ours]:
    """A server that is ready, with an empty store and the default settings but for the model.

    Raises:
        ServerDied: it cannot serve the model.
    """
    with tempfile.TemporaryDirectory(prefix="star-lsp-bench-") as home:
        environment = {"STAR_LSP_HOME": home, "STAR_LSP_MODELS": str(models)}
        client = Client(environment, Path(home) / "server.log", settings={"model": model})
        try:
            await client.start()
            await client.until(lambda: ready(client))
            yield Ours(client)
        finally:
            await client.stop()


async def ready(client: Client) -> bool | None:
    """True once completions are served; to be asked until then.

    Raises:
        ServerDied: they will not be.
    """
    now = await client.command(STATUS)
    if now["state"] == "failed":
        raise ServerDied(f"The server cannot serve the model: {now['failure']}")
    return True if now["state"] == "ready" and now["revision"] else None
