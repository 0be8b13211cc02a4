"""Server, worker, client and pulls are killed at random moments: nothing is lost, nothing is half done."""

import os
import sys
from pathlib import Path

import pytest

from tests.faults.killing import TURNS, Killer

pytestmark = [
    pytest.mark.usefixtures("index"),
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes as Linux shows it"),
]


def kill(
    tmp_path: Path, model: Path, shop: tuple[Path, Path, str], request: pytest.FixtureRequest, count: int
) -> None:
    seed = int(os.environ.get("STAR_LSP_SEED", "6"))
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    killer = Killer(tmp_path, model, shop, seed)
    try:
        for number in range(count):
            killer.kill(number)
            if terminal and number % 100 == 99:
                terminal.write_line(f"\n{number + 1} kills")
    finally:
        killer.close()
        if terminal:
            terminal.write_line("\n" + "\n".join([f"seed {seed}", *killer.summary()]))


def test_whoever_is_killed_at_whatever_moment_nothing_is_lost(
    tmp_path: Path, model: Path, shop: tuple[Path, Path, str], request: pytest.FixtureRequest
) -> None:
    """Each phase has its turn a few times."""
    kill(tmp_path, model, shop, request, int(os.environ.get("STAR_LSP_KILLS", str(2 * len(TURNS)))))


@pytest.mark.long
def test_a_thousand_kills_lose_nothing(
    tmp_path: Path, model: Path, shop: tuple[Path, Path, str], request: pytest.FixtureRequest
) -> None:
    kill(tmp_path, model, shop, request, 1000)
