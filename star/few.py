"""The forward pass of ``lean.py`` for a few tokens as one compiled function, which waits for weights alone.

``kernel.read`` is that function. What is here tells it by tables of addresses where everything is, and keeps
what its threads write to.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from star import kernel, tables
from star.product import Int8Linear
from star.team import Team

if TYPE_CHECKING:
    from star.lean import Layer, Past

__all__ = ["Few"]


class Few:
    """A network's layers as addresses, and what the threads write to meanwhile."""

    def __init__(
        self, team: Team, layers: Sequence["Layer"], head: Int8Linear, last: Tensor, epsilon: float, mark: int
    ) -> None:
        """Of what ``lean.Lean`` has."""
        self._team, self._layers, self._head, self._mark = team, layers, head, mark
        self._last = last
        self._linears = [each for layer in layers for each in layer.linears] + [head]
        self._table = np.zeros((len(layers), tables.LAYER), np.int64)
        self._of_head = np.zeros(tables.LINEAR, np.int64)
        self._told = told = np.zeros(tables.TOLD, np.int64)
        first = layers[0]
        broad, inner, read = len(last), first.down.numbers.shape[1], len(first.qkv.numbers)
        self._length = kernel.filled(max(broad, inner, first.out.numbers.shape[1]))
        shapes = {
            tables.READ: read,
            tables.SEEN: first.out.numbers.shape[1],
            tables.MADE: broad,
            tables.UPPED: 2 * inner,
            tables.ACTED: inner,
        }
        self._buffers = {number: torch.empty(kernel.MOST, size) for number, size in shapes.items()}
        for number, buffer in self._buffers.items():
            told[number] = buffer.data_ptr()
        team.describe(told)
        told[tables.LAYERS], told[tables.DEPTH] = self._table.ctypes.data, len(layers)
        told[tables.HEAD], told[tables.LAST] = self._of_head.ctypes.data, last.data_ptr()
        told[tables.EPSILON] = np.float32(epsilon).view(np.int32)
        told[tables.BROAD] = broad
        #: What each thread has by itself, in bytes: activations as floats and rounded, a panel, lifted ones.
        self._owned = self._length * (4 * kernel.MOST + 2 * kernel.MOST + 2 * kernel.WIDTH + 4)
        self._own = torch.empty(0, dtype=torch.uint8)
        self._scores = torch.empty(0, 0)
        self._found: list[Any] = []

    def read(
        self,
        past: "Past",
        hidden: Float[Tensor, "n d"],
        turns: tuple[Tensor, Tensor],
        heads: tuple[int, int, int],
        known: bool,
        keep: int,
    ) -> Float[Tensor, "keep v"]:
        """Read on behind ``past`` as ``Lean.read`` does, ``hidden`` being what the first layer to run reads.

        ``turns`` are cosines and signed sines of these positions, ``heads`` the numbers of heads and of those
        that share keys, and the size of one. ``known`` says that the layers below the mark have read this.
        """
        self._look()
        start, count = past.length, len(hidden)
        threads = self._team.size
        if len(self._own) != threads:
            self._own = torch.empty(threads, self._owned, dtype=torch.uint8)
        if self._scores.shape != (threads, past.room):
            self._scores = torch.empty(threads, past.room)
        logits = torch.empty(keep, len(self._head.numbers))
        hidden = hidden.clone()
        told, both = self._told, past.both
        told[tables.OWN], told[tables.OWNED] = self._own.data_ptr(), self._owned
        told[tables.HEADS], told[tables.SHARED], told[tables.SIZE] = heads
        told[tables.HIDDEN] = hidden.data_ptr()
        told[tables.COSINES], told[tables.SINES] = turns[0].data_ptr(), turns[1].data_ptr()
        told[tables.FIRST], told[tables.MARK] = (self._mark, -1) if known else (0, self._mark)
        told[tables.KEPT] = past.output.data_ptr()
        told[tables.TOKENS], told[tables.START] = count, start
        told[tables.KEYS], told[tables.VALUES] = both[0].data_ptr(), both[1].data_ptr()
        told[tables.OF_LAYER], told[tables.OF_HEAD] = both.stride(1) * 4, both.stride(2) * 4
        told[tables.SCORES], told[tables.ROOM] = self._scores.data_ptr(), past.room
        told[tables.ASKED], told[tables.LOGITS] = keep, logits.data_ptr()
        self._team.run(kernel.read.address, told.ctypes.data)
        return logits

    def _look(self) -> None:
        """Write down anew where things are, if any was exchanged, as a patch does with what stands beside."""
        found: list[Any] = []
        for linear in self._linears:
            found += linear.numbers, linear.scale, linear.beside
        if len(found) == len(self._found) and all(map(lambda a, b: a is b, found, self._found)):
            return
        for number, layer in enumerate(self._layers):
            row = self._table[number]
            row[tables.BEFORE], row[tables.BETWEEN] = layer.before.data_ptr(), layer.between.data_ptr()
            for place, linear in zip(
                (tables.QKV, tables.OUT, tables.UP, tables.DOWN), layer.linears, strict=True
            ):
                row[place : place + tables.LINEAR] = linear.told()
        self._of_head[:] = self._head.told()
        self._found = found
