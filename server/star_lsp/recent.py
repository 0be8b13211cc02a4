"""What came last, by name, and no more of it than is worth keeping."""

from collections import OrderedDict
from typing import TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """The last few that were put in, newest last."""

    def __init__(self, most: int) -> None:
        """None yet, and never more than ``most``."""
        super().__init__()
        self._most = most

    def put(self, key: K, value: V) -> None:
        """Remember one as the newest, and forget the oldest beyond the most."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)
