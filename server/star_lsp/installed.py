"""The models that are here, each a folder that ``star-model.json`` tells about."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from star.history import Weights, base_of, weights_of
from star_lsp.disk import held
from star_lsp.errors import CatalogueError

__all__ = ["Installed", "folder_name", "installed", "is_name", "locate", "read", "write"]

ABOUT, FORMAT = "star-model.json", 1
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that is here."""

    name: str
    folder: Path
    #: Of the weights as they are stored.
    fingerprint: str
    model_type: str
    source: str
    licence: str
    sha256: str
    size: int
    #: What it computes with.
    weights: Weights = "stored"

    @property
    def base(self) -> str:
        """What patches are for."""
        return base_of(self.fingerprint, self.weights)


def installed(models: Path) -> tuple[Installed, ...]:
    """Every model that is here, by name; a folder that is none is passed over."""
    found = (read(folder) for folder in sorted(models.iterdir()) if is_name(folder.name))
    return tuple(model for model in found if model is not None)


def locate(name: str, models: Path) -> Installed:
    """The installed model of that name, which may be a hub id.

    Raises:
        CatalogueError: it is not here.
    """
    folder = models / folder_name(name)
    model = read(folder) if is_name(folder.name) else None
    if model is None:
        here = ", ".join(other.name for other in installed(models)) or "none"
        raise CatalogueError(
            f"The model {name} is not installed (installed: {here}); run star-lsp model pull {name}, "
            "or star-lsp model list to see what there is."
        )
    return model


def is_name(name: str) -> bool:
    """Whether a model can have that name."""
    return NAME.fullmatch(name) is not None


def folder_name(name: str) -> str:
    """The folder of a model: its name, with a hub id's slash made harmless and its revision left off."""
    return name.partition("@")[0].replace("/", "--").lower()


def read(folder: Path) -> Installed | None:
    """What a folder tells about itself; None when it is not a model of this format."""
    try:
        told = json.loads((folder / ABOUT).read_bytes())
        if told["format"] != FORMAT:
            return None
        return Installed(
            name=folder.name,
            folder=folder,
            fingerprint=str(told["fingerprint"]),
            model_type=str(told.get("modelType", "")),
            source=str(told.get("source", "")),
            licence=str(told.get("licence", "")),
            sha256=str(told.get("sha256", "")),
            size=held(folder),
            weights=weights_of(told),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(model: Installed) -> None:
    """Writes what the model's folder tells about itself."""
    about = {
        "format": FORMAT,
        "name": model.name,
        "fingerprint": model.fingerprint,
        "modelType": model.model_type,
        "source": model.source,
        "licence": model.licence,
        "sha256": model.sha256,
        "weights": model.weights,
    }
    part = model.folder / f".{ABOUT}.part"
    part.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    part.replace(model.folder / ABOUT)
