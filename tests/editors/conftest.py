"""Fixtures for all editors."""

from pathlib import Path

import pytest

from tests import mendable
from tests.editors.session import Lsp


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder in which a tiny model stands for the default one: ``ab = `` is completed by ``one``.

    Where an editor is tested and not the model, this saves most of the time.
    """
    folder = tmp_path_factory.mktemp("models")
    mendable.folder(folder / "qwen2.5-coder-0.5b", anywhere=True)
    return folder


@pytest.fixture
def lsp(tmp_path: Path, tiny_models: Path) -> Lsp:
    """star-lsp with a state of its own and the tiny model."""
    return Lsp(tmp_path / "home", tiny_models)
