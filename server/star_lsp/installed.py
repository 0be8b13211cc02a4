"""The models that are here, each a folder that ``star-model.json`` tells about."""

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from star.errors import ModelError
from star.history import Weights, base_of, weights_of
from star_lsp.disk import held
from star_lsp.errors import CatalogueError

__all__ = ["Installed", "altered", "folder_name", "installed", "is_name", "locate", "read", "sweep", "write"]

ABOUT, FORMAT = "star-model.json", 1
#: A file in the making, named for the process that makes it.
PART = re.compile(r"\.(int8|basis)\.safetensors\.(\d+)")
#: What the files looked like when the fingerprint was taken: as long as they do, they are not read for it.
STAMPS = "files"
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


def altered(model: Installed) -> None:
    """Do nothing, if the model's files are those that its fingerprint was taken of.

    They are hashed only when they do not look as they did then (seconds). One that was installed before that
    was written down is taken as it is.

    Raises:
        CatalogueError: they are not.
    """
    from star.fingerprint import fingerprint

    about = _about(model.folder)
    known = about.get(STAMPS)
    if not isinstance(known, dict) or known == (now := _stamps(model.folder)):
        return
    try:
        if fingerprint(model.folder) == model.fingerprint:
            _put(model.folder, about | {STAMPS: now})
            return
        why = "its weights or configuration have been altered since"
    except (ModelError, OSError) as error:
        why = str(error).rstrip(".")
    raise CatalogueError(
        f"The model {model.name} in {model.folder} is not the one that was installed: {why}. Remove it "
        f"and get it again: star-lsp model remove {model.name}, then star-lsp model pull {model.name}."
    )


def sweep(folder: Path) -> None:
    """Delete what processes that were killed had begun to write beside a model."""
    with contextlib.suppress(OSError):  # a read-only folder has nothing of theirs
        for path in folder.iterdir():
            if (part := PART.fullmatch(path.name)) and not psutil.pid_exists(int(part[2])):
                path.unlink(missing_ok=True)


def _about(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folder / ABOUT).read_bytes()))
    return {}


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of every file that the fingerprint is of."""
    files = [folder / "config.json", *sorted(folder.glob("model*.safetensors*"))]
    return {
        path.name: [found.st_size, found.st_mtime_ns]
        for path in files
        if path.exists() and (found := path.stat())
    }


def _put(folder: Path, about: dict[str, Any]) -> None:
    part = folder / f".{ABOUT}.part"
    with contextlib.suppress(OSError):  # on a read-only disk it is hashed again the next time
        part.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        part.replace(folder / ABOUT)


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
        STAMPS: _stamps(model.folder),
    }
    part = model.folder / f".{ABOUT}.part"
    part.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    part.replace(model.folder / ABOUT)
