"""A folder on a disk: how much it holds, whether there is room, and having it to oneself."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from star_lsp.errors import CatalogueError
from star_lsp.progress import Cancelled

__all__ = ["alone", "check_room", "held", "size"]

MARGIN = 200_000_000  # bytes of disk that stay free
LOCK_SECONDS = 0.3


def held(folder: Path) -> int:
    """Bytes of all files below a folder, some of which may be coming or going just now."""
    return sum(size(path) for path in folder.rglob("*"))


def size(path: Path) -> int:
    """Bytes of a file; 0 for a folder or a file that has just gone."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def check_room(folder: Path, name: str, need: int, there: int = 0) -> None:
    """Refuses to begin what the disk cannot hold.

    Args:
        folder: where it would go.
        name: what would go there.
        need: bytes that it takes at most.
        there: bytes of it that are there already.

    Raises:
        CatalogueError: there is too little room.
    """
    free, wanted = shutil.disk_usage(folder).free, need + MARGIN - there
    if wanted > free:
        raise CatalogueError(
            f"{name} needs {wanted / 1e9:.1f} GB of disk at {folder} and {free / 1e9:.1f} GB is free; "
            "make room there, or set STAR_LSP_MODELS to a folder on a larger disk."
        )


@contextmanager
def alone(folder: Path, on_wait: Callable[[], None], cancelled: Callable[[], bool]) -> Iterator[None]:
    """Holds the folder's lock, which the system frees when its holder dies.

    Raises:
        Cancelled: ``cancelled`` said so while waiting.
    """
    lock, waited = FileLock(folder / ".lock", thread_local=False), False
    while True:
        if cancelled():
            raise Cancelled()
        try:
            lock.acquire(timeout=LOCK_SECONDS if waited else 0)
            break
        except Timeout:
            if not waited:
                on_wait()
            waited = True
    try:
        yield
    finally:
        lock.release()
