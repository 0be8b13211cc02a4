"""Fixtures for all editors."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import mendable
from tests.default_model import models_folder
from tests.editors.session import Lsp

#: Editors that are installed first, some of them for minutes: only where a folder for that is named.
_ASKED_FOR = ("test_emacs.py", "test_helix.py", "test_vim.py", "test_vscode.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the editors that nobody has asked for; in CI, everything is."""
    if not os.environ.get("STAR_LSP_EDITORS") and os.environ.get("CI") != "true":
        unasked = pytest.mark.skip(reason="STAR_LSP_EDITORS names no folder to install editors into")
        for item in items:
            if item.path.parent == Path(__file__).parent and item.path.name in _ASKED_FOR:
                item.add_marker(unasked)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder in which a tiny model stands for the default one: ``ab = `` is completed by ``one``.

    Where an editor is tested and not the model, this saves most of the time.
    """
    folder = tmp_path_factory.mktemp("models")
    mendable.folder(folder / "qwen2.5-coder-0.5b", anywhere=True)
    return folder


@pytest.fixture
def lsp(tmp_path: Path, tiny_models: Path) -> Iterator[Lsp]:
    """star-lsp with a state of its own and the tiny model."""
    made = Lsp(tmp_path / "home", tiny_models)
    yield made
    made.stop()


@pytest.fixture
def real_lsp(tmp_path: Path) -> Iterator[Lsp]:
    """star-lsp with a state of its own and the default model."""
    made = Lsp(tmp_path / "home", models_folder())
    yield made
    made.stop()
