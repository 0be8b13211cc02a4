"""Server, worker, relay, client and pulls are killed at random moments: nothing is lost or half done."""

import os
import sys
from pathlib import Path

import pytest

from tests.faults.killing import Killer
from tests.faults.sharing import SharedKiller

pytestmark = [
    pytest.mark.usefixtures("index"),
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes as Linux shows it"),
    pytest.mark.parametrize("kind", [Killer, SharedKiller], ids=["standalone", "shared"]),
]


def kill(
    kind: type[Killer],
    tmp_path: Path,
    model: Path,
    shop: tuple[Path, Path, str],
    request: pytest.FixtureRequest,
    count: int,
) -> None:
    seed = int(os.environ.get("STAR_LSP_SEED", "6"))
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    killer = kind(tmp_path, model, shop, seed)
    try:
        for number in range(count):
            killer.kill(number)
            if terminal and number % 100 == 99:
                terminal.write_line(f"\n{number + 1} kills")
    finally:
        killer.close()
        if terminal:
            terminal.write_line("\n" + "\n".join([f"{kind.__name__}, seed {seed}", *killer.summary()]))


def test_whoever_is_killed_at_whatever_moment_nothing_is_lost(
    kind: type[Killer],
    tmp_path: Path,
    model: Path,
    shop: tuple[Path, Path, str],
    request: pytest.FixtureRequest,
) -> None:
    """Each phase has its turn once or more: `STAR_LSP_KILLS` says how many there are of each kind."""
    count = int(os.environ.get("STAR_LSP_KILLS", str(kind.usual)))
    kill(kind, tmp_path, model, shop, request, count)


@pytest.mark.long
def test_a_thousand_kills_lose_nothing(
    kind: type[Killer],
    tmp_path: Path,
    model: Path,
    shop: tuple[Path, Path, str],
    request: pytest.FixtureRequest,
) -> None:
    """Five hundred of each kind."""
    kill(kind, tmp_path, model, shop, request, 500)
