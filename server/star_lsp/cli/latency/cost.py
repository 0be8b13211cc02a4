"""What a server costs: processor time and memory of its process and of those it has started."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import psutil

__all__ = ["Cost", "cost"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time so far, and memory now.

    Attributes:
        cpu_seconds: Of all processes, in user and in kernel mode.
        resident_bytes: Memory of the server's own process with all that it shares, such as mapped weights
            (RSS).
        server_bytes: What of that no other process shares (USS).
        children_bytes: The same of its children.
        shared_bytes: All of it with its share of what is shared (PSS); the USS where the system tells none.
    """

    cpu_seconds: float
    resident_bytes: int
    server_bytes: int
    children_bytes: int
    shared_bytes: int

    def after(self, before: "Cost") -> "Cost":
        """With the processor time since ``before`` alone."""
        return replace(self, cpu_seconds=self.cpu_seconds - before.cpu_seconds)

    def peak(self, later: "Cost") -> "Cost":
        """``later``, with the greatest memory that was ever seen."""
        return Cost(
            later.cpu_seconds,
            max(self.resident_bytes, later.resident_bytes),
            max(self.server_bytes, later.server_bytes),
            max(self.children_bytes, later.children_bytes),
            max(self.shared_bytes, later.shared_bytes),
        )


def cost(pid: int) -> Cost:
    """The cost of a process and its children; nothing when it has ended."""
    seconds, resident, shared, own = 0.0, 0, 0, []
    for process in _family(pid):
        with suppress(psutil.Error):
            times, memory = process.cpu_times(), process.memory_full_info()
            seconds += times.user + times.system
            own.append((process.pid == pid, int(memory.uss)))
            resident += int(memory.rss) if process.pid == pid else 0
            shared += int(getattr(memory, "pss", memory.uss))
    return Cost(
        seconds,
        resident,
        sum(size for is_server, size in own if is_server),
        sum(size for is_server, size in own if not is_server),
        shared,
    )


def _family(pid: int) -> Iterator[psutil.Process]:
    with suppress(psutil.Error):
        server = psutil.Process(pid)
        yield server
        yield from server.children(recursive=True)
