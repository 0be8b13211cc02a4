"""The log of a server that all editors share: a file that does not grow without end, for the user alone."""

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

__all__ = ["begin", "file_in"]

_BYTES, _KEPT = 1 << 20, 3
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Private(RotatingFileHandler):
    """Files of the user alone."""

    def _open(self):  # type: ignore[no-untyped-def]
        return os.fdopen(
            os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8"
        )


def file_in(data: Path) -> Path:
    """Where the log of the servers on a store is."""
    return data / "logs" / "server.log"


def begin(level: str, path: Path | None = None) -> None:
    """Log to a file, or to standard error; code appears at debug only."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = _Private(
            path, maxBytes=_BYTES, backupCount=_KEPT, encoding="utf-8", errors="backslashreplace"
        )
    logging.basicConfig(handlers=[handler], level=level.upper(), format=_FORMAT)
    if level != "debug":  # pygls logs what clients send, and a traceback for every refusal
        logging.getLogger("pygls").setLevel(logging.CRITICAL)
