"""The default model for tests that need it: where it is, pulled first when CI starts from nothing."""

import os
from functools import cache
from pathlib import Path

import pytest

from star_lsp import catalogue
from star_lsp.errors import CatalogueError
from star_lsp.places import places

__all__ = ["models_folder"]


@cache
def models_folder() -> Path:
    """The models folder with the default model in it; without one, CI pulls it and others skip."""
    models = places(os.environ).models
    try:
        catalogue.locate(catalogue.DEFAULT, models)
    except CatalogueError:
        if os.environ.get("CI") != "true":
            pytest.skip("the default model is not here: star-lsp model pull")
        catalogue.pull(catalogue.DEFAULT, models)
    return models
