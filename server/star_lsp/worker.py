"""The process that repairs: low priority, the base memory-mapped, told what to do over standard input.

One job at a time; while it runs, only a cancel is listened to. Ends when its parent is gone.
"""

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from star.errors import StarError
from star_lsp import jobs

if TYPE_CHECKING:
    from star_lsp.attempts import Worker

__all__ = ["main"]


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process with its parent, even while it is suspended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was faster
            os._exit(1)


def _listen(requests: "queue.SimpleQueue[jobs.Job]", worker: "Worker") -> None:
    """Queue the jobs; a cancel acts at once. The end of the input is the end of the parent."""
    for line in sys.stdin.buffer:
        if line.startswith(b"cancel "):
            worker.cancel(line[7:].strip().decode())
        else:
            value = jobs.read(line)
            if isinstance(value, jobs.Job):
                requests.put(value)
    os._exit(0)


def main() -> None:
    """Repair what is asked for, until the parent is gone.

    ``python -m star_lsp.worker MODEL_FOLDER PARENT_PROCESS_ID``.
    """
    # First of all, as the imports below take seconds in which the parent may die.
    _die_with_parent(int(sys.argv[2]))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints does not print into the conversation
    out.write(jobs.message(jobs.Tied()))
    out.flush()
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)

    import torch

    from star_lsp.attempts import Worker

    if "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        worker = Worker(Path(sys.argv[1]), out)
    except StarError as error:
        out.write(jobs.message(jobs.Failed("", str(error))))
        out.flush()
        sys.exit(1)
    requests: queue.SimpleQueue[jobs.Job] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, worker), daemon=True).start()
    while True:
        worker.do(requests.get())


if __name__ == "__main__":
    main()
