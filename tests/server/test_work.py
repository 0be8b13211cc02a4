"""Work-done progress, as one connection's client has it."""

import asyncio

import pytest
from lsprotocol import types

from star_lsp import work
from star_lsp.app import Protocol, build
from star_lsp.engine import Serving
from star_lsp.places import Places
from star_lsp.service import Service
from tests.server.fake_engine import FakeEngine


class _Nowhere:
    """Where what is written is read by nobody."""

    def write(self, _data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_client_that_never_answers_leaves_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_ANSWER_SECONDS", 0.05)
    folder = tmp_path_factory.mktemp("home")
    engine: Serving = FakeEngine()

    async def play() -> tuple[int, int, int]:
        session = build(Service(Places(folder, folder), engine))
        protocol: Protocol = session.protocol
        protocol.set_writer(_Nowhere())
        shows = types.WindowClientCapabilities(work_done_progress=True)
        protocol.client_capabilities = types.ClientCapabilities(window=shows)
        before = len(asyncio.all_tasks())
        for number in range(20):
            session.client.working(f"r{number}", "Repairing", "step 1", 10, True)
            session.client.ended(f"r{number}", "solved")
        await asyncio.sleep(0.01)
        waiting = len(asyncio.all_tasks()) - before
        await asyncio.sleep(0.3)
        return waiting, len(asyncio.all_tasks()) - before, len(protocol._asked)

    assert asyncio.run(play()) == (20, 0, 0)
