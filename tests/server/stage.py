"""A store and an acting worker, to play what becomes of cases."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from star_lsp import jobs
from star_lsp.perform import new_repair, perform
from star_lsp.process import Process
from star_lsp.reverts import Checked, Reverted, check, checking, take_back
from star_lsp.settings import Settings
from star_lsp.store import Case, Store
from tests.server import actor


class Stage:
    """A model folder with a script, and a store."""

    def __init__(self, folder: Path) -> None:
        self.model = folder / "model"
        self.model.mkdir()
        self.store = Store(folder / "data")
        self.process = Process(self.model)
        self.progress: list[jobs.Progress] = []

    def script(self, *acts: str) -> None:
        actor.script(self.model, *acts)

    @property
    def heard(self) -> list[Any]:
        return actor.heard(self.model)

    def case(self, name: str, expected: str = "1") -> Case:
        return self.store.add_case(prefix=f"{name} = ", suffix="\n", expected=expected, rejected="2")

    def status(self, *cases: Case) -> list[tuple[str, str | None]]:
        return [(case.status, case.reason) for case in map(self.store.case, [case.id for case in cases])]

    async def perform(
        self,
        *cases: Case,
        from_base: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
        on_progress: Callable[[jobs.Progress], None] | None = None,
        settings: Settings | None = None,
    ) -> jobs.Report | jobs.Failed:
        repair = new_repair([case.id for case in cases], from_base=from_base)
        tell = on_progress or self.progress.append
        return await perform(
            self.store, "b", self.process, repair, settings or Settings(), tell, cancelled=cancelled
        )

    async def check(
        self,
        without: Reverted,
        cancelled: Callable[[], bool] = lambda: False,
        on_progress: Callable[[jobs.Progress], None] | None = None,
    ) -> Checked | jobs.Failed:
        tell = on_progress or self.progress.append
        work = checking(without.patches)
        return await check(self.store, "b", self.process, work, Settings(), tell, cancelled=cancelled)

    def take_back(self, *, patch: str | None = None, case: str | None = None) -> Reverted:
        return take_back(self.store, self.store.active("b"), patch=patch, case=case)


def played(stage: Stage, play: Callable[[], Awaitable[None]]) -> None:
    """Run a play, and see the worker to its end."""

    async def whole() -> None:
        try:
            await play()
        finally:
            await stage.process.end()

    asyncio.run(whole())
