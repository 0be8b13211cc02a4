"""Child processes that are watched: they can be cancelled, tell JSON lines, and die with their parent."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from star_lsp.errors import CatalogueError
from star_lsp.progress import Cancelled

__all__ = ["Outcome", "ask", "command", "run"]

TICK_SECONDS = 0.2
LONGEST_ERRORS = 20_000  # bytes of what a child complained that are kept


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended: its status, and the end of what it wrote to standard error."""

    status: int
    errors: str


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module tied to this process.

    ``-P`` keeps the working folder off the import path: a server runs in folders of other people's code.
    """
    return [sys.executable, "-P", "-m", "star_lsp.tether", module, *arguments]


def run(
    module: str,
    arguments: Sequence[str],
    cwd: Path,
    environ: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Runs a module to its end, looking up several times a second.

    Raises:
        Cancelled: ``cancelled`` said so; the child is dead by then.
    """
    with tempfile.TemporaryFile(dir=cwd) as errors:
        with _child(command(module, *arguments), cwd, environ, errors) as child:
            lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
            threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
            while True:
                if cancelled():
                    raise Cancelled()
                try:
                    line = lines.get(timeout=TICK_SECONDS)
                except queue.Empty:
                    on_tick()
                    continue
                if line is None:
                    break
                on_line(line)
            status = child.wait()
        on_tick()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - LONGEST_ERRORS))
        return Outcome(status, errors.read().decode("utf-8", "replace"))


def ask(
    module: str,
    arguments: Sequence[str],
    cwd: Path,
    on_tell: Callable[[Mapping[str, object]], None] = lambda told: None,
    on_tick: Callable[[], None] = lambda: None,
    cancelled: Callable[[], bool] = lambda: False,
    environ: Mapping[str, str] | None = None,
) -> Mapping[str, object]:
    """What a module of ours answers: its ``result``; everything else that it tells goes to ``on_tell``.

    Raises:
        CatalogueError: the module answered with an ``error``, or died without an answer.
        Cancelled: ``cancelled`` said so.
    """
    answers: list[Mapping[str, object]] = []

    def on_line(line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:  # some library prints; that is no answer
            return
        if isinstance(told, dict):
            (answers.append if told.keys() & {"result", "error"} else on_tell)(told)

    outcome = run(module, arguments, cwd, environ, on_line, on_tick, cancelled)
    answer = answers[-1] if answers else {}
    if "error" in answer:
        raise CatalogueError(str(answer["error"]))
    result = answer.get("result")
    if outcome.status != 0 or not isinstance(result, dict):
        last = (outcome.errors.strip().splitlines() or ["it said nothing"])[-1]
        raise CatalogueError(
            f"The process for {module.rpartition('.')[2]} ended with status {outcome.status} ({last[:300]}); "
            "try again, with more free memory if it was killed."
        )
    return result


@contextmanager
def _child(
    words: Sequence[str], cwd: Path, environ: Mapping[str, str] | None, errors: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """A running child that is dead when the block is left."""
    child = subprocess.Popen(
        words, cwd=cwd, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def _read(pipe: IO[bytes] | None, lines: "queue.SimpleQueue[str | None]") -> None:
    """Hands over line by line what the child writes, then None."""
    try:
        for line in pipe or ():
            lines.put(line.decode("utf-8", "replace"))
    except ValueError:  # the pipe was closed here because the child was killed
        pass
    lines.put(None)
