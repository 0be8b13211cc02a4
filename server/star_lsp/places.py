"""Where things live: cases and patches under the user's data folder, models under the user's cache folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from star_lsp.errors import StoreError

__all__ = ["Places", "places"]


class Places(NamedTuple):
    """The two folders that hold all state; both are there, for the user alone.

    No dataclass, which would take as long to import as all else that joining a server needs.
    """

    data: Path
    models: Path


def places(environ: Mapping[str, str]) -> Places:
    """The folders that this environment asks for, made if need be.

    ``STAR_LSP_HOME`` moves both; ``STAR_LSP_MODELS`` moves only the models, so that several homes can
    share the large files.

    Raises:
        StoreError: a folder cannot be made.
    """
    if home := environ.get("STAR_LSP_HOME"):
        data, models = Path(home) / "data", Path(home) / "models"
    else:
        import platformdirs

        data = platformdirs.user_data_path("star-lsp", appauthor=False)
        models = platformdirs.user_cache_path("star-lsp", appauthor=False) / "models"
    if elsewhere := environ.get("STAR_LSP_MODELS"):
        models = Path(elsewhere)
    return Places(_made(data.expanduser().absolute()), _made(models.expanduser().absolute()))


def _made(folder: Path) -> Path:
    """The folder, made with its parents for the user alone; one that is there keeps the rights it has."""
    try:
        for parent in [*reversed(folder.parents), folder]:
            if not parent.exists():
                parent.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(20, "Not a directory")
    except OSError as error:
        raise StoreError(
            f"The folder {folder} cannot be used ({error.strerror}); set STAR_LSP_HOME to a folder of yours."
        ) from error
    return folder
