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
    #: Whether nobody waits for it any more.
    over: Callable[[], bool]
    #: Whether nobody has waited for it from the beginning.
    spare: bool


class Turns:
    """A queue in which a client that asks for much waits for itself alone."""

    def __init__(self) -> None:
        """Nothing to do yet."""
        self._entries: list[_Entry] = []
        self._news = threading.Condition()
        #: When each client had its last turn, the one that waits longest first.
        self._served: dict[str, None] = {}

    def put(
        self,
        work: Callable[[], None],
        client: str | None = None,
        over: Callable[[], bool] = lambda: False,
        *,
        spare: bool = False,
    ) -> None:
        """Have something done: in its turn for a ``client``, in its place for none.

        What is ``over`` by then takes no turn: whoever types takes back one request with every key, and
        would wait a turn for each of them. What is ``spare`` takes none either, and comes last.
        """
        with self._news:
            self._entries.append(_Entry(work, client, over, spare))
            self._news.notify()

    def get(self) -> Callable[[], None]:
        """What is to be done next; waits until there is something."""
        with self._news:
            while not self._entries:
                self._news.wait()
            chosen = self._next()
            self._entries.remove(chosen)
            if chosen.client is not None and not chosen.spare and not chosen.over():
                self._served.pop(chosen.client, None)
                self._served[chosen.client] = None
                while len(self._served) > _REMEMBERED:
                    del self._served[next(iter(self._served))]
            return chosen.work

    def empty(self) -> bool:
        """Whether nobody waits."""
        return all(entry.spare or entry.over() for entry in list(self._entries))

    def _next(self) -> _Entry:
        """The first of those who have waited longest for a turn, as far as the next change of the model."""
        order = {client: place for place, client in enumerate(self._served, 1)}
        best, least = self._entries[0], len(order) + 1
        for entry in self._entries:
            if entry.client is None:
                break
            if entry.over():
                return entry
            if not entry.spare and (place := order.get(entry.client, 0)) < least:
                best, least = entry, place
        return best
