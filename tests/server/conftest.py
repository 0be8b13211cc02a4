"""What several tests of the server begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import actor
from tests.server.shell import Run, runner
from tests.server.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A store and an acting worker."""
    actor.hire(tmp_path, monkeypatch)
    made = Stage(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line."""
    return runner(monkeypatch, capfd)
