"""Whether files are for their owner alone, and making them so."""

import logging
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["foreign", "loose", "mend"]

log = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def loose(paths: Iterable[Path]) -> list[Path]:
    """Those that anybody but their owner may use; none on Windows.

    There the user's own folders are closed to others by what they inherit, and a mode says nothing.
    """
    return [path for path, about in _looked_at(paths) if about.st_mode & _OTHERS]


def foreign(paths: Iterable[Path]) -> list[Path]:
    """Those that belong to somebody else; none on Windows."""
    return [path for path, about in _looked_at(paths) if about.st_uid != os.getuid()]


def mend(paths: Iterable[Path]) -> list[Path]:
    """Close to all but the owner what is not; those that could not be closed. Either is logged."""
    left = []
    for path in loose(paths):
        try:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OTHERS)
        except FileNotFoundError:
            continue
        except OSError as error:
            left.append(path)
            log.warning(
                "Others may use %s, and it cannot be closed to them (%s); make it yours (chown), then run "
                "star-lsp doctor --fix.",
                path,
                error.strerror,
            )
        else:
            log.warning("Others could use %s; now only you can.", path)
    return left


def _looked_at(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """What is still there and no link to somewhere else."""
    if sys.platform == "win32":
        return
    for path in paths:
        try:
            about = path.lstat()
        except FileNotFoundError:  # SQLite's own files come and go
            continue
        if not stat.S_ISLNK(about.st_mode):
            yield path, about
