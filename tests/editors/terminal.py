"""A program of the terminal in a terminal of its own (tmux), driven by keys as a person drives it."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.editors.session import need

__all__ = ["Terminal"]

_PACE_SECONDS = 0.02
_ESCAPE_SECONDS = 0.15


class Terminal:
    """One running program; killed with all it started at the end."""

    def __init__(self, command: Sequence[str | Path], environ: Mapping[str, str], folder: Path) -> None:
        """Start it in a folder; nothing of the user's tmux is touched."""
        self._tmux = [need("tmux", "tmux"), "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._environ = {**environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        self._folder = folder
        self._run("new-session", "-d", "-x", "140", "-y", "30", *map(str, command))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)

    def type(self, text: str, *keys: str) -> None:
        """Type a text as it stands, then keys by their names (``Escape``, ``Enter``, ``C-x``).

        Not faster than a very fast person: Helix 25 sends changes that come in a burst out of their order.
        """
        for character in text:
            self._run("send-keys", "-l", character)
            time.sleep(_PACE_SECONDS)
        for key in keys:
            self._run("send-keys", key)
            # It is by time alone that a terminal tells Escape and a key from Alt with that key.
            time.sleep(_ESCAPE_SECONDS if key == "Escape" else _PACE_SECONDS)

    def screen(self) -> str:
        """What can be seen."""
        return self._run("capture-pane", "-p")

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            [*self._tmux, *arguments],
            env=self._environ, cwd=self._folder, capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
