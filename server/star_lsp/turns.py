"""Work for one thread: clients take turns, and nothing passes what changes the model."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Turns"]

#: Clients whose last turn is remembered.
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class _Entry:
    work: Callable[[], None]
    #: None for what changes the model: all that was put before comes before, all after comes after.
    client: str | None


class Turns:
    """A queue in which a client that asks for much waits for itself alone."""

    def __init__(self) -> None:
        """Nothing to do yet."""
        self._entries: list[_Entry] = []
        self._news = threading.Condition()
        #: When each client had its last turn, the one that waits longest first.
        self._served: dict[str, None] = {}

    def put(self, work: Callable[[], None], client: str | None = None) -> None:
        """Have something done: in its turn for a ``client``, in its place for none."""
        with self._news:
            self._entries.append(_Entry(work, client))
            self._news.notify()

    def get(self) -> Callable[[], None]:
        """What is to be done next; waits until there is something."""
        with self._news:
            while not self._entries:
                self._news.wait()
            chosen = self._next()
            self._entries.remove(chosen)
            if chosen.client is not None:
                self._served.pop(chosen.client, None)
                self._served[chosen.client] = None
                while len(self._served) > _REMEMBERED:
                    del self._served[next(iter(self._served))]
            return chosen.work

    def empty(self) -> bool:
        """Whether nobody waits."""
        return not self._entries

    def _next(self) -> _Entry:
        """The first of those who have waited longest for a turn, as far as the next change of the model."""
        order = {client: place for place, client in enumerate(self._served, 1)}
        best, least = self._entries[0], len(order) + 1
        for entry in self._entries:
            if entry.client is None:
                break
            if (place := order.get(entry.client, 0)) < least:
                best, least = entry, place
        return best
