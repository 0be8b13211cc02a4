"""Keys and values of what a model has read last: what begins alike is read only from where it differs."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from star.model import CodeModel
from star.patch import Patch

__all__ = ["KVCache"]


class KVCache:
    """One sequence of token ids, and the keys and values that one model made of it.

    Under another history these would be wrong: when that of the model has changed, all is forgotten, but for
    what layers below every change have read.
    """

    def __init__(self, model: CodeModel) -> None:
        """Nothing read yet."""
        self._model = model
        self._patches = model.patches
        self._ids: list[int] = []
        #: What follows them, as the layers below the mark have read it.
        self._below: list[int] = []
        self._past: Any = None

    @property
    def ids(self) -> tuple[int, ...]:
        """What has been read, and still holds."""
        self._check()
        return tuple(self._ids)

    @property
    def size(self) -> int:
        """How many tokens it holds, be they of use still or not."""
        return len(self._ids) + len(self._below)

    @property
    def room(self) -> int:
        """For how many it has taken memory, which is what it costs to keep it."""
        return self._past.room if self._model.lean and self._past else self.size

    def rewind(self, ids: Sequence[int]) -> int:
        """Forget what does not begin ``ids``; how many of them have been read.

        All is forgotten where the cache of this architecture cannot forget a part (sliding attention).
        """
        self._check()
        length = _alike(self._ids, ids)
        below = _alike(self._below, ids[length:]) if length == len(self._ids) else 0
        if length + below < self.size:
            self._crop(length, below)
        return len(self._ids)

    def read(self, ids: Sequence[int], keep: int) -> Float[Tensor, "keep v"]:
        """Read on; the logits after the last ``keep`` of ``ids``."""
        self._check()
        known = _alike(self._below, ids)
        if known < len(ids) and self._below:
            # What is known is read by itself, where logits are asked for of nothing in it.
            first = known if known <= len(ids) - keep else 0
            self._crop(len(self._ids), first)
            if first:
                self._read(ids[:first], 1)
                ids = ids[first:]
        return self._read(ids, keep)

    def _read(self, ids: Sequence[int], keep: int) -> Float[Tensor, "keep v"]:
        """Read what the layers below the mark have read, or have not read, as a whole."""
        lean = self._model.lean
        try:
            with torch.inference_mode():
                if lean:
                    self._past = self._past or lean.past()
                    logits = lean.read(self._past, ids, keep)
                else:
                    out = self._model.network(
                        torch.tensor([list(ids)]), cache=self._past, use_cache=True, logits_to_keep=keep
                    )
                    self._past, logits = out.cache, out.logits[0, -keep:]
        except BaseException:  # some layers may have read it, and others not
            self._forget()
            raise
        self._ids += ids
        del self._below[: len(ids)]
        return logits

    def _crop(self, length: int, below: int) -> None:
        """Forget what is behind the first ``length`` tokens, and of those below the mark behind ``below``."""
        if not length + below:
            self._forget()
            return
        if self._model.lean:
            self._past.crop(length + below)
        else:
            try:
                self._past.crop(length - len(self._ids))
            except RuntimeError:
                self._forget()
                return
        del self._ids[length:], self._below[below:]

    def _forget(self) -> None:
        self._ids, self._below, self._past = [], [], None

    def _check(self) -> None:
        if self._patches is self._model.patches:
            return
        lean, lowest = self._model.lean, _lowest(self._patches, self._model.patches)
        self._patches = self._model.patches
        if lean and self._past and lowest >= lean.mark:
            self._past.crop_above()
            self._ids, self._below = [], self._ids + self._below
        else:
            self._forget()


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many of them are the same from the start on."""
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)


def _lowest(before: Sequence[Patch], after: Sequence[Patch]) -> int:
    """The lowest layer whose weights two histories may have different."""
    digests = [patch.digest for patch in before], [patch.digest for patch in after]
    same = next((i for i, (a, b) in enumerate(zip(*digests, strict=False)) if a != b), min(map(len, digests)))
    changed = [rows.layer for patch in (*before[same:], *after[same:]) for rows in patch.rows]
    return min(changed, default=sys.maxsize)
