"""Removing what was stored: rows, patches and every other file of ours with a developer's text in it."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from star_lsp.catalogue import installed, remove
from star_lsp.disk import held, size
from star_lsp.holdings import Kind, holdings
from star_lsp.perform import undisturbed
from star_lsp.store import Purged, Store

__all__ = ["Gone", "Wanted", "purge"]

#: What holds cases and completions alike, from an earlier time.
_OLD: tuple[Kind, ...] = ("backups", "set aside")
_REST: tuple[Kind, ...] = ("logs", "stray")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to go: cases with all that was made of them, accepted completions, logs, models."""

    cases: bool = True
    accepted: bool = True
    logs: bool = True
    #: The folder of the models, None to leave them.
    models: Path | None = None
    #: Only what is older, in seconds since the epoch.
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """How many of a kind went, and how many bytes of files they were."""

    kind: str
    count: int
    bytes: int


def purge(store: Store, wanted: Wanted, *, dry: bool = False) -> tuple[list[Gone], bool]:
    """What went, or would go if ``dry``, and whether nothing of it is left in the files of the store.

    The rows go first, as one transaction: a purge that is cut off leaves at worst files that nothing names.

    Raises:
        StoreError: a repair is under way, or the store cannot be used.
        CatalogueError: a model cannot be removed.
    """
    with nullcontext() if dry else undisturbed(store):
        rows = store.purge(cases=wanted.cases, accepted=wanted.accepted, before=wanted.before, dry=dry)
        clean = dry or store.compact()
        gone = [*_rows(rows)]
        for kind, files in _files(store, wanted, rows).items():
            count = len(rows.patches) if kind == "patches" else len(files)
            gone.append(Gone(kind, count, sum(map(size, files))))
            for path in () if dry else files:
                _remove(path)
    if wanted.models is not None:
        gone.append(_models(wanted.models, dry))
    return [each for each in gone if each.count], clean


def _rows(rows: Purged) -> Iterator[Gone]:
    yield Gone("cases", rows.cases, 0)
    yield Gone("accepted completions", rows.accepted, 0)
    yield Gone("comparisons", rows.comparisons, 0)


def _files(store: Store, wanted: Wanted, rows: Purged) -> dict[str, list[Path]]:
    """The files that are to go, by kind; those of the patches whose rows go, whatever their time."""
    named = {patch.id for patch in store.patches()} | set(rows.patches)
    found = holdings(store.path.parent, named)
    files = {"patches": [path for path in found["patches"] if path.stem in rows.patches]}
    for kind in (*_OLD, *(_REST if wanted.logs else ())):
        files[kind] = [path for path in found[kind] if _is_meant(path, wanted.before)]
    return files


def _is_meant(path: Path, before: float | None) -> bool:
    """Whether a file is old enough, and has not been emptied already."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return False
    emptied = path.suffix == ".log" and about.st_size == 0
    return not emptied and (before is None or about.st_mtime < before)


def _remove(path: Path) -> None:
    """Remove a file; a log that a server may have open is emptied, and goes on."""
    if path.suffix == ".log" and not path.is_symlink():
        with path.open("r+b") as file:
            file.truncate()
    else:
        path.unlink(missing_ok=True)


def _models(models: Path, dry: bool) -> Gone:
    """All models, and what unfinished pulls have left."""
    parts = [path.name.removeprefix(".partial-") for path in models.glob(".partial-*")]
    names = dict.fromkeys([*(model.name for model in installed(models)), *parts])
    total = sum(held(models / name) + held(models / f".partial-{name}") for name in names)
    for name in () if dry else names:
        remove(name, models)
    return Gone("models", len(names), total)
