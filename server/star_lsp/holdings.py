"""What of ours is in the data folder, file by file and kind by kind."""

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

__all__ = ["KINDS", "Kind", "holdings", "ours"]

Kind = Literal["store", "patches", "backups", "set aside", "logs", "server", "stray", "not ours"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: How the paths of each kind look below the data folder; the first that fits counts. Whatever else is there
#: is somebody's: a home that was named by hand may be a folder of other things.
_FORMS: tuple[tuple[Kind, str], ...] = (
    ("store", "store.sqlite3"),
    ("store", "store.sqlite3-wal"),
    ("store", "store.sqlite3-shm"),
    ("server", "repair.lock"),
    ("server", "server/*"),
    ("logs", "logs/*"),
    ("backups", "store.version-*.sqlite3"),
    ("stray", "store.*.part*"),
    ("server", "aside/lock"),
    ("stray", "aside/recovering-*"),
    ("set aside", "aside/*"),
    ("set aside", "store.*"),
    ("stray", "patches/.*"),
    ("patches", "patches/*.safetensors"),
    ("stray", "patches/*"),
)
_FOLDERS = ("patches", "logs", "server", "aside")


def holdings(data: Path, patches: Collection[str] | None = None) -> dict[Kind, list[Path]]:
    """The files in the data folder by kind; a patch file that none of ``patches`` names is a stray."""
    found: dict[Kind, list[Path]] = {kind: [] for kind in KINDS}
    for path in _files(data):
        name = path.relative_to(data).as_posix()
        kind: Kind = next((kind for kind, form in _FORMS if fnmatchcase(name, form)), "not ours")
        if kind == "patches" and patches is not None and path.stem not in patches:
            kind = "stray"
        found[kind].append(path)
    return found


def ours(data: Path) -> list[Path]:
    """Our files in the data folder, and the folders that they are in; a server sees to its own files."""
    others = ("not ours", "server")
    files = [path for kind, paths in holdings(data).items() if kind not in others for path in paths]
    folders = [path for name in _FOLDERS for path in _folders(data / name)]
    return [*folders, *files]


def _folders(top: Path) -> Iterator[Path]:
    if top.is_dir() and not top.is_symlink():
        yield top
        yield from (path for path in top.rglob("*") if path.is_dir() and not path.is_symlink())


def _files(data: Path) -> Iterator[Path]:
    tops = [path for path in sorted(data.iterdir()) if path.is_symlink() or not path.is_dir()]
    yield from tops
    for name in _FOLDERS:
        yield from (
            path for path in sorted((data / name).rglob("*")) if path.is_symlink() or not path.is_dir()
        )
