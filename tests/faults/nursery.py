"""Where real processes are born that have imported already what takes seconds, to be killed by the hundred.

The nursery is one process without threads that has imported torch and all of star-lsp, and forks. What it
forks runs the very ``main`` of ``python -m MODULE``, with its own arguments, environment and pipes,
and nothing is left out but the imports. Each of its children has a nursery of its own, forked before it has
threads, for the children that it starts in turn (the worker, pip, the conversion): these are *its* children
to the system, which signals and reaps them as ever, and the same ``subprocess.Popen`` is asked for them.

Whoever is orphaned falls to the nursery, so ``left`` tells every process that has outlived its parent.
"""

import contextlib
import ctypes
import faulthandler
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

__all__ = ["Nursery"]

_PDEATHSIG, _NAME, _SUBREAPER = 1, 15, 36
_LONGEST = 1 << 20
#: Everything that any of the children imports sooner or later, the libraries' own late imports too.
_WARM = """
import asyncio, json, star_lsp.app, star_lsp.attempts, star_lsp.catalogue, star_lsp.cli.model
import star_lsp.convert
import star_lsp.engine, star_lsp.service, star_lsp.tether, star_lsp.worker
import filelock, numpy, safetensors.numpy, torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar
import transformers.models.llama.modeling_llama, transformers.models.qwen2.modeling_qwen2
import pip._internal.cli.main, pip._internal.commands.download, pip._internal.operations.prepare
import tests.faults.pulling
"""


class Nursery:
    """The first of them, with its own end of the line to it."""

    def __init__(self) -> None:
        """Start it; it is warm when this returns, some seconds later."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._line = ours
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.faults.nursery", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environ,
        )
        theirs.close()
        assert ours.recv(_LONGEST) == b"warm"

    def start(
        self, words: Sequence[str], environ: Mapping[str, str], pipes: Sequence[IO[Any]]
    ) -> psutil.Process:
        """A process for ``python -m WORDS``, with three pipes for its standard ones."""
        pid = _ask(self._line, words, environ, None, False, [pipe.fileno() for pipe in pipes])
        return psutil.Process(pid)

    def named(self, name: str) -> list[psutil.Process]:
        """Those whose first argument that is: ``serve``, ``--stdio``."""
        all_ = psutil.Process(self._process.pid).children(recursive=True)
        return [each for each in all_ if _lives(each, name)]

    def left(self, *but: psutil.Process, seconds: float = 5.0) -> list[psutil.Process]:
        """The processes that are still there after some seconds; none, and at once, if all is well.

        Those named may be there, with all that they have started.
        """
        end = time.monotonic() + seconds
        while True:
            spared = [*but, *(each for one in but if _lives(one) for each in one.children(recursive=True))]
            all_ = psutil.Process(self._process.pid).children(recursive=True)
            found = [each for each in all_ if each not in spared and _lives(each)]
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.01)

    def close(self) -> None:
        """End it, and all that it has borne."""
        for each in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # one may end by itself meanwhile
                each.kill()
        self._line.close()
        self._process.wait(10)


def _lives(process: psutil.Process, name: str = "") -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and name in ("", process.name())
    except psutil.NoSuchProcess:
        return False


def _ask(
    line: socket.socket,
    words: Sequence[str],
    environ: Mapping[str, str],
    folder: str | None,
    session: bool,
    descriptors: Sequence[int],
) -> int:
    order = {"words": list(words), "environ": dict(environ), "folder": folder, "session": session}
    socket.send_fds(line, [json.dumps(order).encode()], list(descriptors))
    return int(line.recv(_LONGEST))


class _Born(subprocess.Popen[bytes]):
    """A ``Popen`` that has modules of Python born in the nursery of this process."""

    line: socket.socket

    def __init__(self, words: Any, *arguments: Any, **about: Any) -> None:
        if not (isinstance(words, list | tuple) and list(words[1:3]) == ["-P", "-m"]):
            super().__init__(words, *arguments, **about)
            return
        self.args, self.returncode, self.encoding, self.errors = words, None, None, None
        self.text_mode = self.pipesize = None  # type: ignore[assignment]
        self._child_created, self._communication_started, self._input = True, False, None
        self._waitpid_lock = threading.Lock()
        ours: list[Any] = []
        theirs: list[int] = []
        ends: list[int] = []
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            wanted = about.get(name)
            if wanted == subprocess.PIPE:
                reading, writing = os.pipe()
                mine, its = (writing, reading) if number == 0 else (reading, writing)
                ours.append(os.fdopen(mine, "wb" if number == 0 else "rb", 0 if number == 0 else -1))
                theirs.append(its)
                ends.append(its)
            elif wanted == subprocess.DEVNULL:
                ours.append(None)
                theirs.append(os.open(os.devnull, os.O_RDWR))
                ends.append(theirs[-1])
            else:
                ours.append(None)
                theirs.append(number if wanted is None else getattr(wanted, "fileno", lambda w=wanted: w)())
        self.stdin, self.stdout, self.stderr = ours
        environ = about.get("env")
        self.pid = _ask(
            self.line,
            list(words[3:]),
            os.environ if environ is None else environ,
            os.fspath(about["cwd"]) if about.get("cwd") else str(Path.cwd()),
            bool(about.get("start_new_session")),
            theirs,
        )
        for end in ends:
            os.close(end)


def _bear(line: socket.socket, message: bytes, descriptors: Sequence[int]) -> None:
    """Become what was ordered; does not return."""
    order = json.loads(message)
    line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    if order["session"]:
        os.setsid()
    if order["folder"]:
        os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    _open_nursery()
    ctypes.CDLL(None).prctl(_NAME, " ".join(order["words"][1:2]).encode())
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.register(signal.SIGUSR1, sys.__stderr__)  # where it stands, for whoever asks
    status = 1
    try:
        sys.argv = order["words"]
        if sys.argv[0] == "star_lsp.tether":  # as it does it itself, without a module within a module
            from star_lsp import tether

            tether.main()
        else:
            sys.modules.pop(sys.argv[0], None)  # or runpy warns that it is there twice
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _open_nursery() -> None:
    """A nursery of this process, before it has threads."""
    me = os.getpid()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        ctypes.CDLL(None).prctl(_SUBREAPER, 0)
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != me:
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)  # or it would hold the pipes of its parent open
        for number in range(3):
            os.dup2(nothing, number)
        _serve(theirs, twice=True)
    theirs.close()
    _Born.line = ours
    subprocess.Popen = _Born  # type: ignore[misc]


def _serve(line: socket.socket, *, twice: bool) -> None:
    """Fork whenever it is asked for; ``twice``, so that the child falls to the parent of this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(line, _LONGEST, 3)
        if not message:
            os._exit(0)
        parent = os.getppid()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            if twice and os.fork():
                os._exit(0)
            # Only now is it a child of who has asked, to wait for.
            while twice and os.getppid() != parent:
                if not psutil.pid_exists(parent):
                    os._exit(1)
                time.sleep(0.0005)
            os.write(writing, str(os.getpid()).encode())
            os.close(writing)
            _bear(line, message, descriptors)
        os.close(writing)
        for descriptor in descriptors:
            os.close(descriptor)
        born = os.read(reading, 20)
        os.close(reading)
        line.send(born)


def main() -> None:
    """The nursery itself: ``python -m tests.faults.nursery DESCRIPTOR``."""
    line = socket.socket(fileno=int(sys.argv[1]))
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    exec(_WARM, {})
    line.send(b"warm")
    _serve(line, twice=False)


if __name__ == "__main__":
    main()
