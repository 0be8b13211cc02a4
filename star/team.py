"""Compiled functions on the threads that torch has: a second pool would wait for the first one's cores."""

import ctypes
from functools import cache
from typing import Any

import torch

from star import tables

__all__ = ["Team", "team"]


class Team:
    """As many threads as torch is told to use."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Those of the OpenMP library that torch has loaded."""
        self._parallel = library.GOMP_parallel
        self._parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel.restype = None
        told = library.omp_get_thread_num, library.omp_get_num_threads, library.GOMP_barrier
        self._told = [ctypes.cast(each, ctypes.c_void_p).value for each in told]

    @property
    def size(self) -> int:
        """The most that there are; a limit of the user's may let fewer come."""
        return torch.get_num_threads()

    def describe(self, table: Any) -> None:
        """Write into a table (``tables``) what its functions ask of the threads."""
        table[[tables.NUMBER, tables.THREADS, tables.BARRIER]] = self._told

    def run(self, function: int, data: int) -> None:
        """Call the function at this address with ``data``, once on each of them, and wait for all."""
        self._parallel(function, data, self.size, 0)


@cache
def team() -> Team | None:
    """None where torch's threads are not those of GNU's OpenMP, or of one that answers to its names."""
    try:
        return Team(ctypes.CDLL(None))
    except (OSError, AttributeError, TypeError):  # not a Unix; other names
        return None
