"""What a server takes at one moment: memory, open handles, threads, disk."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from star_lsp.cli.latency.cost import cost
from star_lsp.disk import held

__all__ = ["Moment", "anonymous", "moment"]


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at a server.

    Attributes:
        seconds: Since the run began.
        keys: That all editors have hit by then.
        resident_bytes: Memory of the server with the weights that it maps (RSS): more pages of a file are in
            it the more of them have been read, for as long as the system has room for them.
        anonymous_bytes: What of that is no file's.
        worker_bytes: What the process that repairs shares with none (USS).
        handles: Open files, sockets and pipes of the server.
        worker_handles: Those of the process that repairs; 0 when none runs.
        threads: Of the server.
        store_bytes: All files in the data folder: the store, patches, logs.
    """

    seconds: float
    keys: int
    resident_bytes: int
    anonymous_bytes: int
    worker_bytes: int
    handles: int
    worker_handles: int
    threads: int
    store_bytes: int


def moment(pid: int, data: Path, seconds: float, keys: int) -> Moment:
    """How a server is now; zeros when it has ended."""
    taken = cost(pid)
    handles = threads = workers = 0
    with suppress(psutil.Error):
        server = psutil.Process(pid)
        handles, threads = _handles(server), server.num_threads()
        for child in server.children():
            workers += _handles(child)
    return Moment(
        seconds,
        keys,
        taken.resident_bytes,
        anonymous(pid),
        taken.children_bytes,
        handles,
        workers,
        threads,
        held(data),
    )


def anonymous(pid: int) -> int:
    """Memory of a process that is no file's; what it shares with none (USS) where the system tells no better.

    Mapped weights are in the USS or not as other processes come and go that have mapped them too.
    """
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        memory = process.memory_info()
        return int(
            memory.rss - memory.shared if hasattr(memory, "shared") else process.memory_full_info().uss
        )
    return 0


def _handles(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(getattr(process, "num_fds" if hasattr(process, "num_fds") else "num_handles")())
    return 0
