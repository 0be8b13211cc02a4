"""HumanEval single-line infilling: does the program still work with what a model wrote into it?

What is written is run: in a process of its own, limited in time and memory, that may start no process, write
no file and reach no network. It is no prison: it keeps mistakes in, not malice.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from star.bench.data import Context
from star.bench.fields import rows_of
from star.errors import Cancelled

__all__ = ["Infilling", "passes", "rate", "read"]

#: Run by ``python -I -c``: reads a word and a program, and says the word when the program came to its end.
_DRIVER = """
import os, sys
word, program = sys.stdin.buffer.read().decode().split("\\n", 1)
seconds, memory = (int(each) for each in sys.argv[1:3])
told = os.dup(1)
for number in range(3):
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
try:
    import resource
    limits = {"CPU": seconds, "AS": memory, "FSIZE": 1 << 20, "CORE": 0, "NOFILE": 32, "NPROC": 0}
    for name, most in limits.items():
        try:
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
        except (AttributeError, OSError, ValueError):
            pass
except ImportError:
    pass
denied = ("os.", "subprocess.", "pty.", "socket.", "ctypes.", "signal.", "shutil.", "tempfile.")
spared = ("os.listdir", "os.scandir", "os.walk", "os.putenv", "os.unsetenv")
writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def deny(event, arguments):
    if event.startswith(denied) and event not in spared or event == "open" and (arguments[2] or 0) & writes:
        raise PermissionError(event)
sys.dont_write_bytecode = True
sys.addaudithook(deny)
exec(compile(program, "program", "exec"), {"__name__": "program"})
os.write(told, word.encode())
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class Infilling:
    """A program with a hole, and the test that tells whether what fills it is right."""

    task_id: str
    entry_point: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str

    @property
    def context(self) -> Context:
        """The place as an editor has it: the line end of a hole of whole lines stands right of the cursor."""
        expected = self.canonical_solution.removesuffix(self._end)
        return Context(self.task_id, self.prompt, self._end + self.suffix, expected)

    def program(self, completion: str) -> str:
        """The program with something written at the place of ``context``, and its test at the end."""
        filled = f"{self.prompt}{completion}{self._end}{self.suffix}"
        return f"{filled}\n{self.test}\ncheck({self.entry_point})\n"

    @property
    def _end(self) -> str:
        return "\n" if self.canonical_solution.endswith("\n") else ""


def read(path: Path) -> tuple[Infilling, ...]:
    """The rows of a file of HumanEval infilling.

    Raises:
        BenchError: the file cannot be read, or a row lacks something.
    """
    names = ("task_id", "entry_point", "prompt", "suffix", "canonical_solution", "test")
    return tuple(Infilling(*(row.text(name) for name in names)) for row in rows_of(path))


def passes(row: Infilling, completion: str, seconds: float = 5, memory_mb: int = 512) -> bool:
    """Whether the program passes its test with ``completion`` in it; what it started is ended with it."""
    word, mark = secrets.token_hex(16), secrets.token_hex(16)
    said = f"{word}\n{row.program(completion)}".encode("utf-8", "replace")
    command = [sys.executable, "-I", "-X", "utf8", "-c", _DRIVER, str(int(seconds) + 1), str(memory_mb << 20)]
    keep = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=keep | {"STAR_INFILL": mark},
            start_new_session=True,
        )
        try:
            answer, _ = process.communicate(said, timeout=seconds)
        except subprocess.TimeoutExpired:
            answer = b""
        finally:
            _end_all(process, mark)
    return answer == word.encode()


def rate(
    rows: Sequence[Infilling],
    write: Callable[[Context], str],
    known: MutableMapping[str, bool] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """How many rows of how many pass with what ``write`` writes at their places.

    ``known`` holds what was run before, by row and completion: what stays as it was is not run again.

    Raises:
        Cancelled: ``cancelled`` said so, between two rows.
    """
    known = {} if known is None else known
    passed = 0
    for row in rows:
        Cancelled.check(cancelled)
        completion = write(row.context)
        key = f"{row.task_id} {completion}"
        if key not in known:
            known[key] = passes(row, completion)
        passed += known[key]
    return passed, len(rows)


def _end_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill a process and all that came of it: its group, and whatever else carries its mark."""
    if process.poll() is None:
        with contextlib.suppress(OSError, AttributeError):  # there are no groups everywhere
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    while left := [each for each in psutil.process_iter() if _has_mark(each, mark)]:
        for each in left:
            with contextlib.suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(left, timeout=1)
    process.communicate()


def _has_mark(process: psutil.Process, mark: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("STAR_INFILL") == mark
    return False
