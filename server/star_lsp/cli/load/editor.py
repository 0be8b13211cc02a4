"""A developer's editor that shares its server with others: it types, and now and then says what was wrong."""

from pathlib import Path

from star_lsp.cli.client import Client
from star_lsp.cli.latency.ours import Ours
from star_lsp.cli.latency.replay import Document, Suggestion
from star_lsp.cli.latency.trace import Trace
from star_lsp.protocol import FLAG, LIST_PATCHES, REVERT

__all__ = ["SETTINGS", "Editor"]

#: What every editor tells its server beside the model: should we be killed, it does not stay for long.
SETTINGS: dict[str, object] = {"keepAliveSeconds": 10}

#: A server remembers the last 64 suggestions.
_REMEMBERED = 50
#: So many repairs are kept at a time: the oldest is taken back before another one is asked for.
_KEPT_REPAIRS = 4


class Editor(Ours):
    """A real ``star-lsp --stdio``, and what was last suggested to it that was wrong."""

    def __init__(self, name: str, home: Path, models: Path, model: str) -> None:
        """Nothing is started yet; all state is in ``home``."""
        environment = {"STAR_LSP_HOME": str(home), "STAR_LSP_MODELS": str(models)}
        told = SETTINGS | {"model": model}
        self.client = Client(environment, home / f"{name}.log", told, shared=True)
        super().__init__(self.client)
        self.name = name
        self._trace: Trace | None = None
        #: What was wrong, and how many suggestions have come since.
        self._wrong: tuple[Suggestion, str] | None = None
        self._since = 0

    def turn_to(self, trace: Trace) -> None:
        """Have the truth at hand, from now on, of what is typed."""
        self._trace, self._wrong = trace, None

    async def complete(self, document: Document) -> Suggestion:
        """What the server suggests at the cursor; noted when it is wrong."""
        found = await super().complete(document)
        self._since += 1
        if self._trace and found.text:
            rest = self._trace.truth[len(document.prefix) - len(self._trace.prefix) :]
            if rest and not rest.startswith(found.text):
                self._wrong, self._since = (found, rest), 0
        return found

    async def flag_last(self) -> bool:
        """Say what should have been suggested instead of the last wrong suggestion; whether there was one.

        Raises:
            ServerDied: the server refused, or is gone.
        """
        if self._wrong is None or self._since > _REMEMBERED:
            return False
        (wrong, right), self._wrong = self._wrong, None
        await self.client.command(FLAG, completionId=wrong.id, expected=right)
        return True

    async def take_back(self) -> bool:
        """Take back the oldest repair when there are several; whether there were.

        Raises:
            ServerDied: the server refused, or is gone.
        """
        active = [each for each in await self.client.command(LIST_PATCHES) if each["active"]]
        if len(active) < _KEPT_REPAIRS:
            return False
        await self.client.command(REVERT, patchId=active[0]["id"])
        return True
