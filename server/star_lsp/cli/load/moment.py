"""What a server takes at one moment: memory, open handles, threads, disk."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from star_lsp.cli.latency.cost import cost
from star_lsp.disk import held

__all__ = ["Moment", "moment"]


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at a server.

    Attributes:
        seconds: Since the run began.
        keys: That all editors have hit by then.
        resident_bytes: Memory of the server with the weights that it maps (RSS).
        private_bytes: What of that no other process shares (USS).
        worker_bytes: The same of the process that repairs.
        handles: Open files, sockets and pipes of the server.
        worker_handles: Those of the process that repairs; 0 when none runs.
        threads: Of the server.
        store_bytes: All files in the data folder: the store, patches, logs.
    """

    seconds: float
    keys: int
    resident_bytes: int
    private_bytes: int
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
        taken.server_bytes,
        taken.children_bytes,
        handles,
        workers,
        threads,
        held(data),
    )


def _handles(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(getattr(process, "num_fds" if hasattr(process, "num_fds") else "num_handles")())
    return 0
